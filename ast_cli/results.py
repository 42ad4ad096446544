"""The result of tagging one input: frozen, plain data. Standard library only."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ast_cli.errors import ErrorCode

SCHEMA_VERSION = 1
SCORE_DECIMALS = 6  # scores are float32; differences below 1e-6 carry nothing
SECONDS_DECIMALS = 6  # finer than one sample at 768 kHz


@dataclass(frozen=True, slots=True)
class Tag:
    """One label with its score.

    Attributes:
        label: Name of the class in the checkpoint.
        label_id: Index of the class in the logits.
        mid: AudioSet's machine identifier, such as ``/m/06mb1``, where the label is one of AudioSet's.
        score: After the activation: a probability for sigmoid and softmax, the raw logit for none.
    """

    label: str
    label_id: int
    mid: str | None
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        score = round(self.score, SCORE_DECIMALS)
        return {"label": self.label, "label_id": self.label_id, "mid": self.mid, "score": score}


@dataclass(frozen=True, slots=True)
class Window:
    """The tags of one model window, from ``start_s`` to ``end_s`` of the recording."""

    start_s: float
    end_s: float
    tags: tuple[Tag, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "start_s": round(self.start_s, SECONDS_DECIMALS),
            "end_s": round(self.end_s, SECONDS_DECIMALS),
            "tags": [tag.to_dict() for tag in self.tags],
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One label heard without a break: consecutive windows whose score reaches the threshold, merged."""

    label: str
    label_id: int
    mid: str | None
    start_s: float
    end_s: float
    mean_score: float
    max_score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "label": self.label,
            "label_id": self.label_id,
            "mid": self.mid,
            "start_s": round(self.start_s, SECONDS_DECIMALS),
            "end_s": round(self.end_s, SECONDS_DECIMALS),
            "mean_score": round(self.mean_score, SCORE_DECIMALS),
            "max_score": round(self.max_score, SCORE_DECIMALS),
        }


@dataclass(frozen=True, slots=True)
class StreamedPart:
    """A window or an event of an input that is still being read, for ``--stream``."""

    path: str | None
    part: Window | Event

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the part's own, with the kind of record and the path before it."""
        kind = "window" if isinstance(self.part, Window) else "event"
        return {"schema_version": SCHEMA_VERSION, "type": kind, **path_fields(self.path), **self.part.to_dict()}


@dataclass(frozen=True, slots=True)
class FileError:
    """Why an input has no tags."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class TaggingResult:
    """Everything that is known about one input after tagging it.

    Attributes:
        path: As the user or the folder walk named it; ``-`` for standard input, ``None`` for a waveform from memory.
        duration_s: Length of the audio that was decoded, in seconds; ``None`` when nothing could be.
        sampling_rate: The input's own, in Hz, before resampling.
        num_channels: The input's own, before the mix-down.
        model: Name of the checkpoint.
        activation: ``sigmoid``, ``softmax`` or ``none``.
        tags: The best labels of the whole recording, best first.
        windows: The best labels per window, where timestamps were asked for, else ``None``.
        events: Labels with their beginnings and ends, where events were asked for, else ``None``.
        warnings: Codes of what was odd, see `ast_cli.errors.WarningCode`.
        error: Set when the input could not be scored; then there are no tags.
    """

    path: str | None
    model: str
    activation: str
    duration_s: float | None = None
    sampling_rate: int | None = None
    num_channels: int | None = None
    tags: tuple[Tag, ...] = ()
    windows: tuple[Window, ...] | None = None
    events: tuple[Event, ...] | None = None
    warnings: tuple[str, ...] = ()
    error: FileError | None = None

    @property
    def status(self) -> str:
        """``ok`` or ``error``."""
        return "ok" if self.error is None else "error"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the order of its keys is part of the format."""
        record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "type": "file"}
        record |= path_fields(self.path)
        record |= {
            "status": self.status,
            "duration_s": None if self.duration_s is None else round(self.duration_s, SECONDS_DECIMALS),
            "sampling_rate": self.sampling_rate,
            "num_channels": self.num_channels,
            "model": self.model,
            "activation": self.activation,
            "tags": [tag.to_dict() for tag in self.tags],
        }
        if self.windows is not None:
            record["windows"] = [window.to_dict() for window in self.windows]
        if self.events is not None:
            record["events"] = [event.to_dict() for event in self.events]
        record["warnings"] = list(self.warnings)
        record["error"] = None if self.error is None else {"code": str(self.error.code), "message": self.error.message}
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TaggingResult:
        """Read the JSON form back; scores are those of the record, rounded.

        Raises:
            LookupError, TypeError, ValueError: It is not what `to_dict` returns.
        """
        windows, events, error = record.get("windows"), record.get("events"), record["error"]
        return cls(
            path=exact_path(record),
            model=record["model"],
            activation=record["activation"],
            duration_s=record["duration_s"],
            sampling_rate=record["sampling_rate"],
            num_channels=record["num_channels"],
            tags=_tags(record["tags"]),
            windows=None
            if windows is None
            else tuple(Window(window["start_s"], window["end_s"], _tags(window["tags"])) for window in windows),
            events=None if events is None else tuple(Event(**event) for event in events),
            warnings=tuple(record["warnings"]),
            error=None if error is None else FileError(ErrorCode(error["code"]), error["message"]),
        )


def path_fields(path: str | None) -> dict[str, str | None]:
    """Return ``path``, and ``path_b64`` with the exact bytes where the name is not UTF-8.

    Python holds bytes that are not UTF-8 as lone surrogates, which strict JSON readers refuse.
    """
    if path is None:
        return {"path": None}
    readable = _path_bytes(path).decode("utf-8", "replace")
    return {"path": path} if readable == path else {"path": readable, "path_b64": path_base64(path)}


def path_base64(path: str) -> str:
    """Return the exact bytes of a path in base64."""
    return base64.b64encode(_path_bytes(path)).decode("ascii")


def _path_bytes(path: str) -> bytes:
    return os.fsencode(path) if os.name == "posix" else path.encode("utf-8", "surrogatepass")


def exact_path(fields: Mapping[str, Any]) -> str | None:
    """Undo `path_fields`."""
    if "path_b64" not in fields:
        path: str | None = fields["path"]
        return path
    raw = base64.b64decode(fields["path_b64"])
    return os.fsdecode(raw) if os.name == "posix" else raw.decode("utf-8", "surrogatepass")


def _tags(records: Iterable[Mapping[str, Any]]) -> tuple[Tag, ...]:
    return tuple(Tag(**tag) for tag in records)


Record = TaggingResult | StreamedPart  # what a run yields: results, and what is streamed before them
