"""The result of tagging one input, as frozen plain data. Standard library only."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ast_cli import notebook
from ast_cli.errors import ErrorCode
from ast_cli.styles import display_name

SCHEMA_VERSION = 1
SCORE_DECIMALS = 6  # scores are float32; differences below 1e-6 carry no information
SECONDS_DECIMALS = 6  # finer than one sample at 768 kHz
REPR_TAGS = 3  # tags that a repr shows of a window or a recording


@dataclass(frozen=True, slots=True)
class Tag:
    """One label with its score.

    Attributes:
        label: Name of the class in the checkpoint.
        label_id: Index of the class in the logits.
        mid: AudioSet's machine identifier, such as ``/m/06mb1``, where the label is one of AudioSet's.
        score: Probability after sigmoid or softmax; the logit itself without an activation.
    """

    label: str
    label_id: int
    mid: str | None
    score: float

    def __repr__(self) -> str:
        """Return label and score: ``Tag('Rain', 0.7241)``."""
        return f"Tag({self.label!r}, {self.score:.4f})"

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

    def __repr__(self) -> str:
        """Return times and best tags: ``Window(0.00-5.12 s, 'Rain' 0.7241, 'Noise' 0.0774)``."""
        return f"Window({', '.join([_span(self.start_s, self.end_s), *_best(self.tags)])})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        return _table(_span(self.start_s, self.end_s), self.tags)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "start_s": round(self.start_s, SECONDS_DECIMALS),
            "end_s": round(self.end_s, SECONDS_DECIMALS),
            "tags": [tag.to_dict() for tag in self.tags],
        }


@dataclass(frozen=True, slots=True)
class Event:
    """Consecutive windows in which one label's score reaches the threshold, merged."""

    label: str
    label_id: int
    mid: str | None
    start_s: float
    end_s: float
    mean_score: float
    max_score: float

    def __repr__(self) -> str:
        """Return label, times and scores: ``Event('Rain', 0.00-10.24 s, mean 0.7241, max 0.8012)``."""
        times = _span(self.start_s, self.end_s)
        return f"Event({self.label!r}, {times}, mean {self.mean_score:.4f}, max {self.max_score:.4f})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        return notebook.table("event, mean score", [_event_row(self)], has_bars=0 <= self.mean_score <= 1)

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
    channel: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: that of the part, preceded by the kind of record, the path and the channel."""
        kind = "window" if isinstance(self.part, Window) else "event"
        place = {**path_fields(self.path), **_channel_field(self.channel)}
        return {"schema_version": SCHEMA_VERSION, "type": kind, **place, **self.part.to_dict()}


@dataclass(frozen=True, slots=True)
class FileError:
    """The reason why an input has no tags."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class TaggingResult:
    """The result of tagging one input.

    Attributes:
        path: Path as the user named it or as the search of a folder found it; ``-`` for standard input, None for audio
            from memory.
        duration_s: Length of the decoded audio, in seconds; None for an input that failed.
        sampling_rate: Sampling rate of the input in Hz, before resampling.
        num_channels: Number of channels of the input, before mixing down.
        model: Name of the checkpoint.
        activation: ``sigmoid``, ``softmax`` or ``none``.
        tags: Best labels of the whole recording, best first.
        windows: Best labels of each window with the option ``timestamps``, else None.
        events: Labels with their start and end times with the option ``events``, else None.
        warnings: Codes of anomalies of the input, see `ast_cli.errors.WarningCode`.
        error: Reason of the failure of an input that could not be scored, which has no tags; else None.
        channel: Number of the channel that was tagged, from 1; None for the mix of all channels.
        channels: Results of the channels where each was tagged by itself: they hold the tags, windows and events, and
            this result has none. Empty otherwise.
        scales_windows: Whether the model's front end scales each window by itself, so that the score of a sound depends
            on what else is in its window.
        scored_windows: Start and end, in seconds, of each window that was scored, with the option ``num_windows``; else
            None, as all of them were.
        license: SPDX identifier of the license of the model's weights, such as ``CC-BY-NC-SA-4.0``; None if it is not
            known.
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
    channel: int | None = None
    channels: tuple[TaggingResult, ...] = ()
    scales_windows: bool = False
    scored_windows: tuple[tuple[float, float], ...] | None = None
    license: str | None = None

    @property
    def records(self) -> tuple[TaggingResult, ...]:
        """The records of the input: one, or one per channel if each channel was tagged by itself."""
        return self.channels or (self,)

    def __repr__(self) -> str:
        """Return a short summary; the fields themselves and `to_dict` have everything."""
        parts = ["waveform" if self.path is None else repr(self.path)]
        if self.channel is not None:
            parts.append(f"channel {self.channel}")
        if self.error is not None:
            parts.append(f"error {self.error.code}: {self.error.message}")
            return f"TaggingResult({', '.join(parts)})"
        parts.append(f"{self.duration_s or 0.0:.2f} s")
        num_channels = len(self.channels)
        if num_channels:
            parts.append(f"{num_channels} channel{'s' if num_channels != 1 else ''} by themselves")
        else:
            parts += _best(self.tags) or ["no tags"]
        for name, values in (("windows", self.windows), ("events", self.events), ("warnings", self.warnings or None)):
            if values is not None:
                parts.append(f"{len(values)} {name if len(values) != 1 else name[:-1]}")
        return f"TaggingResult({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return tables for a notebook, and a player where the file is there.

        The player has the file in it up to 1 MB, and refers to a larger one. Windows and events are closed until they
        are clicked, and 20 of them are shown.
        """
        name = "waveform" if self.path is None else self.path
        if self.error is not None:
            return notebook.heading(name, f"error {self.error.code}: {self.error.message}")
        facts = [f"{self.duration_s or 0.0:.2f} s", f"model {self.model}", *self.warnings]
        parts = [notebook.heading(name, " · ".join(facts)), notebook.player(self.path)]
        for record in self.records:
            parts += record._tables()
        return notebook.joined(parts)

    def _tables(self) -> list[str]:
        """Return the tags, windows and events as HTML."""
        tables = [_table("tags" if self.channel is None else f"channel {self.channel}", self.tags)]
        has_bars = self.activation != "none"
        if self.windows is not None:
            rows = [
                (_times(w.start_s, w.end_s), display_name(tag.label), tag.score)
                for w in self.windows
                for tag in w.tags[:1]
            ]
            tables.append(_details(len(self.windows), "window", "best label of each window", rows, has_bars))
        if self.events is not None:
            rows = [_event_row(event) for event in self.events]
            tables.append(_details(len(rows), "event", "mean score", rows, has_bars))
        return tables

    @property
    def status(self) -> str:
        """``ok`` or ``error``."""
        return "ok" if self.error is None else "error"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the order of its keys is part of the format."""
        record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "type": "file"}
        record |= path_fields(self.path)
        record |= _channel_field(self.channel)
        record |= {
            "status": self.status,
            "duration_s": None if self.duration_s is None else round(self.duration_s, SECONDS_DECIMALS),
            "sampling_rate": self.sampling_rate,
            "num_channels": self.num_channels,
            "model": self.model,
            **({} if self.license is None else {"license": self.license}),
            "activation": self.activation,
            **({"scales_windows": True} if self.scales_windows else {}),
            "tags": [tag.to_dict() for tag in self.tags],
        }
        if self.scored_windows is not None:
            record["scored_windows"] = [
                [round(time_s, SECONDS_DECIMALS) for time_s in times] for times in self.scored_windows
            ]
        if self.windows is not None:
            record["windows"] = [window.to_dict() for window in self.windows]
        if self.events is not None:
            record["events"] = [event.to_dict() for event in self.events]
        record["warnings"] = list(self.warnings)
        record["error"] = None if self.error is None else {"code": str(self.error.code), "message": self.error.message}
        if self.channels:
            record["channels"] = [channel.to_dict() for channel in self.channels]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TaggingResult:
        """Return the result of a JSON form; scores and times are rounded as there.

        Raises:
            LookupError, TypeError, ValueError: If the record is not what `to_dict` returns.
        """
        windows, events, error = record.get("windows"), record.get("events"), record["error"]
        scored = record.get("scored_windows")
        return cls(
            path=exact_path(record),
            model=record["model"],
            activation=record["activation"],
            duration_s=record["duration_s"],
            sampling_rate=record["sampling_rate"],
            num_channels=record["num_channels"],
            tags=_tags(record["tags"]),
            scored_windows=None if scored is None else tuple((start_s, end_s) for start_s, end_s in scored),
            windows=None
            if windows is None
            else tuple(Window(window["start_s"], window["end_s"], _tags(window["tags"])) for window in windows),
            events=None if events is None else tuple(Event(**event) for event in events),
            warnings=tuple(record["warnings"]),
            error=None if error is None else FileError(ErrorCode(error["code"]), error["message"]),
            channel=record.get("channel"),
            channels=tuple(cls.from_dict(channel) for channel in record.get("channels", ())),
            scales_windows=record.get("scales_windows", False),
            license=record.get("license"),
        )

    @classmethod
    def from_channels(cls, channels: Sequence[TaggingResult]) -> TaggingResult:
        """Return the result of an input from those of its channels, at least one."""
        return dataclasses.replace(
            channels[0], tags=(), scored_windows=None, windows=None, events=None, channel=None, channels=tuple(channels)
        )


def _channel_field(channel: int | None) -> dict[str, int]:
    """Return ``channel`` where there is one."""
    return {} if channel is None else {"channel": channel}


def path_fields(path: str | None) -> dict[str, str | None]:
    """Return ``path``, and ``path_b64`` with the exact bytes of a name that is not UTF-8.

    Python represents bytes that are not UTF-8 as lone surrogates, which strict JSON readers refuse.
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
    """Return the path from the fields that `path_fields` makes."""
    if "path_b64" not in fields:
        path: str | None = fields["path"]
        return path
    raw = base64.b64decode(fields["path_b64"])
    return os.fsdecode(raw) if os.name == "posix" else raw.decode("utf-8", "surrogatepass")


def _times(start_s: float, end_s: float) -> str:
    return f"{start_s:.2f}-{end_s:.2f}"


def _event_row(event: Event) -> notebook.Row:
    return _times(event.start_s, event.end_s), display_name(event.label), event.mean_score


def _table(caption: str, tags: Sequence[Tag]) -> str:
    """Return tags as a table for a notebook; logits, which may be negative or large, have no bars."""
    has_bars = all(0 <= tag.score <= 1 for tag in tags)
    rows = [("", display_name(tag.label), tag.score) for tag in tags]
    return notebook.table(caption, rows, has_bars=has_bars, num_rows=len(tags))


def _details(number: int, noun: str, caption: str, rows: Sequence[notebook.Row], has_bars: bool) -> str:
    table = notebook.table(caption, rows, has_bars=has_bars, num_rows=len(rows))
    return notebook.details(f"{number} {noun}{'' if number == 1 else 's'}", table)


def _span(start_s: float, end_s: float) -> str:
    return f"{start_s:.2f}-{end_s:.2f} s"


def _best(tags: tuple[Tag, ...]) -> list[str]:
    """Return the first tags and the number of the others, for a repr."""
    shown = [f"{tag.label!r} {tag.score:.4f}" for tag in tags[:REPR_TAGS]]
    return shown if len(tags) <= REPR_TAGS else [*shown, f"{len(tags) - REPR_TAGS} more"]


def _tags(records: Iterable[Mapping[str, Any]]) -> tuple[Tag, ...]:
    return tuple(Tag(**tag) for tag in records)


Record = TaggingResult | StreamedPart  # a run yields results, and before them the parts that are streamed
