"""Answers of a person who checked results on a report page, as JSON Lines. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ast_cli.errors import AstError, UsageError
from ast_cli.report.text import printable
from ast_cli.results import SCHEMA_VERSION, exact_path

Verdict = Literal["accept", "reject"]
Kind = Literal["event", "window", "tag"]
TIME_DECIMALS = 3  # of the times on the page; an answer belongs to what has the same times to a millisecond
REMEDY = "name a file of answers that a report page has downloaded"


@dataclass(frozen=True, slots=True)
class Item:
    """What an answer is about: a label at a place of a recording.

    Attributes:
        path: Path of the recording; None for audio from memory.
        channel: Number of the channel, from 1; None for the mix.
        kind: ``event``, ``window`` or ``tag`` (of the whole recording).
        label: Name of the label.
        start_s: Start in seconds, rounded to `TIME_DECIMALS`.
        end_s: End in seconds, rounded likewise.
    """

    path: str | None
    channel: int | None
    kind: Kind
    label: str
    start_s: float
    end_s: float


def read_answers(file: Path) -> dict[Item, dict[str, Any]]:
    """Read answers, each as the page wrote it; of several about the same item the last one counts.

    Raises:
        UsageError: If there is no such file.
        AstError: If it cannot be read, or a line is no answer; the message names the line.
    """
    name = printable(str(file))
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return dict(_answers(stream, name))
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file; {REMEDY}") from None
    except OSError as error:
        raise AstError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise AstError(f"{name}: not UTF-8 text; {REMEDY}") from None


def _answers(lines: Iterable[str], name: str) -> Iterator[tuple[Item, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            answer = json.loads(line)
            version = answer["schema_version"]
            if version == SCHEMA_VERSION:
                yield _item(answer), _checked(answer)
                continue
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            raise AstError(f"{name}: line {number}: not an answer; {REMEDY}") from None
        raise AstError(f"{name}: line {number}: answers of another version of ast (schema_version {version})")


def _item(answer: dict[str, Any]) -> Item:
    kind, label, channel = answer["kind"], answer["label"], answer.get("channel")
    if kind not in get_args(Kind) or not isinstance(label, str) or not isinstance(channel, int | None):
        raise ValueError
    path = exact_path(answer)
    if not isinstance(path, str | None):
        raise TypeError
    return Item(path, channel, kind, label, rounded(answer["start_s"]), rounded(answer["end_s"]))


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that is one, with the times of its item."""
    if answer["answer"] not in get_args(Verdict):
        raise ValueError
    json.dumps(answer, allow_nan=False)  # a page is strict JSON too
    return {**answer, "start_s": rounded(answer["start_s"]), "end_s": rounded(answer["end_s"])}


def rounded(seconds: float) -> float:
    """Return a time as the page has it."""
    return round(float(seconds), TIME_DECIMALS)
