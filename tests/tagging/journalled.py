"""Inputs and results for tests of the journal; child processes import this module too."""

from __future__ import annotations

from pathlib import Path

from ast_cli.errors import ErrorCode
from ast_cli.report import BINARY, FORMATS, ONE_RECORDING
from ast_cli.results import FileError, Tag, TaggingResult
from ast_cli.tagging.inputs import Input

FINGERPRINT = {"model": "builtin", "top_k": 5, "labels": ["Speech", "Music"]}
FAILED = (1, 4)  # numbers of the inputs that cannot be read
LABELS = [f"label {number}" for number in range(3)]  # those of the results, for the columns of wide
MANY = [name for name in FORMATS if name not in (*ONE_RECORDING, *BINARY)]  # text formats of several recordings


def inputs(num_inputs: int = 7) -> list[Input]:
    """Return inputs whose files do not exist; most tests need only their paths."""
    return [Input(f"/nowhere/{number}.wav") for number in range(num_inputs)]


def tagged(item: Input) -> TaggingResult:
    """Return the result of an input: its scores depend on its number, and some inputs fail."""
    number = int(Path(item.path).stem)
    if number in FAILED:
        error = FileError(ErrorCode.NOT_AUDIO, f"{item.path}: is no audio")
        return TaggingResult(item.path, "builtin", "sigmoid", error=error)
    tags = tuple(Tag(f"label {rank}", rank, None, 0.5 + number / 1000) for rank in range(3))
    return TaggingResult(item.path, "builtin", "sigmoid", 10.0 + number, 44100, 2, tags)
