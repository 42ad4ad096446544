"""The data of the page: for each record a row of the index and its details, as JSON that is safe in HTML."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ast_cli.audio.channels import MAX_CHANNELS
from ast_cli.errors import AstError
from ast_cli.report.text import printable
from ast_cli.report_page.answers import Item, Kind, rounded
from ast_cli.report_page.sound import Sound
from ast_cli.results import Tag, TaggingResult, path_fields
from ast_cli.styles import display_name

SCORE_DECIMALS = 4
INDEX_LABELS = 32  # of a recording in the index, the best; its own view has all


@dataclass(frozen=True, slots=True)
class Audio:
    """How the page plays a recording.

    Attributes:
        sound: Its pictures and its preview; None if it could not be read.
        link: Address of the file relative to the page, for recordings without a preview; else None.
        problem: Reason why there is no sound; else None.
    """

    sound: Sound | None = None
    link: str | None = None
    problem: str | None = None

    @property
    def mode(self) -> str:
        """``embedded``, ``linked`` or ``none``."""
        if self.sound is None:
            return "none"
        return "linked" if self.sound.preview is None else "embedded"


class Labels:
    """The labels of all records, each with a number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int, str | None], int] = {}

    def number(self, label: Any, label_id: Any, mid: Any) -> int:
        """Return the number of a label, a new one where it is new.

        Raises:
            TypeError: If one of the values has another type than a label has.
        """
        if type(label) is not str or type(label_id) is not int or not isinstance(mid, str | None):
            raise TypeError
        return self._numbers.setdefault((label, label_id, mid), len(self._numbers))

    def rows(self) -> list[tuple[str | int | None, ...]]:
        """Return name, index in the logits and AudioSet's identifier of each label, by number.

        A label that people read in another form has this as a fourth value.
        """
        return [key if display_name(key[0]) == key[0] else (*key, display_name(key[0])) for key in self._numbers]

    def names(self) -> list[str]:
        """Return the names of the labels, by number."""
        return [name for name, _, _ in self._numbers]


def json_in_html(value: Any) -> str:
    """Return JSON in ASCII that cannot end a script element or begin a comment there.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def record_data(
    result: TaggingResult, audio: Audio, labels: Labels, answers: Collection[Item]
) -> tuple[str, str, set[Item]]:
    """Return the row of the index and the details as JSON, and the items that have answers.

    Raises:
        AstError: If a value of the record has a type or size that it cannot have.
    """
    try:
        details = _details(result, audio, labels)
        answered = _answered(details, result, labels, answers)
        return json_in_html(_index_row(result, audio, details)), json_in_html(details), answered
    except (TypeError, ValueError, OverflowError):
        raise wrong_value(result) from None


def check_record(result: TaggingResult) -> None:
    """Check the values of a record by which its audio is found.

    Raises:
        AstError: If one of them has another type than `ast classify` writes.
    """
    is_channel = result.channel is None or (type(result.channel) is int and 1 <= result.channel <= MAX_CHANNELS)
    if not is_channel or not isinstance(result.path, str | None):
        raise wrong_value(result)


def wrong_value(result: TaggingResult) -> AstError:
    """Return the error for a record from elsewhere with a value that no record has."""
    name = printable(result.path) if isinstance(result.path, str) else "a record"
    return AstError(f"{name}: its record has a value that ast classify does not write")


def _details(result: TaggingResult, audio: Audio, labels: Labels) -> dict[str, Any]:
    sound = audio.sound
    details: dict[str, Any] = {
        "duration": _duration_s(result, sound),
        "rate": result.sampling_rate,
        "channels": result.num_channels,
        "model": str(result.model),
        "tags": _columns(((tag, 0.0, 0.0) for tag in result.tags), labels),
    }
    if result.windows is not None:
        tags = ((tag, window.start_s, window.end_s) for window in result.windows for tag in window.tags)
        details["windows"] = _columns(tags, labels)
    if result.events is not None:
        events = (
            (Tag(event.label, event.label_id, event.mid, event.mean_score), event.start_s, event.end_s)
            for event in result.events
        )
        details["events"] = _columns(events, labels)
        details["events"]["max"] = [_score(event.max_score) for event in result.events]
    if audio.problem is not None:
        details["problem"] = audio.problem
    if sound is not None:
        details["peaks"] = {"step": sound.peak_s, "data": _base64(sound.peaks)}
        details["spectrogram"] = [
            {"step": tiles.column_s, "columns": tiles.num_columns, "images": [_base64(each) for each in tiles.images]}
            for tiles in sound.spectrogram
        ]
        if sound.preview is not None:
            details["preview"] = _base64(sound.preview)
        else:
            details["link"] = audio.link
    return details


def _columns(items: Iterable[tuple[Tag, float, float]], labels: Labels) -> dict[str, list[Any]]:
    """Return labels, times and scores as lists of equal length: a day has half a million of them."""
    columns: dict[str, list[Any]] = {"label": [], "start": [], "end": [], "score": []}
    for tag, start_s, end_s in items:
        columns["label"].append(labels.number(tag.label, tag.label_id, tag.mid))
        columns["start"].append(rounded(start_s))
        columns["end"].append(rounded(end_s))
        columns["score"].append(_score(tag.score))
    return columns


def _duration_s(result: TaggingResult, sound: Sound | None) -> float:
    """Return the length of the time axis: all that was heard, and all that results speak of."""
    ends = [result.duration_s or 0.0, sound.duration_s if sound else 0.0]
    ends += [window.end_s for window in result.windows or ()] + [event.end_s for event in result.events or ()]
    return rounded(max(ends))


def _index_row(result: TaggingResult, audio: Audio, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the index shows of a record; keys without content are left out."""
    best: dict[int, float] = {}
    for part in ("tags", "windows", "events"):
        columns = details.get(part) or {"label": [], "score": []}
        for label, score in zip(columns["label"], columns.get("max", columns["score"]), strict=True):
            best[label] = max(score, best.get(label, score))
    chosen = sorted(best.items(), key=lambda pair: -pair[1])[:INDEX_LABELS]
    row = {
        **path_fields(result.path),
        "channel": result.channel,
        "duration": details["duration"],
        "labels": [value for pair in chosen for value in pair],
        "error": None if result.error is None else [str(result.error.code), str(result.error.message)],
        "warnings": [str(warning) for warning in result.warnings],
        "audio": audio.mode,
        "logits": result.activation == "none",
        "cut": len(best) > INDEX_LABELS,
    }
    return {key: value for key, value in row.items() if value or key in ("path", "duration")}


def _answered(
    details: Mapping[str, Any], result: TaggingResult, labels: Labels, answers: Collection[Item]
) -> set[Item]:
    """Return the answers that belong to something in a record."""
    if not answers:
        return set()
    names = labels.names()
    kinds: tuple[tuple[str, Kind], ...] = (("events", "event"), ("windows", "window"), ("tags", "tag"))
    found: set[Item] = set()
    for part, kind in kinds:
        columns = details.get(part) or {"label": [], "start": [], "end": []}
        ends = [details["duration"] for _ in columns["end"]] if kind == "tag" else columns["end"]
        for label, start_s, end_s in zip(columns["label"], columns["start"], ends, strict=True):
            item = Item(result.path, result.channel, kind, names[label], start_s, end_s)
            if item in answers:
                found.add(item)
    return found


def _score(value: float) -> float:
    return round(float(value), SCORE_DECIMALS)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def is_finite_duration(value: object) -> bool:
    """Return whether a record's duration is a number of seconds that can be used."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
