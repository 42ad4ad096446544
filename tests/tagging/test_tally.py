from __future__ import annotations

import pytest

from ast_cli.errors import AstError, ErrorCode
from ast_cli.results import FileError, TaggingResult
from ast_cli.tagging.run.tally import MAX_STORAGE_ERRORS_IN_A_ROW, Tally


def ok(duration_s: float = 10.0, warnings: tuple[str, ...] = ()) -> TaggingResult:
    return TaggingResult("a.wav", "m", "softmax", duration_s, 16000, 1, warnings=warnings)


def failed(code: ErrorCode) -> TaggingResult:
    return TaggingResult("b.wav", "m", "softmax", error=FileError(code, f"b.wav: {code}"))


def test_summary_counts_every_outcome() -> None:
    tally = Tally(8)
    tally.num_skipped = 4
    for result in (ok(1800.0), ok(1800.0, ("truncated",)), failed(ErrorCode.NOT_AUDIO), failed(ErrorCode.EMPTY_FILE)):
        tally.add(result)
    assert tally.summary(36.0) == (
        "8 inputs: 2 ok (1 with warnings), 2 failed (empty_file 1, not_audio 1), 4 done before; "
        "1.00 h of audio in 36.0 s, 100.0 x real time, real-time factor 0.01"
    )


def test_summary_of_a_stopped_run_names_the_number_of_all_inputs() -> None:
    tally = Tally(10)
    tally.num_skipped, tally.num_failed_before = 3, 2
    tally.add(ok(36.0))
    assert tally.summary(36.0) == (
        "4 of 10 inputs: 1 ok, 3 done before (2 of them failed); "
        "0.01 h of audio in 36.0 s, 1.0 x real time, real-time factor 1"
    )


def test_counts_that_do_not_add_up_are_an_error() -> None:
    tally = Tally(1)
    tally.add(ok())
    tally.check()
    tally.num_inputs = 2
    with pytest.raises(AstError, match="1 of 2 inputs are accounted for"):
        tally.check()


def test_run_stops_at_max_errors() -> None:
    tally = Tally(9, max_errors=2)
    tally.add(failed(ErrorCode.NOT_AUDIO))
    tally.add(ok())
    with pytest.raises(AstError, match=r"stopped after 2 failed inputs, as requested; the last: b\.wav: decode_error"):
        tally.add(failed(ErrorCode.DECODE_ERROR))


def test_many_storage_errors_in_a_row_stop_the_run_and_bad_audio_does_not() -> None:
    tally = Tally(1_000)
    for _ in range(3 * MAX_STORAGE_ERRORS_IN_A_ROW):
        tally.add(failed(ErrorCode.NOT_AUDIO))
    for _ in range(MAX_STORAGE_ERRORS_IN_A_ROW - 1):
        tally.add(failed(ErrorCode.VANISHED))
    tally.add(ok())
    for _ in range(MAX_STORAGE_ERRORS_IN_A_ROW - 1):
        tally.add(failed(ErrorCode.PERMISSION))
    with pytest.raises(AstError, match="is the disk mounted"):
        tally.add(failed(ErrorCode.VANISHED))
