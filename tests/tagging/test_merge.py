from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report import FORMATS, ONE_RECORDING, suffix_of
from ast_cli.report.comma_separated import COLUMNS
from ast_cli.results import FileError, StreamedPart, Tag, TaggingResult, Window
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.run.journal import Journal, open_journal
from ast_cli.tagging.run.journal_lines import Sidecars
from ast_cli.tagging.run.merge import MergeReport, merge_outputs
from ast_cli.tagging.run.parquet_output import open_parquet_output
from ast_cli.tagging.run.shards import in_shard

NUM_INPUTS = 12
INPUTS = [Input(f"/nowhere/{number}.wav") for number in range(NUM_INPUTS)]
FAILED = 3
LABELS = ("label, 0\nwith a line end", "label, 1\nwith a\ttab")


def tagged(item: Input) -> TaggingResult:
    if item.path == INPUTS[FAILED].path:
        return TaggingResult(item.path, "builtin", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "no audio"))
    tags = tuple(Tag(label, rank, None, 0.5) for rank, label in enumerate(LABELS))
    return TaggingResult(item.path, "builtin", "sigmoid", 10.0, 44100, 2, tags)


def _open(
    output: Path, format_name: str, settings: dict[str, int], shard: tuple[int, int] | None, *, force: bool
) -> contextlib.AbstractContextManager[Journal]:
    if format_name == "parquet":
        return open_parquet_output(output, settings, shard=shard, force=force)
    return open_journal(output, format_name, settings, shard=shard, labels=LABELS, force=force)


def run(
    output: Path,
    inputs: list[Input],
    shard: tuple[int, int] | None = None,
    format_name: str = "jsonl",
    top_k: int = 5,
    stream: bool = False,
    force: bool = False,
) -> Path:
    """Tag inputs, or a shard of them."""
    chosen = [item for item in inputs if shard is None or in_shard(item, shard)]
    with _open(output, format_name, {"top_k": top_k}, shard, force=force) as journal:
        for item in journal.pending(chosen):
            if stream:
                journal.write(StreamedPart(item.path, Window(0.0, 1.0, ())), item)
            journal.write(tagged(item), item)
    return output


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return [run(tmp_path / f"tags-{index}.jsonl", INPUTS, (index, 3)) for index in range(3)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "merged"


def paths_of(output: Path) -> list[str]:
    return [json.loads(line)["path"] for line in output.read_bytes().splitlines()]


def without_journal(part: Path) -> Path:
    Sidecars(part).journal.unlink()
    return part


def test_shards_are_joined_in_the_order_given(shards: list[Path], output: Path) -> None:
    parts = [shards[2], shards[0], shards[1]]
    assert merge_outputs(parts, output) == MergeReport(num_parts=3, num_ok=NUM_INPUTS - 1, num_failed=1)
    assert output.read_bytes() == b"".join(part.read_bytes() for part in parts)
    assert sorted(paths_of(output)) == sorted(item.path for item in INPUTS)


@pytest.mark.parametrize("journals", [True, False])
@pytest.mark.parametrize("format_name", ["csv", "tsv", "wide"])
def test_tables_keep_one_row_of_columns(tmp_path: Path, format_name: str, journals: bool) -> None:
    suffix = suffix_of(format_name)
    parts = [run(tmp_path / f"{index}{suffix}", INPUTS, (index, 2), format_name) for index in range(2)]
    if not journals:
        parts = [without_journal(part) for part in parts]
    output = tmp_path / f"merged{suffix}"
    report = merge_outputs(parts, output)
    assert (report.num_files, report.num_ok, report.num_failed) == (NUM_INPUTS, NUM_INPUTS - 1, 1)
    first, second = (part.read_bytes() for part in parts)
    assert output.read_bytes() == first + second[second.index(b"\n") + 1 :]


@pytest.mark.parametrize(
    "format_name",
    [name for name in FORMATS if name not in ONE_RECORDING and (name != "parquet" or find_spec("pyarrow"))],
)
def test_merged_shards_equal_one_run_in_every_format(tmp_path: Path, format_name: str) -> None:
    suffix = suffix_of(format_name)
    shards = [run(tmp_path / f"{index}{suffix}", INPUTS, (index, 3), format_name) for index in range(3)]
    in_order = [item for index in range(3) for item in INPUTS if in_shard(item, (index, 3))]
    whole = run(tmp_path / f"whole{suffix}", in_order, None, format_name)
    output = tmp_path / f"merged{suffix}"
    assert merge_outputs(shards, output) == MergeReport(num_parts=3, num_ok=NUM_INPUTS - 1, num_failed=1)
    assert output.read_bytes() == whole.read_bytes()
    with pytest.raises(AstError, match=rf"occurs twice: \S*0{suffix}\S* line \d+, \S*whole{suffix}\S* line \d+$"):
        merge_outputs(
            [run(tmp_path / f"0{suffix}", [in_order[-1]], None, format_name, force=True), whole], output, force=True
        )
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("format_name", ONE_RECORDING)
def test_formats_of_one_recording_are_not_merged(tmp_path: Path, output: Path, format_name: str) -> None:
    parts = [run(tmp_path / f"{number}.out", [INPUTS[number]], None, format_name) for number in range(2)]
    with pytest.raises(UsageError, match=rf"^{format_name} has no place for names, .*: write a file for each$"):
        merge_outputs(parts, tmp_path / "merged.out")
    assert not (tmp_path / "merged.out").exists()


def test_a_format_that_needs_its_journal_is_refused_without_it(tmp_path: Path, output: Path) -> None:
    for format_name, missing in (("json", "tags.json.ast-journal"), ("raven", "tags.selections.txt.ast-journal")):
        part = without_journal(run(tmp_path / f"tags{suffix_of(format_name)}", INPUTS, None, format_name))
        with pytest.raises(AstError) as raised:
            merge_outputs([part], output)
        assert str(raised.value) == (
            f"{part}: {format_name} cannot be merged without {missing} beside it: merge jsonl, csv, tsv or wide, and "
            f"write {format_name} from JSON Lines with ast convert"
        )
    part = tmp_path / "tags.parquet"
    part.write_bytes(b"PAR1")
    with pytest.raises(
        AstError, match=r"parquet cannot be merged without tags\.parquet\.ast-records\.ast-journal beside it"
    ):
        merge_outputs([part], output)
    json_lines = without_journal(run(tmp_path / "lines.json", INPUTS))  # any format may have any suffix
    assert merge_outputs([json_lines], tmp_path / "merged.jsonl").num_files == NUM_INPUTS


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_records_of_a_replaced_parquet_file_go_with_it(tmp_path: Path) -> None:
    parts = [run(tmp_path / f"{index}.parquet", INPUTS, (index, 2), "parquet") for index in range(2)]
    output = run(tmp_path / "merged.parquet", INPUTS[:1], None, "parquet")
    output.unlink()
    with pytest.raises(UsageError, match="has the journal of a run beside it: add --force to replace both"):
        merge_outputs(parts, output)
    merge_outputs(parts, output, force=True)
    assert [file.name for file in tmp_path.glob("merged*")] == ["merged.parquet"]


def test_text_after_the_end_of_a_json_document_is_an_error(tmp_path: Path, output: Path) -> None:
    part = run(tmp_path / "tags.json", INPUTS[:2], None, "json")
    part.write_bytes(part.read_bytes() + b"[]\n")
    with pytest.raises(AstError, match=r"tags\.json: there is text after line \d+ that is not in its journal"):
        merge_outputs([part], output)
    empty = run(tmp_path / "empty.json", [], None, "json")
    merge_outputs([empty], tmp_path / "merged.json")
    assert (tmp_path / "merged.json").read_bytes() == b"[]\n"


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
def test_names_that_are_not_utf8_are_distinguished(tmp_path: Path, format_name: str) -> None:
    similar = [Input(os.fsdecode(name)) for name in (b"/nowhere/caf\xe8.wav", b"/nowhere/caf\xe9.wav")]
    part = without_journal(run(tmp_path / f"tags.{format_name}", similar, None, format_name))
    assert merge_outputs([part], tmp_path / f"merged.{format_name}").num_files == 2


def test_outputs_without_journals_are_joined_too(shards: list[Path], output: Path) -> None:
    expected = b"".join(part.read_bytes() for part in shards)
    report = merge_outputs([without_journal(part) for part in shards], output)
    assert (report.num_files, report.num_failed) == (NUM_INPUTS, 1)
    assert output.read_bytes() == expected


@pytest.mark.parametrize("journals", [True, False])
def test_streamed_windows_stay_with_their_file(tmp_path: Path, output: Path, journals: bool) -> None:
    part = run(tmp_path / "tags.jsonl", INPUTS, stream=True)
    if not journals:
        without_journal(part)
    assert merge_outputs([part], output).num_files == NUM_INPUTS
    assert output.read_bytes() == part.read_bytes()


def test_empty_shard_counts_as_a_shard(tmp_path: Path, output: Path) -> None:
    few = INPUTS[:1]
    parts = [run(tmp_path / f"{index}.jsonl", few, (index, 3)) for index in range(3)]
    assert merge_outputs(parts, output).num_files == 1
    with pytest.raises(AstError, match=r"no part with a journal is shard [012]/3"):
        merge_outputs(parts[:2], output, force=True)


def test_existing_output_is_replaced_only_with_force(shards: list[Path], output: Path) -> None:
    run(output, INPUTS[:1])
    with pytest.raises(UsageError, match="exists: add --force"):
        merge_outputs(shards, output)
    merge_outputs(shards, output, force=True)
    assert len(paths_of(output)) == NUM_INPUTS
    assert not Sidecars(output).journal.exists()  # it belonged to the replaced output


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_an_output_that_is_a_part_or_a_link_is_refused(shards: list[Path], output: Path) -> None:
    with pytest.raises(UsageError, match="is one of the parts"):
        merge_outputs(shards, shards[1], force=True)
    output.symlink_to("elsewhere")
    with pytest.raises(UsageError, match="is a link: name the file itself"):
        merge_outputs(shards, output, force=True)
    with pytest.raises(UsageError, match="name the outputs"):
        merge_outputs([], output)


def edit(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda part: (part.write_bytes(part.read_bytes().replace(old, new, 1)), None)[1]


def cut(num_bytes: int) -> Callable[[Path], None]:
    return lambda part: os.truncate(part, part.stat().st_size - num_bytes)


@pytest.mark.parametrize("journals", [True, False])
@pytest.mark.parametrize("num_bytes", [1, 2, 100])
@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
def test_error_of_a_torn_tail_names_file_and_line(
    tmp_path: Path, output: Path, journals: bool, num_bytes: int, format_name: str
) -> None:
    part = run(tmp_path / f"tags.{format_name}", INPUTS[:FAILED], None, format_name)
    if not journals:
        without_journal(part)
    cut(num_bytes)(part)
    with pytest.raises(AstError, match=rf"tags\.{format_name}: (torn at )?line \d+"):
        merge_outputs([part], output)
    assert not output.exists()
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{}\n", b'{"type": "else", "path": "x"}\n', b'{"type": "file", "path": 1}\n', b"\0\0\0\n"]
)
def test_line_that_is_not_a_record_is_an_error(shards: list[Path], output: Path, line: bytes) -> None:
    part = without_journal(shards[0])
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(AstError, match=r"tags-0\.jsonl: line 2 is not a record of a tagged file"):
        merge_outputs([part], output)


def test_row_with_missing_cells_is_an_error(tmp_path: Path, output: Path) -> None:
    part = without_journal(run(tmp_path / "tags.csv", INPUTS[FAILED:][:2], None, "csv"))
    edit(b",error,not_audio", b",error")(part)
    with pytest.raises(AstError, match=r"tags\.csv: line 2 is torn or damaged: 11 cells, not 12"):
        merge_outputs([part], output)
    part.write_bytes(b"a,b\n")
    with pytest.raises(AstError, match=r"tags\.csv: line 1 does not contain the column names"):
        merge_outputs([part], output)


def test_windows_without_the_record_of_their_file_are_an_error(tmp_path: Path, output: Path) -> None:
    part = without_journal(run(tmp_path / "tags.jsonl", INPUTS[:2], stream=True))
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:3]))
    with pytest.raises(AstError, match="line 3 is the last, and the record of its file is missing"):
        merge_outputs([part], output)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(b'"score": 0.5', b'"score": 0.6'), "line 1 is damaged or was changed by hand"),
        (
            lambda part: part.write_bytes(part.read_bytes() * 2),
            r"there is text after line \d+ that is not in its journal",
        ),
        (lambda part: part.write_bytes(b""), "torn at line 1"),
    ],
)
def test_part_that_does_not_match_its_journal_is_refused(
    shards: list[Path], output: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(shards[1])
    with pytest.raises(AstError, match=rf"tags-1\.jsonl: {message}"):
        merge_outputs(shards, output)


def test_part_of_an_unfinished_run_is_refused(tmp_path: Path, output: Path) -> None:
    part = tmp_path / "tags.jsonl"
    with open_journal(part, "jsonl", {}) as journal:
        item = next(journal.pending(INPUTS))
        journal.write(tagged(item), item)
    with pytest.raises(AstError, match=r"tags\.jsonl: the run is not finished: continue it with --resume"):
        merge_outputs([part], output)


@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
@pytest.mark.parametrize("journals", [True, False])
def test_error_of_a_repeated_input_names_both_lines(
    tmp_path: Path, output: Path, journals: bool, format_name: str
) -> None:
    first = run(tmp_path / f"a.{format_name}", INPUTS[3:5], None, format_name)
    second = run(tmp_path / f"b.{format_name}", INPUTS[4:6], None, format_name)
    if not journals:
        without_journal(first)
        without_journal(second)
    lines = (2, 1) if format_name == "jsonl" else (3, 2)
    with pytest.raises(
        AstError, match=rf"nowhere/4\.wav occurs twice: \S+a\.{format_name} line {lines[0]}, .*line {lines[1]}$"
    ):
        merge_outputs([first, second], output)
    assert not output.exists()


def test_missing_and_repeated_shards_are_errors(shards: list[Path], tmp_path: Path, output: Path) -> None:
    with pytest.raises(AstError, match="no part with a journal is shard 1/3"):
        merge_outputs([shards[0], shards[2]], output)
    with pytest.raises(AstError, match=r"tags-0\.jsonl and \S+tags-0\.jsonl are both shard 0/3"):
        merge_outputs([*shards, shards[0]], output)
    other = run(tmp_path / "other.jsonl", INPUTS, (3, 4))
    with pytest.raises(AstError, match=r"is 0/3 and \S+other\.jsonl is 3/4: they are not parts of the same split"):
        merge_outputs([*shards, other], output)
    whole = run(tmp_path / "whole.jsonl", [Input("/nowhere/else.wav")])
    with pytest.raises(AstError, match=r"is 0/3 and \S+whole\.jsonl is no shard"):
        merge_outputs([*shards, whole], output)


def test_parts_with_different_settings_or_formats_are_errors(shards: list[Path], tmp_path: Path, output: Path) -> None:
    other = run(tmp_path / "other.jsonl", INPUTS, (2, 3), top_k=3)
    with pytest.raises(
        AstError, match=r"other\.jsonl was made with other settings than \S+: --top-k is 3 instead of 5$"
    ):
        merge_outputs([*shards[:2], other], output)
    table = run(tmp_path / "other.csv", INPUTS, (2, 3), "csv")
    with pytest.raises(AstError, match=r"other\.csv is csv and \S+tags-0\.jsonl is jsonl"):
        merge_outputs([*shards[:2], table], output)
    edit(b"rank", b"RANK")(without_journal(table))
    with pytest.raises(AstError, match=r"other\.csv: line 1: not the columns of"):
        merge_outputs([run(tmp_path / "first.csv", INPUTS, (0, 1), "csv"), table], output)


def test_suffix_of_another_format_is_an_error(shards: list[Path], tmp_path: Path) -> None:
    for name in ("merged.csv", "merged.parquet"):
        with pytest.raises(UsageError) as raised:
            merge_outputs(shards, tmp_path / name)
        assert str(raised.value) == (
            f"--output {tmp_path / name}: the parts are jsonl; name a file that ends in .jsonl or .ndjson"
        )
        assert not (tmp_path / name).exists()
    own = run(tmp_path / "own.out", INPUTS)
    assert merge_outputs([own], tmp_path / "merged.out").num_files == NUM_INPUTS
    assert merge_outputs(shards, tmp_path / "merged.ndjson").num_files == NUM_INPUTS


def test_tables_of_two_versions_are_an_error_until_the_older_run_is_resumed(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = run(tmp_path / "new.csv", INPUTS, (0, 2), "csv")
    with monkeypatch.context() as patch:
        patch.setattr("ast_cli.report.comma_separated.COLUMNS", COLUMNS[:-1])
        old = run(tmp_path / "old.csv", INPUTS, (1, 2), "csv")
    with pytest.raises(AstError) as raised:
        merge_outputs([new, old], output)
    assert str(raised.value) == (
        f"{old}: line 1: not the columns of {new}; run its own command with --resume to write "
        "the columns of this version"
    )
    with open_journal(old, "csv", {"top_k": 5}, resume=True, shard=(1, 2)) as journal:
        assert list(journal.pending([item for item in INPUTS if in_shard(item, (1, 2))])) == []
    assert merge_outputs([new, old], output).num_files == NUM_INPUTS
    assert {row["type"] for row in csv.DictReader(output.read_text().splitlines())} == {"file"}


def test_missing_part_is_an_error(shards: list[Path], output: Path) -> None:
    with pytest.raises(AstError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        merge_outputs([*shards, shards[0].with_name("gone.jsonl")], output)


def test_a_full_disk_leaves_the_old_output(shards: list[Path], output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(shards[0], output)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(AstError, match=r"merged: cannot be written \(No space left on device\)"):
        merge_outputs(shards, output, force=True)
    assert output.read_bytes() == shards[0].read_bytes()
    assert not list(output.parent.glob(".*.tmp"))
