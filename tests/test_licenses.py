"""Licenses of models: where they are found, where they are stated, and how they are carried on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from styled_models import cached_styled_checkpoint, styled_checkpoint

from ast_cli import Tagger, read_results
from ast_cli.hub.licenses import is_noncommercial, license_id, license_note, license_of
from ast_cli.hub.names import CHECKPOINTS

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NONCOMMERCIAL = "CC-BY-NC-SA-4.0"
NOTE = f"note: the weights of maest are under {NONCOMMERCIAL}, which forbids commercial use\n"
BIRDSET_NOTE = "note: the authors of birdset state no license for its weights\n"


def card(front_matter: str) -> str:
    return f"---\n{front_matter}\n---\n# A model\n\nlicense: mit\n"


# --- where they are found


@pytest.mark.parametrize(
    ("model", "license_of_it"),
    [
        ("builtin", "Apache-2.0"),
        ("audioset", "BSD-3-Clause"),
        ("sslam", "MIT"),
        ("maest-5s", NONCOMMERCIAL),
        ("mtg-upf/discogs-maest-5s-pw-129e", NONCOMMERCIAL),
        ("birdset", None),
        ("someone/else", None),
        ("scratch:192x6", None),
        ("no-such-model", None),
    ],
)
def test_licenses_of_published_models_are_known_by_name(model: str, license_of_it: str | None) -> None:
    assert license_of(model) == license_of_it


def test_a_model_of_the_working_directory_is_not_taken_for_a_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = CHECKPOINTS["maest"].repo_id
    (tmp_path / repo_id).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert license_of(repo_id) is None
    assert license_of("maest") == NONCOMMERCIAL


@pytest.mark.parametrize(
    ("front_matter", "found"),
    [
        ("license: cc-by-nc-sa-4.0", NONCOMMERCIAL),
        ("tags:\n- audio\nlicense: 'mit'  # as the code", "MIT"),
        ('license: "Apache-2.0"', "Apache-2.0"),
        ("license: openrail", "openrail"),
        ("license: other\nlicense_name: own-terms-1.0", "own-terms-1.0"),
        ("license: other", None),
        ("license:\n- mit\n- apache-2.0", None),
        ("license: [mit, apache-2.0]", None),
        ("license: \x1b[31mred", None),
        ("# license: mit", None),
        ("  license: mit", None),
        ("", None),
    ],
)
def test_a_folder_states_its_license_in_the_front_matter_of_its_card(
    tmp_path: Path, front_matter: str, found: str | None
) -> None:
    (tmp_path / "README.md").write_text(card(front_matter), encoding="utf-8")
    assert license_of(tmp_path) == found


@pytest.mark.parametrize("text", ["license: mit\n", "---\nlicense: mit\n", "", "\n---\nlicense: mit\n---\n"])
def test_text_that_is_no_front_matter_states_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert license_of(tmp_path) is None


def test_config_json_comes_before_the_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card("license: mit"))
    (tmp_path / "config.json").write_text(json.dumps({"license": "cc-by-nc-4.0"}))
    assert license_of(tmp_path) == "CC-BY-NC-4.0"
    (tmp_path / "config.json").write_text(json.dumps({"license": ["cc-by-nc-4.0"]}))
    assert license_of(tmp_path) == "MIT"


def test_a_file_of_weights_is_described_by_the_files_beside_its_configuration_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card("license: mit"))
    (tmp_path / "weights.pth").write_bytes(b"")
    assert license_of(tmp_path / "weights.pth") is None
    (tmp_path / "config.json").write_text("{}")
    assert license_of(tmp_path / "weights.pth") == "MIT"


def test_noncommercial_licenses_are_told_by_their_identifiers() -> None:
    assert [is_noncommercial(license_id(each)) for each in ("cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "cc-by-nc-nd-4.0")] == [
        True
    ] * 3
    assert not any(is_noncommercial(license_id(each)) for each in ("cc-by-4.0", "mit", "sync-1.0", "NCSA", None, 3))


def test_there_is_nothing_to_say_about_a_license_that_allows_all_or_a_model_that_nobody_knows() -> None:
    assert license_note("audioset", license_of("audioset")) is None
    assert license_note("my-model", None) is None


# --- where they are stated


@pytest.fixture
def maest(tmp_path: Path) -> Path:
    """Put a checkpoint with the name ``maest`` into the cache that `run_ast` uses; return its folder."""
    return cached_styled_checkpoint(tmp_path / "hf-home", CHECKPOINTS["maest"].repo_id)


@pytest.mark.usefixtures("maest")
def test_classify_says_what_the_license_forbids_once_and_writes_it_into_the_records(
    run_ast: Run, write_wav: Callable[..., Path]
) -> None:
    files = [str(write_wav(name)) for name in ("a.wav", "b.wav")]
    done = run_ast("classify", *files, "--model", "maest", "--format", "jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr.count(NOTE) == 1
    assert [record["license"] for record in records] == [NONCOMMERCIAL] * 2
    assert list(records[0])[list(records[0]).index("model") + 1] == "license"
    quiet = run_ast("classify", *files, "--model", "maest", "--format", "jsonl", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


@pytest.mark.usefixtures("maest")
@pytest.mark.parametrize("command", ["extract", "evaluate", "export"])
def test_other_commands_say_it_too(run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path, command: str) -> None:
    write_wav("Electronic---IDM/b.wav")
    clip = write_wav("Rock---AOR/a.wav")
    arguments = {
        "extract": [str(clip), "--output", str(tmp_path / "x.npz")],
        "evaluate": [str(clip.parents[1]), "--exclude", "hf-home", "--format", "json"],
        "export": ["--output", str(tmp_path / "exported")],
    }[command]
    done = run_ast(command, *arguments, "--model", "maest")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(NOTE) == 1
    assert NOTE not in run_ast(command, *arguments, "--model", "maest", "--quiet", "--force").stderr
    if command == "evaluate":
        assert json.loads(done.stdout)["models"][0]["license"] == NONCOMMERCIAL
    if command == "export":
        assert license_of(tmp_path / "exported") == NONCOMMERCIAL
        (tmp_path / "exported" / "model.onnx").rename(tmp_path / "alone.onnx")
        assert Tagger.from_pretrained(tmp_path / "alone.onnx").license == NONCOMMERCIAL


def test_a_missing_license_is_said_but_not_recorded(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    cached_styled_checkpoint(tmp_path / "hf-home", CHECKPOINTS["birdset"].repo_id)
    done = run_ast("classify", str(write_wav("a.wav")), "--model", "birdset", "--format", "jsonl")
    assert done.stderr.count(BIRDSET_NOTE) == 1
    assert "license" not in json.loads(done.stdout)


def test_a_license_survives_reading_and_converting_results(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    model = styled_checkpoint(tmp_path / "model")
    (model / "README.md").write_text(card("license: cc-by-nc-4.0"))
    output, converted = tmp_path / "tags.jsonl", tmp_path / "converted.jsonl"
    run_ast("classify", str(write_wav("a.wav")), "--model", str(model), "--output", str(output))
    assert [result.license for result in read_results(output)] == ["CC-BY-NC-4.0"]
    run_ast("convert", str(output), "--output", str(converted), "--top-k", "1")
    assert json.loads(converted.read_text())["license"] == "CC-BY-NC-4.0"


# --- how they are carried on


@pytest.mark.parametrize(("stated", "carried"), [("cc-by-nc-sa-4.0", NONCOMMERCIAL), ("mit", None)])
def test_a_finetuned_model_carries_on_what_forbids_commercial_use(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path, stated: str, carried: str | None
) -> None:
    base = styled_checkpoint(tmp_path / "base")
    (base / "README.md").write_text(card(f"license: {stated}"))
    for label in ("dog", "rain"):
        for number in range(3):
            write_wav(f"clips/{label}/{number}.wav")
    done = run_ast(
        *("finetune", str(tmp_path / "clips"), "--model", str(base), "--output", str(tmp_path / "out")),
        *("--freeze-encoder", "--epochs", "1"),
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    text = (tmp_path / "out" / "README.md").read_text()
    assert config.get("license") == license_of(tmp_path / "out") == carried
    assert (f"\nlicense: {stated}\n" in text) == (carried is not None)
    assert ("forbids commercial use" in text) == ("forbids commercial use" in done.stderr) == (carried is not None)
