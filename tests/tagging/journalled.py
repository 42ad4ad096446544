"""Inputs of a journal's run and what they end in; processes of their own import this too."""

from __future__ import annotations

from pathlib import Path

from ast_cli.errors import ErrorCode
from ast_cli.results import FileError, Tag, TaggingResult
from ast_cli.tagging.inputs import Input

FINGERPRINT = {"model": "builtin", "top_k": 5, "labels": ["Speech", "Music"]}
FAILED = (1, 4)  # which of the inputs cannot be read


def inputs(num_inputs: int = 7) -> list[Input]:
    """Inputs that are not there: known by their path alone, which is all that most tests need."""
    return [Input(f"/nowhere/{number}.wav") for number in range(num_inputs)]


def tagged(item: Input) -> TaggingResult:
    """What tagging makes of an input: scores that differ from one to the next, and some failures."""
    number = int(Path(item.path).stem)
    if number in FAILED:
        error = FileError(ErrorCode.NOT_AUDIO, f"{item.path}: is no audio")
        return TaggingResult(item.path, "builtin", "sigmoid", error=error)
    tags = tuple(Tag(f"label {rank}", rank, None, 0.5 + number / 1000) for rank in range(3))
    return TaggingResult(item.path, "builtin", "sigmoid", 10.0 + number, 44100, 2, tags)
