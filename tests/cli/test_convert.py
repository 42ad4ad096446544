from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.errors import ErrorCode, ExitCode
from ast_cli.report import FORMATS, open_writer
from ast_cli.results import FileError, Tag, TaggingResult, Window
from ast_cli.tagging.run.journal_lines import Sidecars

Run = Callable[..., "subprocess.CompletedProcess[str]"]

RAIN, BARK = Tag("Rain", 0, "/m/06mb1", 0.9), Tag("Bark", 1, "/m/05tny_", 0.8)
WINDOWS = (Window(0.0, 5.0, (RAIN, BARK)), Window(5.0, 10.0, (BARK,)))
RESULT = TaggingResult("=a\n.wav", "m", "sigmoid", 10.0, 16000, 1, (RAIN, BARK), WINDOWS)
FAILED = TaggingResult("bad.wav", "m", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "bad.wav: no audio"))


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    file = tmp_path / "tags.jsonl"
    file.write_text("".join(f"{json.dumps(result.to_dict())}\n" for result in (RESULT, FAILED)))
    return file


def rendered(format_name: str, *results: TaggingResult, has_channels: bool = False) -> str:
    stream = io.StringIO(newline="")
    writer = open_writer(format_name, stream, has_channels=has_channels)
    for result in results:
        writer.write(result)
    writer.close()
    return stream.getvalue()


@pytest.mark.parametrize("format_name", ["table", "json", "jsonl", "csv"])
def test_each_format_is_that_of_classify(run_ast: Run, tags: Path, format_name: str) -> None:
    done = run_ast("convert", "tags.jsonl", "--format", format_name, cwd=tags.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, rendered(format_name, RESULT, FAILED), "")


def test_a_converted_file_converts_back(run_ast: Run, tags: Path) -> None:
    assert run_ast("convert", "tags.jsonl", "-o", "tags.json", cwd=tags.parent).returncode == 0
    assert run_ast("convert", "tags.json", "-o", "again.jsonl", cwd=tags.parent).returncode == 0
    assert (tags.parent / "again.jsonl").read_bytes() == tags.read_bytes()


def test_results_are_filtered_and_a_note_says_what_may_be_missing(run_ast: Run, tags: Path) -> None:
    stdin = tags.read_bytes()
    done = run_ast("convert", "-", "--events", "--threshold", "0.85", "--matches-only", "-f", "csv", stdin=stdin)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["label"], row["start_s"], row["end_s"], row["type"]) for row in rows] == [
        ("Rain", "0.000", "5.000", "event"),
        ("", "", "", "file"),  # the failure
    ]
    assert (done.returncode, done.stderr) == (0, "")
    done = run_ast("convert", "-", "--threshold", "0.8", "-f", "jsonl", stdin=stdin)
    assert done.stderr == (
        "note: 1 of 2 results may lack labels that reach the threshold: lists of at most 2 labels were recorded, with "
        "scores of 0.8 and more\n"
    )
    assert run_ast("convert", "-", "--threshold", "0.8", "-q", stdin=stdin).stderr == ""


def test_channels_have_a_column_even_if_the_first_input_failed(run_ast: Run, tmp_path: Path) -> None:
    channel = TaggingResult("a.wav", "m", "sigmoid", 10.0, 16000, 2, (RAIN,), channel=2)
    (tmp_path / "tags.jsonl").write_text("".join(f"{json.dumps(each.to_dict())}\n" for each in (FAILED, channel)))
    done = run_ast("convert", "tags.jsonl", "-f", "csv", cwd=tmp_path)
    assert done.stdout == rendered("csv", FAILED, channel, has_channels=True)


def test_an_output_is_replaced_only_with_force_and_loses_its_journal(run_ast: Run, tags: Path) -> None:
    output = tags.with_name("tags.csv")
    journal = Sidecars(output).journal
    journal.write_text("of a run")
    refused = run_ast("convert", str(tags), "-o", str(output))
    assert (refused.returncode, output.exists()) == (ExitCode.USAGE, False)
    assert "has the journal of a run beside it: add --force" in refused.stderr
    output.write_text("precious")
    refused = run_ast("convert", str(tags), "-o", str(output))
    assert (refused.returncode, output.read_text()) == (ExitCode.USAGE, "precious")
    done = run_ast("convert", str(tags), "-o", str(output), "--force")
    assert (done.returncode, done.stdout, journal.exists()) == (0, "", False)
    assert output.read_text() == rendered("csv", RESULT, FAILED)
    refused = run_ast("convert", str(tags), "-o", str(tags), "--force")
    assert (refused.returncode, "is one of the files that are read" in refused.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.jsonl"], 2, "none.jsonl: no such file"),
        (["tags.jsonl", "--format", "xml"], 2, f"--format must be one of {', '.join(FORMATS)}, not 'xml'"),
        (["tags.jsonl", "-o", "tags.xml"], 2, ".xml is not a supported format"),
        (["tags.jsonl", "--labels", "Rian"], 2, "similar labels: 'Rain'"),
        (["tags.jsonl", "--top-k", "0"], 2, "--top-k must be at least 1"),
        (["cut.jsonl"], 1, "cut.jsonl: line 3: not JSON, or cut off"),
        (["cut.jsonl", "-o", "new.csv"], 1, "cut.jsonl: line 3: not JSON, or cut off"),
    ],
)
def test_errors_are_one_sentence_and_leave_no_file(
    run_ast: Run, tags: Path, arguments: list[str], code: int, message: str
) -> None:
    (tags.parent / "cut.jsonl").write_text(tags.read_text() + tags.read_text()[:50])
    before = sorted(path.name for path in tags.parent.iterdir())
    done = run_ast("convert", *arguments, cwd=tags.parent)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.replace("\n", " ")
    assert sorted(path.name for path in tags.parent.iterdir()) == before


def test_a_format_for_one_recording_is_refused_for_several_before_anything_is_written(
    run_ast: Run, tmp_path: Path
) -> None:
    file, output = tmp_path / "two.jsonl", tmp_path / "labels.txt"
    other = TaggingResult("b.wav", "m", "sigmoid", 10.0, 16000, 1, (RAIN,))
    file.write_text("".join(f"{json.dumps(result.to_dict())}\n" for result in (other, RESULT, RESULT)))
    done = run_ast("convert", str(file), "--format", "audacity")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "audacity has no place for names, so a file describes one recording, not b.wav and =a\\n.wav" in done.stderr
    done = run_ast("convert", str(file), "--format", "audacity", "--output", str(output), "--labels", "Bark")
    assert (done.returncode, output.exists()) == (ExitCode.USAGE, False)


def test_a_wide_table_has_a_column_for_each_label_that_was_recorded(run_ast: Run, tags: Path) -> None:
    done = run_ast("convert", str(tags), "--format", "wide", "--timestamps")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["Rain"], row["Bark"], row["status"]) for row in rows] == [
        ("0.900000", "0.800000", "ok"), ("", "0.800000", "ok"), ("", "", "error"),
    ]  # fmt: skip
