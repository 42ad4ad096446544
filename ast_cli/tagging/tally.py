"""How a run over many inputs goes: counts, a summary, and when to stop. Standard library only."""

from __future__ import annotations

from collections import Counter

from ast_cli.errors import AstError, ErrorCode
from ast_cli.results import TaggingResult

# Failures of the storage, not of a file: many in a row mean that a disk is gone, and going on would only spoil records.
STORAGE_ERRORS = frozenset({ErrorCode.PERMISSION, ErrorCode.VANISHED, ErrorCode.NOT_FOUND})
MAX_STORAGE_ERRORS_IN_A_ROW = 100


class Tally:
    """Counts results as they come and says when enough is enough.

    Args:
        max_errors: Stop after so many failed inputs; None for never.
    """

    def __init__(self, max_errors: int | None = None) -> None:
        self.max_errors = max_errors
        self.num_ok = 0
        self.num_with_warnings = 0
        self.num_skipped = 0
        self.num_failed_before = 0  # of those skipped
        self.failed: Counter[str] = Counter()
        self.audio_s = 0.0
        self.current: str | None = None
        self._storage_errors_in_a_row = 0

    @property
    def num_failed(self) -> int:
        """Inputs that have an error record."""
        return self.failed.total()

    @property
    def num_done(self) -> int:
        """Inputs that have a record, or had one before."""
        return self.num_ok + self.num_failed + self.num_skipped

    def add(self, result: TaggingResult) -> None:
        """Count one result.

        Raises:
            AstError: The run must stop: too many errors, or a storage that seems to be gone.
        """
        self.current = result.path
        if result.error is None:
            self.num_ok += 1
            self.num_with_warnings += bool(result.warnings)
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
            raise AstError(f"stopped after {self.num_failed} failed inputs, as asked; the last: {result.error.message}")

    def check(self, num_inputs: int) -> None:
        """Make sure that every input ended somewhere.

        Raises:
            AstError: The counts do not add up, which is a bug; the output then misses inputs.
        """
        if self.num_done != num_inputs:
            raise AstError(f"{self.num_done} of {num_inputs} inputs are accounted for: this is a bug; please report it")

    def summary(self, elapsed_s: float, num_inputs: int) -> str:
        """Return one line about the whole run, or about what was done of it."""
        warned = f" ({self.num_with_warnings} with warnings)" if self.num_with_warnings else ""
        parts = [f"{self.num_ok} ok{warned}"]
        if self.failed:
            codes = ", ".join(f"{code} {count}" for code, count in sorted(self.failed.items()))
            parts.append(f"{self.num_failed} failed ({codes})")
        if self.num_skipped:
            failed = f" ({self.num_failed_before} of them failed)" if self.num_failed_before else ""
            parts.append(f"{self.num_skipped} done before{failed}")
        speed = f", {self.audio_s / elapsed_s:.1f} x real time" if elapsed_s > 0 else ""
        factor = f", real-time factor {elapsed_s / self.audio_s:.3g}" if self.audio_s else ""
        audio = f"{self.audio_s / 3600:.2f} h of audio in {elapsed_s:.1f} s"
        of_all = "" if self.num_done == num_inputs else f" of {num_inputs}"
        return f"{self.num_done}{of_all} inputs: {', '.join(parts)}; {audio}{speed}{factor}"
