from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
PNG = b"\x89PNG"


def test_a_folder_gives_one_picture_a_file_in_the_same_folders(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("in/x.wav")
    write_wav("in/sub/x.flac")
    command = ("plot", "in", "--what", "spectrogram", "-o", "out", "--workers", "0")
    done = run_ast(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["sub/x.flac.png", "x.wav.png"]
    assert all((tmp_path / "out" / name).read_bytes().startswith(PNG) for name in found)
    again = run_ast(*command, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("error: --output out/")
    assert "exists: add --force to replace it" in again.stderr
    (tmp_path / "out" / "x.wav.png").write_bytes(b"old")
    assert run_ast(*command, "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "x.wav.png").read_bytes().startswith(PNG)


def test_a_single_file_prints_its_picture_and_labels(run_ast: Run, tmp_path: Path) -> None:
    record = {
        **{"schema_version": 1, "type": "file", "path": "a\n.wav", "status": "ok", "duration_s": 9.0},
        **{"sampling_rate": 16000, "num_channels": 1, "model": "m", "activation": "sigmoid"},
        "tags": [{"label": "Rain", "label_id": 0, "mid": None, "score": 0.5}],
        **{"warnings": [], "error": None},
    }
    (tmp_path / "tags.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    done = run_ast("plot", "--results", "tags.jsonl", "--what", "timeline", "-o", "a.svg", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.svg  Rain\n", "")
    assert "a\\n.wav" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    from_pipe = run_ast(
        *("plot", "--results", "-", "--what", "timeline", "-o", "b.pdf", "-q"),
        cwd=tmp_path,
        stdin=json.dumps(record).encode(),
    )
    assert (from_pipe.returncode, from_pipe.stdout) == (0, "b.pdf  Rain\n")


def test_the_built_in_model_gives_the_lanes(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    path = write_wav("noise.wav", 2.0)
    done = run_ast("plot", path, "-o", tmp_path / "n.png", "--model", "builtin", "-k", "2", "-q")
    assert done.returncode == 0, done.stderr
    name, labels = done.stdout.rstrip("\n").split("  ")
    assert name == str(tmp_path / "n.png")
    assert labels
    assert (tmp_path / "n.png").read_bytes().startswith(PNG)


def test_a_file_that_fails_has_no_picture(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("in/a.wav")
    (tmp_path / "in" / "b.wav").write_bytes(b"")
    done = run_ast("plot", "in", "--what", "waveform", "-o", "out", "--workers", "0", cwd=tmp_path)
    assert done.returncode == 3
    assert "error: in/b.wav: the file is empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "-o", "x.gif"], "--output x.gif: .gif is not a supported format; end the name of a file in "),
        (["a.wav", "-o", "x.png", "--what", "lanes"], "--what must be waveform, spectrogram, timeline or all"),
        (["a.wav", "-o", "x.png", "--results", "r.jsonl", "-m", "builtin"], "--results are drawn without a model"),
        (["-", "-o", "x.png", "--results", "-"], "standard input cannot be both the results and an input"),
        (["-o", "x.png"], "name files, folders or patterns to read"),
        (["--results", "none.jsonl", "-o", "x.png"], "none.jsonl: no such file"),
        (["a.wav", "-o", "x.png", "--channels", "each"], "--channels each gives several results"),
    ],
)
def test_wrong_usage_has_one_sentence(run_ast: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run_ast("plot", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr
