"""Extraction into one table: its rows, and runs that are stopped and resumed. Logits need no torch."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ast_cli.audio.channels import Channels
from ast_cli.errors import AstError, AudioError, ErrorCode, UsageError
from ast_cli.results import exact_path
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.extract import extract_table
from ast_cli.tagging.extract.extract_files import ExtractedFile, Extractor
from ast_cli.tagging.extract.extract_table import open_table
from ast_cli.tagging.extract.extraction import WindowBatch, window_batches
from ast_cli.tagging.extract.targets import plan_table, table_format
from ast_cli.tagging.inputs import Input, list_inputs
from ast_cli.tagging.options import ExtractOptions, ExtractRunOptions, LoadOptions
from ast_cli.tagging.run.journal_lines import Sidecars, read_journal
from ast_cli.tagging.run.tally import Tally

Write = Callable[..., Path]
Row = tuple[str, float, float, NDArray[np.float32]]
FORMATS = ("csv", "parquet")
NUM_CLIPS = 4

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
each_format = pytest.mark.parametrize("format_name", ["csv", pytest.param("parquet", marks=needs_pyarrow)])


@pytest.fixture(scope="module")
def loaded() -> Extractor:
    return Extractor.load("builtin", ExtractOptions(what="logits"), LoadOptions(device="cpu", num_threads=1))


@pytest.fixture
def clips(write_wav: Write) -> Path:
    paths = [write_wav(f"clips/{number}.wav", 0.3 if number else 6.0) for number in range(NUM_CLIPS)]
    return paths[0].parent


def run(
    loaded: Extractor,
    paths: list[Path],
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    on_progress: Callable[[Tally], None] = lambda _tally: None,
    **options: Any,
) -> tuple[list[ExtractedFile], Tally]:
    """Extract in this process; return the new outcomes and the counts."""
    run_options = ExtractRunOptions(num_workers=0, resume=resume, force=force)
    format_name = table_format(output, None)
    assert format_name is not None
    plan = plan_table(list(list_inputs(map(str, paths))), output, format_name, "logits", run_options)
    chosen = ExtractOptions(what="logits", **options)
    extractor = Extractor(loaded.model, loaded.feature_extractor, loaded.engine, chosen)
    with open_table(extractor, plan, run_options, on_progress=on_progress) as running:
        return list(running), running.tally


def table(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a table; their vectors are arrays."""
    if file.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return [row | {"logits": np.array(row["logits"], np.float32)} for row in rows]
    with file.open(newline="", encoding="utf-8") as stream:
        found: list[dict[str, Any]] = list(csv.DictReader(stream))
    for row in found:
        names = [name for name in row if name.startswith("logits.")]
        row["logits"] = np.array([row.pop(name) for name in names], np.float32)
        row |= {name: float(row[name]) for name in ("start_s", "end_s")}
        row |= {"channel": int(row["channel"])} if "channel" in row else {}
    return found


def places(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    return [(Path(row["path"]).name, row["start_s"], row["end_s"]) for row in rows]


def names(outcomes: list[ExtractedFile]) -> list[str]:
    return [Path(outcome.path).name for outcome in outcomes]


def logits_of(loaded: Extractor, path: Path, channels: Channels = "mix") -> NDArray[np.float32]:
    options = ExtractOptions(what="logits", channels=channels)
    with open_inputs([Input(str(path))], 16000, options, ExtractRunOptions(num_workers=0)) as turns:
        for turn in turns:
            extractor = Extractor(loaded.model, loaded.feature_extractor, loaded.engine, options)
            values: NDArray[np.float32] = extractor.extract(turn).arrays["window_logits"]
            return values
    raise AssertionError


PLACES = [("0.wav", 0.0, 5.12), ("0.wav", 0.86, 5.98), *((f"{number}.wav", 0.0, 0.3) for number in range(1, NUM_CLIPS))]


@each_format
def test_a_table_has_a_row_for_each_window_with_the_exact_numbers(
    loaded: Extractor, clips: Path, tmp_path: Path, format_name: str
) -> None:
    output = tmp_path / f"table.{format_name}"
    outcomes, tally = run(loaded, [clips], output)
    assert (names(outcomes), tally.num_ok) == (["0.wav", "1.wav", "2.wav", "3.wav"], 4)
    assert outcomes[0].summary == "logits 2x521"
    rows = table(output)
    assert places(rows) == PLACES
    assert [row["path"] for row in rows[1:3]] == [str(clips / "0.wav"), str(clips / "1.wav")]
    np.testing.assert_array_equal(np.stack([row["logits"] for row in rows[:2]]), logits_of(loaded, clips / "0.wav"))


def test_the_columns_are_places_and_one_for_each_number(loaded: Extractor, clips: Path, tmp_path: Path) -> None:
    run(loaded, [clips], tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as stream:
        heading = next(csv.reader(stream))
    assert loaded.engine is not None
    labels = loaded.engine.config.id2label
    assert heading == ["path", "start_s", "end_s", "path_b64", *(f"logits.{labels[i]}" for i in range(len(labels)))]


@each_format
def test_channels_are_rows(loaded: Extractor, write_wav: Write, tmp_path: Path, format_name: str) -> None:
    path, output = write_wav("stereo.wav", 6.0, num_channels=2), tmp_path / f"table.{format_name}"
    run(loaded, [path], output, channels="each")
    rows = table(output)
    assert [(row["start_s"], row["channel"]) for row in rows] == [(0.0, 1), (0.0, 2), (0.86, 1), (0.86, 2)]
    second = np.stack([row["logits"] for row in rows[1::2]])
    np.testing.assert_allclose(second, logits_of(loaded, path, 2), atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not allow")
@each_format
def test_any_name_can_be_read_back_exactly(
    loaded: Extractor, write_wav: Write, tmp_path: Path, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = ["=1+1.wav", "a\nb,\"c'.wav", "\udcff.wav", "plain.wav", "'=x.wav", "+ÿ.wav"]
    clip, output = write_wav("clip.wav", 0.3), tmp_path / f"table.{format_name}"
    monkeypatch.chdir(tmp_path)
    for name in hostile:
        os.link(clip, name)
    run(loaded, [Path(name) for name in hostile], output)
    found = []
    for row in table(output):
        encoded = (row["path_b64"] or "").lstrip("'")
        found.append(exact_path({"path": row["path"]} | ({"path_b64": encoded} if encoded else {})))
    assert found == hostile
    if format_name == "parquet":  # where no cell is taken for a formula
        assert [row["path"] for row in table(output)] == [name.replace("\udcff", "�") for name in hostile]


def stop_after(num_ok: int) -> Callable[[Tally], None]:
    def stop(tally: Tally) -> None:
        if tally.num_ok == num_ok:
            raise KeyboardInterrupt

    return stop


@each_format
def test_a_run_that_was_stopped_is_resumed_at_the_next_input(
    loaded: Extractor, clips: Path, tmp_path: Path, format_name: str
) -> None:
    whole, output = tmp_path / f"whole.{format_name}", tmp_path / f"table.{format_name}"
    run(loaded, [clips], whole)
    with pytest.raises(KeyboardInterrupt):
        run(loaded, [clips], output, on_progress=stop_after(2))
    assert output.exists() == (format_name == "csv")
    outcomes, tally = run(loaded, [clips], output, resume=True)
    assert (names(outcomes), tally.num_skipped) == (["2.wav", "3.wav"], 2)
    assert output.read_bytes() == whole.read_bytes()
    assert run(loaded, [clips], output, resume=True)[0] == []
    assert output.read_bytes() == whole.read_bytes()


def test_a_table_in_csv_can_be_read_while_it_grows(loaded: Extractor, clips: Path, tmp_path: Path) -> None:
    output, num_rows = tmp_path / "table.csv", []

    def look(tally: Tally) -> None:
        if tally.num_ok:
            num_rows.append((tally.num_ok, len(table(output))))

    run(loaded, [clips], output, on_progress=look)
    assert dict(num_rows) == {1: 2, 2: 3, 3: 4, 4: 5}


@each_format
def test_changed_new_and_repaired_inputs_have_their_rows_once(
    loaded: Extractor, clips: Path, write_wav: Write, tmp_path: Path, format_name: str
) -> None:
    output = tmp_path / f"table.{format_name}"
    (clips / "1.wav").write_bytes(b"no audio")
    _, tally = run(loaded, [clips], output)
    assert (tally.num_ok, dict(tally.failed)) == (3, {"not_audio": 1})
    assert [name for name, *_ in places(table(output))] == ["0.wav", "0.wav", "2.wav", "3.wav"]
    write_wav("clips/1.wav", 0.3)
    write_wav("clips/2.wav", 1.0)
    write_wav("clips/4.wav", 0.3)
    outcomes, tally = run(loaded, [clips], output, resume=True)
    assert (names(outcomes), tally.num_skipped) == (["1.wav", "2.wav", "4.wav"], 2)
    ends = {(name, start_s): end_s for name, start_s, end_s in places(table(output))}
    assert len(ends) == len(table(output)) == 6
    assert ends[("2.wav", 0.0)] == 1.0


def test_an_input_that_fails_after_some_windows_leaves_no_rows(
    loaded: Extractor, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Iterator[WindowBatch]:
        for batch in window_batches(*arguments):
            yield batch
            if batch.places_s[0][1] > 1.0:
                raise AudioError(ErrorCode.VANISHED, "the disk is gone")

    output = tmp_path / "table.csv"
    with monkeypatch.context() as patch:
        patch.setattr(extract_table, "window_batches", failing)
        outcomes, tally = run(loaded, [clips], output, batch_size=1)
    assert (names(outcomes)[0], dict(tally.failed)) == ("0.wav", {"vanished": 1})
    assert places(table(output)) == PLACES[2:]
    run(loaded, [clips], output, resume=True)
    assert sorted(places(table(output))) == PLACES


def test_rows_are_appended_batch_by_batch(
    loaded: Extractor, write_wav: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(*arguments: Any) -> Iterator[WindowBatch]:
        for batch in window_batches(*arguments):
            sizes.append(sum(file.stat().st_size for file in tmp_path.glob("table.csv*")))
            yield batch

    sizes: list[int] = []
    monkeypatch.setattr(extract_table, "window_batches", watched)
    run(loaded, [write_wav("long.wav", 20.0)], tmp_path / "table.csv", batch_size=1)
    assert len(sizes) == 4
    assert sizes == sorted(set(sizes))


def test_a_damaged_table_is_not_continued(loaded: Extractor, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.csv"
    run(loaded, [clips], output)
    output.write_text(output.read_text().replace("0.3", "0.4", 1))
    with pytest.raises(AstError, match=r"table\.csv: line \d+ is damaged or was changed by hand; --force starts over"):
        run(loaded, [clips], output, resume=True)


@each_format
def test_an_output_is_replaced_or_continued_only_on_request(
    loaded: Extractor, clips: Path, tmp_path: Path, format_name: str
) -> None:
    output = tmp_path / f"table.{format_name}"
    output.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists: add --resume to continue it, or --force"):
        run(loaded, [clips], output)
    with pytest.raises(UsageError, match="has no journal beside it and cannot be continued; --force replaces it"):
        run(loaded, [clips], output, resume=True)
    assert output.read_bytes() == b"precious"
    run(loaded, [clips], output, force=True)
    before = output.read_bytes()
    with pytest.raises(UsageError, match=r"begun with other settings: --start was 0\.0 and is now 0\.1"):
        run(loaded, [clips], output, resume=True, start_s=0.1)
    assert output.read_bytes() == before
    if format_name == "parquet":
        output.unlink()
        with pytest.raises(UsageError, match="was begun by an earlier run: --resume continues it, --force"):
            run(loaded, [clips], output)
        assert run(loaded, [clips], output, resume=True)[0] == []
        assert output.read_bytes() == before


@needs_pyarrow
def test_a_table_in_parquet_has_the_labels_of_its_vectors_and_several_row_groups(
    loaded: Extractor, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    from ast_cli.tagging.extract import parquet as writing

    monkeypatch.setattr(writing, "BLOCK_BYTES", 16 * 1024)
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 2 * 4 * 521)
    output = tmp_path / "table.parquet"
    run(loaded, [clips], output)
    assert places(table(output)) == PLACES
    with parquet.ParquetFile(output) as file:
        facts = json.loads(file.schema_arrow.metadata[b"ast"])
        assert file.num_row_groups > 1
        assert str(file.schema_arrow.field("logits").type) == "fixed_size_list<element: float>[521]"
    assert (facts["what"], facts["model"], facts["id2label"]["0"]) == ("logits", "builtin", "Speech")


@needs_pyarrow
def test_a_table_without_rows_has_its_columns(loaded: Extractor, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    for format_name in FORMATS:
        output = tmp_path / f"table.{format_name}"
        _, tally = run(loaded, [tmp_path / "bad.wav"], output)
        assert (tally.num_failed, table(output), output.exists()) == (1, [], True)


def test_a_journal_beside_the_table_lists_the_inputs(loaded: Extractor, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.csv"
    run(loaded, [clips], output)
    header, entries = read_journal(Sidecars(output).journal)
    assert header.fingerprint["format"] == "csv"
    assert [Path(entry.key.path).name for entry in entries] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "table.csv", "table.csv.ast-journal"]


@pytest.mark.parametrize(
    ("output", "format_name", "what", "message"),
    [
        ("t.csv", None, "fbank", "a table has one vector for each window: --what embedding or logits, not fbank"),
        ("t.npz", "csv", "logits", r"--output t\.npz does not end in \.csv, the --format given"),
        ("t.csv", "parquet", "logits", r"--output t\.csv does not end in \.parquet, the --format given"),
        (".", "csv", "logits", "is a folder: name a file in it"),
    ],
)
def test_a_table_that_cannot_be_is_refused(output: str, format_name: Any, what: str, message: str) -> None:
    def plan() -> None:
        chosen = table_format(Path(output), format_name)
        assert chosen is not None
        plan_table([Input("a.wav")], Path(output), chosen, what, ExtractRunOptions())

    with pytest.raises(UsageError, match=message):
        plan()


@pytest.mark.parametrize(
    ("output", "format_name", "chosen"),
    [
        ("t.csv", None, "csv"),
        ("T.PARQUET", None, "parquet"),
        ("t", "csv", "csv"),
        ("t", None, None),
        ("t.npz", None, None),
    ],
)
def test_the_suffix_or_the_format_makes_a_table(output: str, format_name: Any, chosen: str | None) -> None:
    assert table_format(Path(output), format_name) == chosen
