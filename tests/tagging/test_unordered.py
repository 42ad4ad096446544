"""Results in any order: the same records as in input order, and no input waits for a long or a hanging one."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_decoders import faulty_pool
from tiny_tagger import tiny_tagger

from ast_cli.errors import ErrorCode
from ast_cli.results import FileError, StreamedPart, TaggingResult
from ast_cli.tagging.decode import pool as decode_pool
from ast_cli.tagging.decode.pool import DecodePool
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.run.journal import open_journal
from ast_cli.tagging.score.classify import classify_inputs
from ast_cli.tagging.tagger import Tagger

SCORE_TOLERANCE = 1e-5  # other batches add float32 numbers in another order
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return tiny_tagger()


def in_order(tagger: Tagger, inputs: Iterable[Input], options: ClassifyOptions) -> list[TaggingResult | StreamedPart]:
    with DecodePool(2) as pool:
        return list(classify_inputs(tagger, inputs, options, pool))


def in_any_order(
    tagger: Tagger, inputs: Iterable[Input], options: ClassifyOptions
) -> list[TaggingResult | StreamedPart]:
    with DecodePool(2) as pool:
        return list(classify_inputs(tagger, inputs, options, pool, in_order=False))


def assert_same_records(
    found: Iterable[TaggingResult | StreamedPart], expected: Iterable[TaggingResult | StreamedPart]
) -> None:
    """Compare two sets of records; the scores within the tolerance, everything else exactly."""

    def facts(record: TaggingResult | StreamedPart) -> tuple[object, ...]:
        assert isinstance(record, TaggingResult)
        return record.path, record.status, record.duration_s, record.sampling_rate, record.error, record.warnings

    found, expected = (sorted(records, key=lambda record: record.path or "") for records in (found, expected))
    assert [facts(record) for record in found] == [facts(record) for record in expected]
    for one, other in zip(found, expected, strict=True):
        scores = [{tag.label: tag.score for tag in record.tags} for record in (one, other)]  # type: ignore[union-attr]
        assert scores[0] == pytest.approx(scores[1], abs=SCORE_TOLERANCE)


def test_records_equal_those_of_an_ordered_run(
    tagger: Tagger, write_wav: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_wav(f"{index:02}.wav", 0.1 + index % 7 / 3) for index in range(40)]
    (tmp_path / "junk.wav").write_bytes(b"no audio " * 100)
    unlisted = Input("folder", FileError(ErrorCode.PERMISSION, "folder: the folder cannot be read"))
    inputs = [Input(str(path)) for path in [*paths, tmp_path / "junk.wav", tmp_path / "missing.wav"]]
    inputs[3:3] = [unlisted, Input(STDIN)]
    results = []
    for run in (in_order, in_any_order):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(paths[0].read_bytes())))
        results.append(run(tagger, inputs, ClassifyOptions(top_k=4, batch_size=8)))
    ordered, unordered = results
    assert len(unordered) == len(inputs)
    assert_same_records(unordered, ordered)


def test_long_recording_does_not_hold_back_short_ones_behind_it(
    tagger: Tagger, write_wav: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "INPUT_BUFFER_BYTES", 1 << 19)
    monkeypatch.setattr(decode_pool, "POOL_BUFFER_BYTES", 1 << 20)
    long, *short = (Input(str(write_wav(f"{name}.wav", 0.5))) for name in ("long", *"abcdefghijkl"))
    with faulty_pool() as pool:
        records = classify_inputs(tagger, [long, *short], ClassifyOptions(batch_size=2), pool, in_order=False)
        first = [next(records).path for _ in short]
    assert sorted(path or "" for path in first) == [item.path for item in short]


def test_long_recording_is_read_further_while_nothing_else_is_ready(
    tagger: Tagger, write_wav: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "INPUT_BUFFER_BYTES", 1 << 19)
    monkeypatch.setattr(decode_pool, "POOL_BUFFER_BYTES", 1 << 20)  # less than the two long ones' 3.8 MB
    inputs = [Input(str(write_wav(f"{index}.wav", 30.0 if index < 2 else 0.5))) for index in range(6)]
    options = ClassifyOptions(top_k=4, batch_size=2)
    assert_same_records(in_any_order(tagger, inputs, options), in_order(tagger, inputs, options))


def test_hanging_decoder_does_not_delay_other_inputs_nor_does_a_partial_batch(
    tagger: Tagger, write_wav: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "IDLE_AFTER_S", 0.05)
    inputs = [Input(str(write_wav(name, 0.3))) for name in ("hang.wav", "a.wav", "b.wav")]
    options = ClassifyOptions(batch_size=64)
    with faulty_pool() as pool:  # its timeout for the first is 60 s
        records = classify_inputs(tagger, inputs, options, pool, in_order=False)
        assert [next(records).path for _ in range(2)] == [inputs[1].path, inputs[2].path]


def test_file_whose_worker_dies_is_a_record_among_the_others(tagger: Tagger, write_wav: Write) -> None:
    names = ("exit.wav", "a.wav", "exit-late.wav", "b.wav", "hang.wav", "c.wav")
    inputs = [Input(str(write_wav(name, 0.3))) for name in names]
    with faulty_pool(timeout_s=1.0) as pool:
        records = list(classify_inputs(tagger, inputs, ClassifyOptions(), pool, in_order=False))
    codes = {Path(r.path or "").stem: r.error and str(r.error.code) for r in records if isinstance(r, TaggingResult)}
    crashed = "worker_crashed"
    assert codes == {"exit": crashed, "exit-late": crashed, "hang": "timeout", "a": None, "b": None, "c": None}


@pytest.mark.parametrize("batch_size", [1, 7])
def test_streamed_records_of_an_input_are_consecutive(tagger: Tagger, write_wav: Write, batch_size: int) -> None:
    durations_s = (6.0, 0.4, 1.5, 3.0, 0.7)
    inputs = [Input(str(write_wav(f"{index}.wav", duration_s))) for index, duration_s in enumerate(durations_s)]
    options = ClassifyOptions(timestamps=True, events=True, threshold=0.4, stream=True, batch_size=batch_size)
    ordered, unordered = in_order(tagger, inputs, options), in_any_order(tagger, inputs, options)
    pieces = [(path, list(records)) for path, records in groupby(unordered, lambda record: record.path)]
    assert sorted(path or "" for path, _ in pieces) == [item.path for item in inputs]
    for path, records in pieces:
        assert isinstance(records[-1], TaggingResult)
        starts = [r.part.start_s for r in records[:-1] if isinstance(r, StreamedPart) and hasattr(r.part, "tags")]
        assert starts == sorted(starts)
        kinds = [type(getattr(record, "part", record)) for record in records]
        expected = [type(getattr(record, "part", record)) for record in ordered if record.path == path]
        assert sorted(kinds, key=str) == sorted(expected, key=str)


def test_journal_confirms_results_in_any_order(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    inputs = [Input(str(write_wav(f"{index}.wav", 3.0 if index == 0 else 0.3))) for index in range(6)]
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1)
    output = tmp_path / "tags.jsonl"
    with DecodePool(2) as pool, open_journal(output, "jsonl", {}) as journal:
        for record in classify_inputs(tagger, journal.pending(inputs), options, pool, in_order=False):
            journal.write(record, Input(record.path or ""))
    with open_journal(output, "jsonl", {}, resume=True) as journal:
        assert list(journal.pending(inputs)) == []
        assert journal.num_skipped == len(inputs)


def test_closing_early_leaves_no_worker(tagger: Tagger, write_wav: Write) -> None:
    inputs = [Input(str(write_wav(name, 0.3))) for name in ("endless.wav", "hang.wav", "a.wav", "b.wav")]
    options = ClassifyOptions()
    with faulty_pool(3) as pool:
        records = classify_inputs(tagger, inputs, options, pool, in_order=False)
        next(records)
        records.close()
        assert pool.num_buffered_bytes == 0
    assert not pool.worker_pids
