"""A file that crashes or hangs its decoder costs only itself: in tagging, extraction and calibration."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from faulty_decoders import FaultyPool
from tiny_tagger import tiny_tagger

from ast_cli.errors import ErrorCode
from ast_cli.export import ExportOptions, export_model
from ast_cli.tagging.decode import opening
from ast_cli.tagging.extract.extract_files import Extractor, open_extraction
from ast_cli.tagging.extract.targets import plan_extraction
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import DecodeOptions, ExtractOptions, ExtractRunOptions, LoadOptions
from ast_cli.tagging.run.tag_files import tag_files
from ast_cli.tagging.tagger import Tagger

NAMES = ("a.wav", "segfault.wav", "b.wav", "exit-late.wav", "c.wav")
GOOD = ("a.wav", "b.wav", "c.wav")


@pytest.fixture(autouse=True)
def _faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "DecodePool", FaultyPool)


@pytest.fixture
def paths(write_wav: Callable[..., Path]) -> list[str]:
    return [str(write_wav(f"in/{name}", 0.5)) for name in NAMES]


def test_classify_paths_continues_after_a_crash(paths: list[str]) -> None:
    results = list(tiny_tagger().classify_paths(paths))
    assert [result.path for result in results] == paths
    assert [result.error.code if result.error else "ok" for result in results] == [
        "ok", ErrorCode.WORKER_CRASHED, "ok", ErrorCode.WORKER_CRASHED, "ok"
    ]  # fmt: skip


def test_classify_paths_stops_a_decoder_that_hangs(write_wav: Callable[..., Path]) -> None:
    paths = [str(write_wav(name, 0.5)) for name in ("hang.wav", "a.wav")]
    hanging, good = tiny_tagger().classify_paths(paths, workers=DecodeOptions(timeout_s=0.5))
    assert hanging.error is not None
    assert hanging.error.code == ErrorCode.TIMEOUT
    assert good.status == "ok"


def test_tag_files_continues_after_a_crash(paths: list[str], tmp_path: Path) -> None:
    tally = tag_files(paths, Tagger.from_pretrained("builtin"), tmp_path / "tags.jsonl")
    assert (tally.num_ok, dict(tally.failed)) == (3, {"worker_crashed": 2})


def test_extraction_continues_after_a_crash(paths: list[str], tmp_path: Path) -> None:
    extractor = Extractor.load(None, ExtractOptions(what="fbank"), LoadOptions())
    plan = plan_extraction([Input(path) for path in paths], tmp_path / "out", "npy", ExtractRunOptions())
    with open_extraction(extractor, plan, ExtractRunOptions()) as run:
        outcomes = {Path(outcome.path).name: outcome for outcome in run}
    crashed = [name for name, outcome in outcomes.items() if outcome.error is not None]
    assert crashed == ["segfault.wav", "exit-late.wav"]
    assert all(outcomes[name].error.code == ErrorCode.WORKER_CRASHED for name in crashed)  # type: ignore[union-attr]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".ast-journal",
        *(f"{name}.npy" for name in GOOD),
    ]
    assert all(np.load(tmp_path / "out" / f"{name}.npy").shape == (48, 128) for name in GOOD)


def test_calibration_continues_after_a_crash(paths: list[str], tmp_path: Path) -> None:
    folder = Path(paths[0]).parent
    exported = export_model(ExportOptions("builtin", tmp_path / "int8", dtype="int8", calibrate=folder))
    assert exported.num_calibration_windows == len(GOOD) + 1  # one more from the file that crashes late


def test_standard_input_that_crashes_its_decoder_is_one_error_among_results(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"crash the decoder")))
    first, stdin, last = tiny_tagger().classify_paths([paths[0], "-", paths[2]])
    assert (first.status, last.status) == ("ok", "ok")
    assert stdin.error is not None
    assert (stdin.path, stdin.error.code) == ("-", ErrorCode.WORKER_CRASHED)
    assert not list(tmp_path.glob("ast-stdin-*"))


def test_reading_in_any_order_starts_at_least_two_workers_unless_there_is_one_input(paths: list[str]) -> None:
    numbers = []
    for num_inputs in (1, 5):
        with opening.start_decoding(DecodeOptions(), num_inputs, in_order=False) as workers:
            numbers.append(workers.num_workers)
    assert numbers == [1, 2]
