"""The recipe of the built-in model, from three small packages to a checkpoint folder with its card."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ast_cli import Tagger

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "models" / "builtin"
TEACHER = ROOT.parent / "shared" / "teacher"
RATE = 22_050


def tone(frequency_hz: float, duration_s: float = 1.5) -> bytes:
    """Return a WAV file with a decaying tone."""
    time_s = np.arange(int(duration_s * RATE)) / RATE
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * frequency_hz * time_s) * np.exp(-time_s), RATE, format="WAV")
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def build_package(tmp_path: Path) -> Callable[[str, dict[str, bytes]], None]:
    """Return a function that builds a package of files into ``corpus/packages``."""

    def build(name: str, files: dict[str, bytes]) -> None:
        folder = tmp_path / name
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: sounds\n"
        )
        for path, content in {"DEBIAN/control": control.encode(), **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        packages = tmp_path / "corpus" / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        package = str(packages / f"{name}_1_all.deb")
        subprocess.run(["dpkg-deb", "--build", str(folder), package], check=True, capture_output=True)

    return build


@pytest.mark.skipif(not TEACHER.exists(), reason="needs the teacher's weights, which are not part of the project")
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_recipe_makes_a_checkpoint_from_packages(
    tmp_path: Path, build_package: Callable[[str, dict[str, bytes]], None]
) -> None:
    build_package("kbounce", {f"usr/share/kbounce/{hz}.wav": tone(hz) for hz in (300, 500, 800)})
    inside = zipped({f"sounds/{hz}.wav": tone(hz, 7.0) for hz in (350, 900)})
    build_package("iagno", {"usr/share/iagno/sounds.pk3": inside, "usr/share/doc/iagno/copyright": b"GPL-3+\n"})
    build_package("sound-icons", {"usr/share/sounds/sound-icons/chirp.wav": tone(2000), "usr/a.wav": tone(700)})
    corpus = tmp_path / "corpus"
    shutil.copyfile(TEACHER / "yamnet.safetensors", corpus / "yamnet.safetensors")
    package = tmp_path / "builtin"
    arguments = ["--teacher", TEACHER / "yamnet.tflite", "--no-download", "--share", 0, "--steps", 3, "--batch-size", 8]
    command = [sys.executable, RECIPE / "make.py", corpus, *arguments, "--package", package]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    with open(corpus / "index.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    splits = {(row["package"], row["split"]) for row in rows}
    assert splits == {("kbounce", "train"), ("iagno", "train"), ("sound-icons", "test")}
    assert "usr/share/iagno/sounds.pk3!sounds/350.wav#0" in {row["path"] for row in rows}
    assert (corpus / "copyright" / "iagno").read_text() == "GPL-3+\n"
    metrics = json.loads((corpus / "model" / "metrics.json").read_text())
    assert metrics["held_out_windows"] == 2
    tagger = Tagger.from_pretrained(str(package))
    result = tagger.classify(np.zeros(16_000, np.float32), sampling_rate=16_000)
    assert len(tagger.config.id2label) == 521
    assert result.tags
    card = (package / "README.md").read_text()
    assert "$" not in card
    assert "iagno" in card
