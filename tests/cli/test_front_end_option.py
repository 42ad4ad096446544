"""No command uses AudioSet's front end for a checkpoint that does not state which front end it needs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tone_folders import write_tone_folders

from ast_cli import ASTConfig, ASTForAudioClassification, Tagger
from ast_cli.errors import AstWarning, CheckpointError, UsageError
from ast_cli.hub.folders import builtin_folder
from ast_cli.labels import SPEECH_COMMANDS, audioset_id2label
from ast_cli.tagging.options import ClassifyOptions, LoadOptions
from ast_cli.tagging.run.tag_files import fingerprint

SAMPLE = str(Path(__file__).resolve().parents[2] / "sample_audio" / "dog.wav")
MISSING = (
    "there is no preprocessor_config.json, so the sampling rate and the spectrogram that the model needs are unknown"
)
WORDS = dict(enumerate(sorted(SPEECH_COMMANDS)))
Run = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = {
    "classify": ["classify", SAMPLE],
    "extract": ["extract", SAMPLE, "--output", "dog.npz"],
    "extract --what fbank": ["extract", SAMPLE, "--what", "fbank", "--output", "fbank.npz"],
    "evaluate": ["evaluate", "data", "--ignore-unknown-labels"],
    "stats": ["stats", "data"],
    "export": ["export", "--output", "exported"],
    "finetune": ["finetune", "data", "--output", "tuned", "--freeze-encoder", "--epochs", "1"],
    "benchmark": ["benchmark", "--batch-size", "1", "--repeats", "1", "--attn", "sdpa"],
}


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """Return the built-in model without its front end; its labels, 521 of 527, do not determine one."""
    folder = tmp_path / "silent"
    shutil.copytree(builtin_folder(), folder)
    (folder / "preprocessor_config.json").unlink()
    return folder


def tiny(folder: Path, id2label: dict[int, str], max_length: int = 64) -> ASTForAudioClassification:
    """Return a classifier of hidden size 64, the smallest of original files, and save it in a folder."""
    torch.manual_seed(0)
    model = ASTForAudioClassification(
        ASTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                  max_length=max_length, id2label=id2label)
    )  # fmt: skip
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_needs_the_front_end_by_name_if_it_is_unknown(
    run_ast: Run, silent: Path, tmp_path: Path, command: str
) -> None:
    write_tone_folders(tmp_path / "data")
    (tmp_path / "data" / "Low").rename(tmp_path / "data" / "Rain")
    arguments = [*COMMANDS[command], "--model", str(silent)]
    refused = run_ast(*arguments, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: {silent}: {MISSING}; put that file beside its config.json, or, if ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "silent"]
    taken = run_ast(*arguments, "--front-end", "audioset", cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "preprocessor_config.json" not in taken.stderr
    assert run_ast(*arguments, "--front-end", "birds", cwd=tmp_path).returncode == 2


def test_the_front_end_chosen_by_labels_is_reported_once(run_ast: Run, tmp_path: Path) -> None:
    tiny(tmp_path / "words", WORDS)
    done = run_ast("classify", SAMPLE, SAMPLE, "--model", str(tmp_path / "words"), "--format", "csv")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "preprocessor_config.json" in line]
    assert line == (
        f"warning: {tmp_path / 'words'}: there is no preprocessor_config.json; by its labels this is an AST for Speech "
        "Commands, so the front end for Speech Commands is used (16000 Hz, mean -6.845978, std 5.5654526)"
    )


def test_fine_tuning_reports_the_front_end_once_and_saves_it(run_ast: Run, tmp_path: Path) -> None:
    tiny(tmp_path / "words", WORDS)
    write_tone_folders(tmp_path / "data")
    done = run_ast(
        "finetune", "data", "-o", "tuned", "-m", "words", "--freeze-encoder", "--epochs", "1", "--num-mel-bins", "64",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there is no preprocessor_config.json") == 1
    written = json.loads((tmp_path / "tuned" / "preprocessor_config.json").read_text())
    assert (written["mean"], written["std"], written["num_mel_bins"]) == (-6.845978, 5.5654526, 64)


def test_a_tagger_uses_the_front_end_given_by_name(silent: Path) -> None:
    with pytest.raises(CheckpointError, match=MISSING):
        Tagger.from_pretrained(silent, device="cpu")
    tagger = Tagger.from_pretrained(silent, device="cpu", front_end="speech-commands")
    assert (tagger.feature_extractor.mean, tagger.feature_extractor.max_length) == (-6.845978, tagger.config.max_length)
    with pytest.raises(UsageError, match="front end must be one of audioset, speech-commands, birdset, not 'birds'"):
        LoadOptions(front_end="birds")  # type: ignore[arg-type]


def test_an_original_file_with_audiosets_number_of_outputs_gives_no_warning(tmp_path: Path) -> None:
    file = tmp_path / "audioset.pth"
    torch.save(tiny(tmp_path / "folder", audioset_id2label(), 256).state_dict(), file)
    extractor = Tagger.from_pretrained(file, device="cpu").feature_extractor
    assert (extractor.mean, extractor.max_length) == (-4.2677393, 256)


def test_an_original_file_of_speech_commands_sizes_gets_its_front_end(tmp_path: Path) -> None:
    file = tmp_path / "words.pth"
    torch.save(tiny(tmp_path / "folder", WORDS, 128).state_dict(), file)
    with pytest.warns(AstWarning, match=r"words\.pth: .* by its sizes this is an AST for Speech Commands"):
        tagger = Tagger.from_pretrained(file, device="cpu", unnamed_labels=True)
    assert tagger.feature_extractor.mean == -6.845978


def test_another_original_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "esc50.pth"
    torch.save(tiny(tmp_path / "folder", {i: str(i) for i in range(50)}, 512).state_dict(), file)
    with pytest.raises(CheckpointError, match=rf"esc50\.pth: {MISSING}"):
        Tagger.from_pretrained(file, device="cpu", unnamed_labels=True)


def test_extracting_features_uses_the_front_end_of_an_original_file(run_ast: Run, tmp_path: Path) -> None:
    torch.save(tiny(tmp_path / "folder", audioset_id2label(), 256).state_dict(), tmp_path / "original.pth")
    arguments = ["extract", SAMPLE, "--what", "input-values", "--output", "out.npz", "--model", "original.pth"]
    done = run_ast(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "input_values 2x256x128" in done.stdout
    assert done.stderr == ""


def test_a_resumed_run_requires_the_same_front_end(run_ast: Run, silent: Path, tmp_path: Path) -> None:
    run = ["classify", SAMPLE, "--model", str(silent), "-o", str(tmp_path / "tags.jsonl"), "-q"]
    assert run_ast(*run, "--front-end", "audioset").returncode == 0
    assert run_ast(*run, "--front-end", "audioset", "--resume").returncode == 0
    refused = run_ast(*run, "--front-end", "speech-commands", "--resume")
    assert refused.returncode == 2
    assert "other settings: --front-end was another; --resume needs the same settings" in refused.stderr


def test_the_fingerprint_names_no_front_end_if_the_checkpoint_has_one() -> None:
    assert "front_end" not in fingerprint(Tagger.from_pretrained("builtin", device="cpu"), ClassifyOptions())
