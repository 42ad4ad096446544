"""The tally of a run over many inputs: counts, a summary, and when to stop. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ast_cli.errors import AstError, ErrorCode
from ast_cli.report.text import counted
from ast_cli.results import FileError

if TYPE_CHECKING:
    from ast_cli.audio.sample_stream import SampleStream  # imports more than the standard library

# Failures of the storage, not of a file: many in a row mean that a disk is gone, and to continue would only add errors.
STORAGE_ERRORS = frozenset({ErrorCode.PERMISSION, ErrorCode.VANISHED, ErrorCode.NOT_FOUND})
MAX_STORAGE_ERRORS_IN_A_ROW = 100
CLAIM_TOLERANCE_S = 1.0  # a header is ignored if its length is exceeded by more


class Outcome(Protocol):
    """The facts about one finished input that a tally counts."""

    @property
    def path(self) -> str | None:
        """Path of the input."""

    @property
    def duration_s(self) -> float | None:
        """Length of the audio that was decoded, in seconds; None where there is none."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of the warnings."""

    @property
    def error(self) -> FileError | None:
        """The error of a failed input."""


@dataclass(frozen=True, slots=True)
class AudioTotal:
    """The amount of audio in the inputs of a run.

    Attributes:
        duration_s: Length of all new inputs together, in seconds; None if it cannot be estimated.
        is_estimate: Whether some of the inputs have not been opened yet, or do not state their length.
    """

    duration_s: float | None
    is_estimate: bool = False


class Tally:
    """Counts of the results of a run, and of the audio read so far; raises an error if the run must stop.

    One thread updates the tally, others may read it.

    Args:
        num_inputs: Number of inputs of the run.
        max_errors: Number of failed inputs after which the run stops; None for no limit.
    """

    def __init__(self, num_inputs: int, max_errors: int | None = None) -> None:
        self.num_inputs = num_inputs
        self.max_errors = max_errors
        self.num_ok = 0
        self.num_with_warnings = 0
        self.num_matches: int | None = None  # number of inputs that match, in a run that reports only those
        self.num_skipped = 0
        self.num_failed_before = 0  # skipped inputs that failed in an earlier run
        self.failed: Counter[str] = Counter()
        self.audio_s = 0.0
        self._last: str | None = None  # path of the last record
        self._ended_s = 0.0  # audio read of inputs that have a record, failed ones included
        self._open: list[tuple[str, SampleStream]] = []  # paths and streams, in the order of opening
        self._storage_errors_in_a_row = 0

    @property
    def num_failed(self) -> int:
        """Number of inputs that failed in this run."""
        return self.failed.total()

    @property
    def num_done(self) -> int:
        """Number of inputs that have a record from this run or an earlier one."""
        return self.num_ok + self.num_failed + self.num_skipped

    @property
    def current(self) -> str | None:
        """Path of the input that was opened last and has no record yet, else of the last record; None at the start."""
        return next((path for path, _ in reversed(tuple(self._open))), self._last)

    @property
    def read_s(self) -> float:
        """Seconds of audio read so far in this run."""
        return self._ended_s + sum(stream.duration_s for _, stream in tuple(self._open))

    def watching(self, path: str, open_stream: Callable[[], SampleStream]) -> Callable[[], SampleStream]:
        """Return a function that opens an input and counts what is read of it until its result is added."""

        def open_watched() -> SampleStream:
            stream = open_stream()
            self._open.append((path, stream))
            return stream

        return open_watched

    def audio_total(self) -> AudioTotal:
        """Return the amount of audio in all new inputs: the known lengths, and their mean for each other input.

        The total is None while no length is known, or if an input without a stated length is longer than the mean.
        """
        known_s, num_known = self._ended_s, self.num_ok + self.num_failed
        unstated_s = list[float]()  # audio read of inputs that do not state their length, or exceed it
        for _, stream in tuple(self._open):
            read_s, header_duration_s = stream.duration_s, stream.header_duration_s
            if header_duration_s is None or read_s > header_duration_s + CLAIM_TOLERANCE_S:
                unstated_s.append(read_s)
            else:
                known_s += max(header_duration_s, read_s)
                num_known += 1
        num_unknown = self.num_inputs - self.num_skipped - num_known
        if num_unknown <= 0:
            return AudioTotal(known_s)
        mean_s = known_s / max(num_known, 1)
        if not known_s or max(unstated_s, default=0.0) > mean_s:
            return AudioTotal(None)
        return AudioTotal(known_s + num_unknown * mean_s, is_estimate=True)

    def add(self, result: Outcome, *, is_match: bool = True) -> None:
        """Count one result.

        Args:
            result: Outcome of an input.
            is_match: Whether the input matches, in a run that reports only inputs that do.

        Raises:
            AstError: If the run must stop: after too many errors, or because the storage seems to be gone.
        """
        self._last = result.path
        stream = self._closed(result.path)
        self._ended_s += (stream.duration_s if stream else result.duration_s) or 0.0
        if result.error is None:
            self.num_ok += 1
            self.num_with_warnings += bool(result.warnings)
            if self.num_matches is not None:
                self.num_matches += is_match
            self.audio_s += result.duration_s or 0.0
            self._storage_errors_in_a_row = 0
            return
        self.failed[str(result.error.code)] += 1
        in_a_row = self._storage_errors_in_a_row + 1 if result.error.code in STORAGE_ERRORS else 0
        self._storage_errors_in_a_row = in_a_row
        if in_a_row >= MAX_STORAGE_ERRORS_IN_A_ROW:
            raise AstError(
                f"stopped: {in_a_row} inputs in a row could not be reached ({result.error.code}); is the disk mounted?"
            )
        if self.max_errors is not None and self.num_failed >= self.max_errors:
            raise AstError(
                f"stopped after {counted(self.num_failed, 'failed input')}, as requested; "
                f"the last: {result.error.message}"
            )

    def _closed(self, path: str | None) -> SampleStream | None:
        """Remove an input that has its record from the list of open inputs, and return its stream."""
        for index, (opened, stream) in enumerate(self._open):
            if opened == path:
                del self._open[index]
                return stream
        return None

    def check(self) -> None:
        """Check that each input has a result.

        Raises:
            AstError: If the counts do not add up, which is a bug: the output then lacks inputs.
        """
        if self.num_done != self.num_inputs:
            raise AstError(
                f"{self.num_done} of {self.num_inputs} inputs are accounted for: this is a bug; please report it"
            )

    def summary(self, elapsed_s: float) -> str:
        """Return one line about the run, or about the part of it that was done."""
        details = [] if self.num_matches is None else [f"{self.num_matches} with matches"]
        if self.num_with_warnings:
            details.append(f"{self.num_with_warnings} with warnings")
        parts = [f"{self.num_ok} ok ({', '.join(details)})" if details else f"{self.num_ok} ok"]
        if self.failed:
            codes = ", ".join(f"{code} {count}" for code, count in sorted(self.failed.items()))
            parts.append(f"{self.num_failed} failed ({codes})")
        if self.num_skipped:
            failed = f" ({self.num_failed_before} of them failed)" if self.num_failed_before else ""
            parts.append(f"{self.num_skipped} done before{failed}")
        speed = f", {self.audio_s / elapsed_s:.1f} x real time" if self.audio_s and elapsed_s > 0 else ""
        factor = f", real-time factor {elapsed_s / self.audio_s:.3g}" if self.audio_s else ""
        audio = f"{self.audio_s / 3600:.2f} h of audio in {elapsed_s:.1f} s"
        done = "" if self.num_done == self.num_inputs else f"{self.num_done} of "
        return f"{done}{counted(self.num_inputs, 'input')}: {', '.join(parts)}; {audio}{speed}{factor}"


OnProgress: TypeAlias = Callable[[Tally], None]
