from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_hub import REPO, FakeHub, Fault, client_environment, final_files, run_ast, running_hub, start
from tiny_models import small_config

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification
from ast_cli.cli.download import download
from ast_cli.errors import UsageError
from ast_cli.hub.folders import default_model
from ast_cli.hub.names import CHECKPOINTS
from ast_cli.model.config import ASTConfig, activation_of

AUDIOSET = CHECKPOINTS["audioset-10-10-0.4593"].repo_id
FAST = CHECKPOINTS["audioset-16-16-0.442"].repo_id
COMMIT = "a" * 40


@pytest.fixture(scope="module")
def model() -> ASTForAudioClassification:
    torch.manual_seed(0)
    config = small_config(num_labels=527, problem_type="multi_label_classification")
    return ASTForAudioClassification(config).eval()


@pytest.fixture(scope="module")
def checkpoint(model: ASTForAudioClassification, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return final_files(folder)


@pytest.fixture(scope="module")
def pickled_checkpoint(checkpoint: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from safetensors.torch import load

    file = tmp_path_factory.mktemp("pickled") / "pytorch_model.bin"
    torch.save(load(checkpoint["model.safetensors"]), file)
    rest = {name: content for name, content in checkpoint.items() if name != "model.safetensors"}
    return rest | {file.name: file.read_bytes()}


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


def size_mb(files: dict[str, bytes]) -> str:
    return f"{sum(map(len, files.values())) / 1e6:.1f} MB"


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(value, equal) for (name, value), (other, equal) in pairs)


def test_without_arguments_audioset_is_downloaded_and_becomes_the_default_model(
    fake_hub: FakeHub,
    home: Path,
    model: ASTForAudioClassification,
    checkpoint: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_hub.repos[AUDIOSET] = checkpoint
    run = run_ast(fake_hub, home, "download")
    snapshot = home / "hub" / f"models--{AUDIOSET.replace('/', '--')}" / "snapshots" / COMMIT
    assert (run.exit_code, run.stdout) == (0, f"audioset: 527 labels, {size_mb(checkpoint)}, {snapshot}\n")
    assert run.stderr == f"fetching audioset ({AUDIOSET})\n"  # no progress bar: this is no terminal
    fake_hub.stop()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.delenv("AST_MODEL", raising=False)
    assert default_model() == "audioset"
    assert same_weights(ASTForAudioClassification.from_pretrained(default_model()), model)
    assert ASTFeatureExtractor.from_pretrained(AUDIOSET).max_length == 64


def test_a_checkpoint_without_a_front_end_counts_as_complete(fake_hub: FakeHub, home: Path, tmp_path: Path) -> None:
    ASTForAudioClassification(small_config(id2label={0: "eurbla", 1: "comcha"})).save_pretrained(tmp_path / "birds")
    fake_hub.repos[REPO] = files = final_files(tmp_path / "birds")
    run = run_ast(fake_hub, home, "download", REPO, "--output-dir", str(tmp_path), "--quiet")
    folder = tmp_path / REPO.rsplit("/")[-1]
    assert (run.exit_code, run.stdout) == (0, f"{REPO}: 2 labels, {size_mb(files)}, {folder}\n")
    assert run.stderr == ""
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_output_dir_gets_a_usable_folder_for_each_name_and_a_pickle_only_repository_works(
    fake_hub: FakeHub,
    home: Path,
    tmp_path: Path,
    model: ASTForAudioClassification,
    checkpoint: dict[str, bytes],
    pickled_checkpoint: dict[str, bytes],
) -> None:
    fake_hub.repos |= {REPO: pickled_checkpoint, FAST: checkpoint}
    out = tmp_path / "models"
    run = run_ast(fake_hub, home, "download", "fast", REPO, "--output-dir", str(out), "--quiet")
    assert run.stdout == (
        f"fast: 527 labels, {size_mb(checkpoint)}, {out / 'fast'}\n"
        f"{REPO}: 527 labels, {size_mb(pickled_checkpoint)}, {out / 'tiny'}\n"
    )
    assert (run.exit_code, run.stderr) == (0, "")
    assert (final_files(out / "fast"), final_files(out / "tiny")) == (checkpoint, pickled_checkpoint)
    assert same_weights(ASTForAudioClassification.from_pretrained(out / "tiny"), model)


def test_maest_is_downloaded_from_its_pickle_and_the_code_beside_it_is_not(
    fake_hub: FakeHub, home: Path, model: ASTForAudioClassification, pickled_checkpoint: dict[str, bytes]
) -> None:
    labels = {str(index): f"Rock---Style {index}" for index in range(527)}
    config = json.loads(pickled_checkpoint["config.json"]) | {
        "id2label": labels,
        "label2id": {label: int(index) for index, label in labels.items()},
        "problem_type": None,
        "auto_map": {"AutoModel": "modeling_maest.Model"},
    }
    repo_id = CHECKPOINTS["maest-10s"].repo_id
    fake_hub.repos[repo_id] = pickled_checkpoint | {
        "config.json": json.dumps(config).encode(),
        "feature_extraction_maest.py": b"raise SystemExit",
        "modeling_maest.py": b"raise SystemExit",
    }
    run = run_ast(fake_hub, home, "download", "maest-10s", "--quiet")
    snapshot = home / "hub" / f"models--{repo_id.replace('/', '--')}" / "snapshots" / COMMIT
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout.startswith("maest-10s: 527 labels, ")
    assert sorted(file.name for file in snapshot.iterdir()) == sorted(pickled_checkpoint)
    assert same_weights(ASTForAudioClassification.from_pretrained(snapshot), model)
    assert activation_of(ASTConfig.from_pretrained(snapshot)) == "sigmoid"
    assert [request.path for request in fake_hub.requests if request.path.endswith(".py")] == []


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.file),)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    fake_hub: FakeHub, home: Path, tmp_path: Path, pickled_checkpoint: dict[str, bytes]
) -> None:
    harm = tmp_path / "harm"
    fake_hub.repos[REPO] = pickled_checkpoint | {"pytorch_model.bin": pickle.dumps({"a": _Payload(harm)})}
    run = run_ast(fake_hub, home, "download", REPO)
    assert (run.exit_code, run.stdout) == (1, "")
    assert "pytorch_model.bin: refused, because it contains" in run.stderr
    assert not harm.exists()


def test_a_complete_checkpoint_that_cannot_be_loaded_is_an_error(
    fake_hub: FakeHub, home: Path, checkpoint: dict[str, bytes]
) -> None:
    config = checkpoint["config.json"].replace(b'"hidden_size": 16', b'"hidden_size": 24')
    assert config != checkpoint["config.json"]
    fake_hub.repos[REPO] = checkpoint | {"config.json": config}
    run = run_ast(fake_hub, home, "download", REPO, "--quiet")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: ")
    assert "its tensors do not match its configuration" in run.stderr


def test_the_list_is_that_of_ast_models_made_without_network_or_torch(fake_hub: FakeHub, home: Path) -> None:
    snapshots = home / "hub" / f"models--{FAST.replace('/', '--')}" / "snapshots" / COMMIT
    snapshots.mkdir(parents=True)
    (snapshots.parents[1] / "refs").mkdir()
    (snapshots.parents[1] / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        (snapshots / name).write_bytes(b"")
    run = run_ast(fake_hub, home, "download", "--list")
    assert (run.exit_code, run.stderr, fake_hub.requests) == (0, "", [])
    here = [line.split()[0] for line in run.stdout.splitlines() if " yes " in line]
    assert here == ["builtin", "fast"]
    assert run.stdout == run_ast(fake_hub, home, "models").stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://example.org/model", "is a URL; use an alias or a hub id such as org/name"),
        ("builtin", "ships with the package: there is nothing to fetch"),
        ("audiosett", "did you mean audioset"),
    ],
)
def test_an_invalid_name_is_refused_before_anything_is_downloaded(
    fake_hub: FakeHub, home: Path, name: str, message: str
) -> None:
    run = run_ast(fake_hub, home, "download", REPO, name)
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.startswith("error: ")
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert fake_hub.requests == []


def test_a_list_of_names_is_refused() -> None:
    with pytest.raises(UsageError, match="--list takes no names"):
        download(["fast"], list_checkpoints=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("quiet", [False, True])
def test_the_progress_bar_shows_on_a_terminal_unless_quiet(
    fake_hub: FakeHub, home: Path, checkpoint: dict[str, bytes], quiet: bool
) -> None:
    import pty
    import termios

    fake_hub.repos[REPO] = checkpoint
    fake_hub.faults["config.json"] = Fault("status", status=404)  # the last file: an end before the model is loaded
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 120))  # one of no width shows no bar
    args = ["-m", "ast_cli", "download", REPO, *(["--quiet"] if quiet else [])]
    process = start(client_environment(fake_hub, home), *args, stderr=stderr)
    os.close(stderr)
    process.communicate(timeout=60)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert ("model.safetensors: 100%" in shown) == (not quiet)
    assert "the hub answered 404" in shown
