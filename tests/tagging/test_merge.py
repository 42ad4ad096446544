from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report.comma_separated import COLUMNS
from ast_cli.results import FileError, StreamedPart, Tag, TaggingResult, Window
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.run.journal import open_journal
from ast_cli.tagging.run.journal_lines import Sidecars
from ast_cli.tagging.run.merge import MergeReport, merge_outputs
from ast_cli.tagging.run.shards import in_shard

NUM_INPUTS = 12
INPUTS = [Input(f"/nowhere/{number}.wav") for number in range(NUM_INPUTS)]
FAILED = 3


def tagged(item: Input) -> TaggingResult:
    if item.path == INPUTS[FAILED].path:
        return TaggingResult(item.path, "builtin", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "no audio"))
    tags = tuple(Tag(f"label, {rank}\nwith a line end", rank, None, 0.5) for rank in range(2))
    return TaggingResult(item.path, "builtin", "sigmoid", 10.0, 44100, 2, tags)


def run(
    output: Path,
    inputs: list[Input],
    shard: tuple[int, int] | None = None,
    format_name: str = "jsonl",
    top_k: int = 5,
    stream: bool = False,
) -> Path:
    """Tag inputs, or a shard of them."""
    chosen = [item for item in inputs if shard is None or in_shard(item, shard)]
    with open_journal(output, format_name, {"top_k": top_k}, shard=shard) as journal:
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
def test_csv_keeps_one_row_of_columns(tmp_path: Path, journals: bool) -> None:
    parts = [run(tmp_path / f"{index}.csv", INPUTS, (index, 2), "csv") for index in range(2)]
    if not journals:
        parts = [without_journal(part) for part in parts]
    output = tmp_path / "merged.csv"
    report = merge_outputs(parts, output)
    assert (report.num_files, report.num_ok, report.num_failed) == (NUM_INPUTS, NUM_INPUTS - 1, 1)
    first, second = (part.read_bytes() for part in parts)
    assert output.read_bytes() == first + second[second.index(b"\n") + 1 :]


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
    with pytest.raises(AstError, match="json cannot be merged, only jsonl and csv"):
        merge_outputs([run(tmp_path / "tags.json", INPUTS, None, "json")], output)
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
