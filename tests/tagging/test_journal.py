from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from journalled import FAILED, FINGERPRINT, LABELS, MANY, inputs, tagged

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.files import lock as output_lock
from ast_cli.report import ONE_RECORDING, open_writer
from ast_cli.results import Event, FileError, StreamedPart, Tag, TaggingResult, Window
from ast_cli.tagging.extract.table_journal import TableJournal
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.run.journal import Journal, open_journal
from ast_cli.tagging.run.journal_lines import Sidecars, is_finished, read_journal

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
FIRST = ("table", "json", "jsonl", "csv")


def open_output(output: Path, format_name: str = "jsonl", **changes: Any) -> Journal:
    return open_journal(output, format_name, FINGERPRINT, labels=LABELS, **changes)


def run(journal: Journal, items: Iterable[Input]) -> list[Input]:
    """Write a result for each pending input, and return these inputs."""
    done = []
    with journal:
        for item in journal.pending(items):
            journal.write(tagged(item), item)
            done.append(item)
    return done


def abandon(journal: Journal) -> None:
    """Close the files without writing an end, as a killed process does."""
    journal._is_in_place = True
    journal._release()


def start_and_kill(output: Path, format_name: str = "jsonl", num_done: int = 4) -> None:
    """Write the output of a run that is killed after some results."""
    journal = open_output(output, format_name)
    for item in inputs()[:num_done]:
        journal.write(tagged(item), item)
    abandon(journal)


def rendered(items: Iterable[Input], format_name: str = "jsonl") -> bytes:
    """Return the results as the writer of the format renders them without a journal: the reference of all tests."""
    stream = io.StringIO(newline="")
    writer = open_writer(format_name, stream, labels=LABELS)
    for item in items:
        writer.write(tagged(item))
    writer.close()
    return stream.getvalue().encode()


def names_beside(output: Path) -> list[str]:
    return sorted(file.name.removeprefix(output.name) for file in output.parent.iterdir())


@pytest.fixture(autouse=True)
def fsync_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace fsync: no test cuts the power, and many tests close files hundreds of times."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "tags.out"


# Writing and continuing


@pytest.mark.parametrize("format_name", MANY)
@pytest.mark.parametrize("num_inputs", [0, 1, 7])
def test_output_equals_that_of_the_writer(output: Path, format_name: str, num_inputs: int) -> None:
    assert run(open_output(output, format_name), inputs(num_inputs)) == inputs(num_inputs)
    assert output.read_bytes() == rendered(inputs(num_inputs), format_name)
    assert names_beside(output) == ["", ".ast-journal"]
    assert is_finished(Sidecars(output).journal)


@pytest.mark.parametrize("format_name", MANY)
@pytest.mark.parametrize("num_done", [0, 1, 2, 7])
def test_a_killed_run_is_continued_to_the_same_bytes(output: Path, format_name: str, num_done: int) -> None:
    start_and_kill(output, format_name, num_done)
    journal = open_output(output, format_name, resume=True)
    assert run(journal, inputs()) == inputs()[num_done:]
    assert journal.num_skipped == num_done
    assert output.read_bytes() == rendered(inputs(), format_name)
    assert names_beside(output) == ["", ".ast-journal"]


def test_table_with_columns_of_an_earlier_version_is_rendered_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ast_cli.report.comma_separated.COLUMNS", ("path", "start_s", "end_s"))
        start_and_kill(output, "csv")
    assert output.read_bytes() != rendered(inputs()[:4], "csv")
    run(open_output(output, "csv", resume=True), inputs())
    assert output.read_bytes() == rendered(inputs(), "csv")


@pytest.mark.parametrize("format_name", MANY)
def test_finished_run_can_be_continued_with_more_inputs(output: Path, format_name: str) -> None:
    run(open_output(output, format_name), inputs(3))
    assert run(open_output(output, format_name, resume=True), inputs()) == inputs()[3:]
    assert output.read_bytes() == rendered(inputs(), format_name)


def test_resuming_with_nothing_to_do_changes_nothing(output: Path) -> None:
    run(open_output(output, "json"), inputs())
    files = output.read_bytes(), Sidecars(output).journal.read_bytes()
    assert run(open_output(output, "json", resume=True), inputs()) == []
    assert (output.read_bytes(), Sidecars(output).journal.read_bytes()) == files


def test_resume_without_an_output_starts_a_run(output: Path) -> None:
    assert run(open_output(output, resume=True), inputs()) == inputs()
    assert output.read_bytes() == rendered(inputs())


def test_skipped_inputs_are_counted_by_outcome(output: Path) -> None:
    start_and_kill(output, num_done=5)
    with open_output(output, resume=True) as journal:
        assert list(journal.pending(inputs())) == inputs()[5:]
        assert journal.skipped == {"ok": 3, "not_audio": 2}
        assert journal.num_skipped == 5


def test_results_may_come_in_another_order_than_the_inputs(output: Path) -> None:
    with open_output(output) as journal:
        for item in reversed(list(journal.pending(inputs()))):
            journal.write(tagged(item), item)
    assert output.read_bytes() == rendered(reversed(inputs()))
    assert run(open_output(output, resume=True), inputs()) == []


@pytest.mark.parametrize("num_written", [6, 7])
def test_run_is_finished_when_every_input_has_a_result(output: Path, num_written: int) -> None:
    with open_output(output) as journal:
        for item in list(journal.pending(inputs()))[:num_written]:
            journal.write(tagged(item), item)
    assert is_finished(Sidecars(output).journal) == (num_written == 7)


def test_a_run_that_stops_early_is_not_finished(output: Path) -> None:
    with open_output(output) as journal:
        pending = journal.pending(inputs())
        item = next(pending)
        journal.write(tagged(item), item)
    assert not is_finished(Sidecars(output).journal)


def test_an_error_in_the_run_leaves_a_valid_output(output: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), open_output(output, "json") as journal:
        journal.write(tagged(inputs()[0]), inputs()[0])
        raise ZeroDivisionError
    assert output.read_bytes() == rendered(inputs(1), "json")
    assert names_beside(output) == ["", ".ast-journal"]


def test_interrupt_during_the_first_result_leaves_an_empty_list(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_output(output, "json") as journal:
        journal._put_in_place()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", raising(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                journal.write(tagged(inputs()[0]), inputs()[0])
    assert json.loads(output.read_bytes()) == []


# Refusals


def test_existing_output_is_refused_without_resume_or_force(output: Path) -> None:
    run(open_output(output), inputs(2))
    with pytest.raises(UsageError, match=r"exists: --resume continues it, --force replaces it"):
        open_output(output)
    output.unlink()  # the journal alone is refused too
    with pytest.raises(UsageError, match=r"exists: --resume"):
        open_output(output)
    assert names_beside(output) == [".ast-journal"]


def test_contradicting_options_are_refused(output: Path) -> None:
    with pytest.raises(UsageError, match="choose one"):
        open_output(output, resume=True, force=True)
    with pytest.raises(UsageError, match="it needs --resume"):
        open_output(output, retry_errors=True)


def test_an_output_without_a_journal_cannot_be_continued(output: Path) -> None:
    output.write_bytes(rendered(inputs(2)))
    with pytest.raises(UsageError, match="has no journal beside it"):
        open_output(output, resume=True)
    assert output.read_bytes() == rendered(inputs(2))


def test_error_of_other_settings_names_them(output: Path) -> None:
    start_and_kill(output)
    others = FINGERPRINT | {"top_k": 3, "hop_s": 5.0}
    with pytest.raises(
        UsageError, match=r"--hop was not given and is now 5.0; --top-k was 5 and is now 3; --resume needs"
    ):
        open_journal(output, "jsonl", others, resume=True)
    with pytest.raises(UsageError, match="other settings: --shard was not given and is now 1/2; --resume needs"):
        open_output(output, resume=True, shard=(1, 2))
    assert run(open_output(output, resume=True), inputs()) == inputs()[4:]


def test_only_nested_settings_that_differ_are_named(output: Path) -> None:
    old: dict[str, Any] = {"labels": ["a"] * 100, "options": {"top_k": 5, "hop_s": None}}
    new = {"labels": ["a"] * 99 + ["b"], "options": {"top_k": 3, "hop_s": None}}
    run(open_journal(output, "jsonl", old), inputs(1))
    with pytest.raises(UsageError, match=r"other settings: --model was another; --top-k was 5 and is now 3; --resume"):
        open_journal(output, "jsonl", new, resume=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"events": False}, {"events": True}, "--events was not given and is now given;"),
        ({"labels": []}, {"labels": ["Rain", "Speech"]}, "--labels was not given and is now Rain, Speech;"),
        ({"thresholds": []}, {"thresholds": [["Rain", 0.5]]}, "--thresholds was another;"),
        ({"start_s": 0.0}, {"start_s": 60.0}, "--start was 0.0 and is now 60.0;"),
    ],
)
def test_difference_is_described_by_flag_and_values(
    output: Path, old: dict[str, Any], new: dict[str, Any], message: str
) -> None:
    run(open_journal(output, "jsonl", {"options": old}), inputs(1))
    with pytest.raises(UsageError) as raised:
        open_journal(output, "jsonl", {"options": new}, resume=True)
    assert message in str(raised.value)


def test_option_unknown_to_the_earlier_version_counts_as_not_given(output: Path) -> None:
    run(open_journal(output, "jsonl", {"options": {}}), inputs(1))
    with open_journal(output, "jsonl", {"options": {"events": False, "labels": [], "top_k": None}}, resume=True):
        pass


def test_settings_are_compared_in_their_json_form(output: Path) -> None:
    start_and_kill(output)
    as_tuple = FINGERPRINT | {"labels": ("Speech", "Music")}
    with open_journal(output, "jsonl", as_tuple, resume=True) as journal:
        assert journal.header.fingerprint == FINGERPRINT


@POSIX
def test_pipe_has_no_journal_and_cannot_be_resumed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        run(open_output(pipe, "json"), inputs(3))
        assert reader.communicate(timeout=30)[0] == rendered(inputs(3), "json")
    assert names_beside(pipe) == [""]
    with pytest.raises(UsageError, match="not a regular file"):
        open_output(pipe, resume=True)


# Other formats, changed files, failures to redo


@pytest.mark.parametrize(
    ("old", "new"),
    [(old, new) for old in FIRST for new in FIRST] + [("jsonl", new) for new in MANY if new not in FIRST],
)
def test_the_output_is_rendered_again_in_another_format(output: Path, old: str, new: str) -> None:
    start_and_kill(output, old)
    assert run(open_output(output, new, resume=True), inputs()) == inputs()[4:]
    assert output.read_bytes() == rendered(inputs(), new)
    assert run(open_output(output, old, resume=True), inputs()) == []
    assert output.read_bytes() == rendered(inputs(), old)
    assert names_beside(output) == ["", ".ast-journal"]


@pytest.mark.parametrize("format_name", MANY)
def test_failed_inputs_are_redone_with_retry_errors(output: Path, format_name: str) -> None:
    run(open_output(output, format_name), inputs())
    assert run(open_output(output, format_name, resume=True), inputs()) == []
    failed = [inputs()[number] for number in FAILED]
    assert run(open_output(output, format_name, resume=True, retry_errors=True), inputs()) == failed
    good = [item for item in inputs() if item not in failed]
    assert output.read_bytes() == rendered([*good, *failed], format_name)


@pytest.mark.parametrize("format_name", ONE_RECORDING)
def test_a_file_of_one_recording_takes_no_second_one(output: Path, format_name: str) -> None:
    first, failed = inputs(2)
    assert run(open_output(output, format_name), [first]) == [first]
    assert run(open_output(output, format_name, resume=True), [first]) == []
    assert output.read_bytes() == rendered([first], format_name)
    with pytest.raises(UsageError, match=r"one recording, not /nowhere/0\.wav and /nowhere/1\.wav"):
        run(open_output(output, format_name, resume=True), [first, failed])
    assert output.read_bytes() == rendered([first], format_name)
    assert run(open_output(output, "csv", resume=True), [first]) == []
    assert output.read_bytes() == rendered([first], "csv")


def test_results_without_a_text_are_rendered_again_too(output: Path) -> None:
    silent = dataclasses.replace(tagged(inputs()[0]), events=())
    with open_output(output, "audacity") as journal:
        journal.write(silent, inputs()[0])
    assert output.read_bytes() == b""
    open_output(output, "jsonl", resume=True).close()
    assert json.loads(output.read_text()) == silent.to_dict()


def test_a_numbered_format_is_up_to_date_after_a_failed_write(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_output(output, "raven") as journal:
        journal.write(tagged(inputs()[0]), inputs()[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", raising(full_disk()))
            with pytest.raises(AstError, match="No space left"):
                journal.write(tagged(inputs()[2]), inputs()[2])
        journal.write(tagged(inputs()[3]), inputs()[3])
    assert output.read_bytes() == rendered([inputs()[0], inputs()[3]], "raven")


def test_failed_inputs_that_are_not_named_again_keep_their_records(output: Path) -> None:
    run(open_output(output), inputs())
    named = [inputs()[FAILED[0]], inputs()[0]]
    journal = open_output(output, resume=True, retry_errors=True)
    assert run(journal, named) == named[:1]
    assert journal.num_skipped == 1
    rest = [item for item in inputs() if item != named[0]]
    assert output.read_bytes() == rendered([*rest, named[0]])


@pytest.mark.parametrize("change", ["size", "mtime", "none"])
def test_changed_file_is_redone_and_its_old_result_removed(output: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    items = [Input(str(folder / f"{number}.wav")) for number in range(5)]
    for item in items:
        Path(item.path).write_bytes(b"old")
    run(open_output(output), items)
    changed, status = Path(items[2].path), os.stat(items[2].path)
    if change == "size":
        changed.write_bytes(b"newer")
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "mtime":
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    redone = [] if change == "none" else [items[2]]
    assert run(open_output(output, resume=True), items) == redone
    assert output.read_bytes() == rendered([item for item in items if item not in redone] + redone)
    assert run(open_output(output, resume=True), items) == []


@pytest.mark.parametrize("format_name", MANY)
def test_results_of_files_on_an_unmounted_disk_stay(output: Path, tmp_path: Path, format_name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    items = [Input(str(disk / f"{number}.wav")) for number in range(5)]
    for item in items:
        Path(item.path).write_bytes(b"old")
    run(open_output(output, format_name), items)
    before = output.read_bytes()
    disk.rename(tmp_path / "elsewhere")
    for retry_errors in (False, True):
        journal = open_output(output, format_name, resume=True, retry_errors=retry_errors)
        failed = [item for item in items if tagged(item).error is not None]
        assert run(journal, items) == (failed if retry_errors else [])
        assert len(output.read_bytes()) == len(before)
    (tmp_path / "elsewhere").rename(disk)
    Path(items[0].path).write_bytes(b"newer")
    assert items[0] in run(open_output(output, format_name, resume=True), items)


def test_a_file_that_changes_while_it_is_read_is_redone_next_time(output: Path, tmp_path: Path) -> None:
    file = tmp_path / "1.wav"
    file.write_bytes(b"old")
    with open_output(output) as journal:
        (item,) = journal.pending([Input(str(file))])
        file.write_bytes(b"newer")
        journal.write(tagged(item), item)
    assert run(open_output(output, resume=True), [item]) == [item]


def test_inputs_are_identified_by_real_path_under_any_name(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0.wav").write_bytes(b"audio")
    (tmp_path / "1.wav").symlink_to("0.wav")
    os.link(tmp_path / "0.wav", tmp_path / "2.wav")  # a file of its own
    monkeypatch.chdir(tmp_path)
    run(open_output(output), [Input("0.wav")])
    items = [Input(str(tmp_path / name)) for name in ("0.wav", "1.wav", "2.wav")]
    assert run(open_output(output, resume=True), items) == items[2:]


@POSIX
def test_unusual_names_are_kept_exactly(output: Path, tmp_path: Path) -> None:
    names = ["1\n.wav", "1\udcff.wav", "1\t\x1b[2J.wav", "=1.wav", '1".wav', "1ü.wav", "1ü.wav"]
    items = [Input(os.path.join(tmp_path, name)) for name in names] + [Input(STDIN)]
    results = [dataclasses.replace(tagged(inputs()[0]), path=item.path) for item in items]
    with open_output(output, "csv") as journal:
        for item, result in zip(journal.pending(items), results, strict=True):
            journal.write(result, item)
    with open_output(output, "jsonl", resume=True) as journal:
        assert list(journal.pending(items)) == []
    assert [TaggingResult.from_dict(json.loads(line)) for line in output.read_bytes().splitlines()] == results


def test_every_field_of_a_result_is_read_back() -> None:
    tag = Tag("Speech", 0, "/m/09x0r", 0.5)
    full = TaggingResult(
        "x.wav", "builtin", "softmax", 1.5, 8000, 1, (tag,), (Window(0.0, 1.0, (tag,)), Window(0.5, 1.5, ())),
        (Event("Speech", 0, None, 0.0, 1.5, 0.5, 0.75),), ("too_short",),
    )  # fmt: skip
    failed = TaggingResult("x.wav", "builtin", "none", error=FileError(ErrorCode.NOT_AUDIO, "x.wav: is no audio"))
    for result in (full, failed, TaggingResult(None, "builtin", "sigmoid", windows=(), events=())):
        assert TaggingResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


# Windows and events before the result of their file


def test_windows_of_an_unfinished_input_are_cut_off(output: Path) -> None:
    first, second = inputs(2)
    part = StreamedPart(first.path, Window(0.0, 1.0, ()))
    journal = open_output(output)
    journal.write(part, first)
    assert json.loads(output.read_bytes())["type"] == "window"  # written before the file ends
    journal.write(tagged(first), first)
    journal.write(StreamedPart(second.path, Window(0.0, 1.0, ())), second)
    abandon(journal)
    kept = (json.dumps(part.to_dict()) + "\n").encode() + rendered([first])
    assert output.read_bytes().startswith(kept)
    assert len(output.read_bytes()) > len(kept)
    assert run(open_output(output, resume=True), inputs(2)) == [second]
    assert output.read_bytes() == kept + rendered([second])


def test_windows_are_removed_with_their_result(output: Path) -> None:
    first, second = inputs(2)
    with open_output(output) as journal:
        for item in journal.pending([first, second]):
            journal.write(StreamedPart(item.path, Window(0.0, 1.0, ())), item)
            journal.write(tagged(item), item)
    lines = output.read_bytes().splitlines(keepends=True)
    assert run(open_output(output, resume=True, retry_errors=True), [first, second]) == [second]
    assert output.read_bytes() == b"".join(lines[:2]) + rendered([second])
    open_output(output, "csv", resume=True).close()
    assert output.read_bytes() == rendered([first, second], "csv")


# Damage


def torn(data: bytes, num_last: int) -> Iterator[bytes]:
    """Yield all forms in which an interruption can leave the last bytes of a file."""
    for num_kept in range(len(data) - num_last, len(data)):
        yield data[:num_kept]
        yield data[:num_kept] + b"\0" * (len(data) - num_kept)
    yield data + b"\0" * 5000
    yield data + b'{"schema_version": 1, "ty'


@pytest.mark.parametrize("format_name", ["jsonl", "json"])
def test_a_tail_torn_anywhere_is_cut_off_and_written_again(output: Path, format_name: str) -> None:
    start_and_kill(output, format_name)
    whole, journal, expected = output.read_bytes(), Sidecars(output).journal, rendered(inputs(), format_name)
    lines = journal.read_bytes()
    last = len(rendered(inputs()[3:4]))
    for number, content in enumerate(torn(whole, last)):
        output.write_bytes(content)
        journal.write_bytes(lines)
        redone = run(open_output(output, format_name, resume=True), inputs())
        assert redone == inputs()[4 if number >= 2 * last else 3 :]
        assert output.read_bytes() == expected


def test_a_torn_last_line_of_the_journal_is_redone(output: Path) -> None:
    start_and_kill(output)
    whole, journal = output.read_bytes(), Sidecars(output).journal
    lines = journal.read_bytes()
    last = len(lines.splitlines(keepends=True)[-1])
    for number, content in enumerate(torn(lines, last)):
        output.write_bytes(whole)
        journal.write_bytes(content)
        assert run(open_output(output, resume=True), inputs()) == inputs()[4 if number >= 2 * last else 3 :]
        assert output.read_bytes() == rendered(inputs())


def test_missing_output_is_written_again(output: Path) -> None:
    run(open_output(output), inputs())
    for remove in (output.unlink, lambda: output.write_bytes(b"")):
        remove()
        assert run(open_output(output, resume=True), inputs()) == inputs()
        assert output.read_bytes() == rendered(inputs())


@pytest.mark.parametrize("format_name", MANY)
@pytest.mark.parametrize("line", [2, 3])
def test_error_of_damage_in_the_output_names_the_line(output: Path, format_name: str, line: int) -> None:
    start_and_kill(output, format_name)
    lines = output.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b"wav", b"waw").replace(b"label", b"lapel")
    output.write_bytes(b"".join(lines))
    before = output.read_bytes()
    with pytest.raises(AstError, match=r"tags\.out: line \d+ is damaged or was changed by hand") as caught:
        open_output(output, format_name, resume=True)
    named = int(str(caught.value).split("line ")[1].split()[0])
    assert named == line if format_name in ("json", "jsonl") else named <= line  # the first row of the input
    assert output.read_bytes() == before
    assert names_beside(output) == ["", ".ast-journal"]


def test_edited_last_line_counts_as_damage_and_not_as_torn(output: Path) -> None:
    start_and_kill(output)
    output.write_bytes(output.read_bytes().replace(b"3.wav", b"x.wav"))
    with pytest.raises(AstError, match="line 4 is damaged"):
        open_output(output, resume=True)


@pytest.mark.parametrize("line", [1, 2, 3, 5])
@pytest.mark.parametrize("damage", [b"\n", b"[]\n", b"{}\n", b'{"key"\n', b"\0\0\0\0\n"])
def test_error_of_damage_in_the_journal_names_the_line(output: Path, line: int, damage: bytes) -> None:
    start_and_kill(output)
    journal = Sidecars(output).journal
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[line - 1] = damage
    journal.write_bytes(b"".join(lines))
    with pytest.raises(AstError, match=rf"tags\.out\.ast-journal: line {line} is damaged; --force starts over"):
        open_output(output, resume=True)
    assert run(open_output(output, force=True), inputs()) == inputs()


def test_a_journal_of_a_later_version_is_refused(output: Path) -> None:
    start_and_kill(output)
    journal = Sidecars(output).journal
    journal.write_bytes(journal.read_bytes().replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(AstError, match="line 1"):
        open_output(output, resume=True)


# Failures of the disk


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_arguments: object, **_options: object) -> Any:
        raise error

    return fail


class Fault:
    """Lets a number of system calls pass, and makes the next one fail, or all following ones."""

    def __init__(self, patch: pytest.MonkeyPatch, names: str, num_good: int, error: BaseException, forever: bool):
        self.num_left = num_good
        self.error = error
        self.forever = forever
        for name in names.split():
            patch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.num_left -= 1
            if self.num_left == -1 or (self.forever and self.num_left < 0):
                raise self.error
            return call(*arguments, **options)

        return guarded


def failure_of(call: Callable[[], object]) -> AstError | None:
    try:
        call()
    except AstError as error:
        return error
    return None


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def whole_records(output: Path, format_name: str) -> list[dict[str, Any]]:
    """Return the records in a file, all of which must parse."""
    if not output.exists():
        return []
    text = output.read_text()
    if format_name == "json":
        text = text.removeprefix("[").rstrip().removesuffix("]").replace("},\n{", "}\n{").strip()
    assert not text or text.endswith("\n") or format_name == "json"
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("format_name", ["jsonl", "json"])
@pytest.mark.parametrize("forever", [False, True])
def test_full_disk_at_any_write_is_an_error_and_written_records_stay_complete(
    output: Path, format_name: str, forever: bool
) -> None:
    items, num_failures = inputs(20), 0
    for num_good in range(50):
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, "write fsync replace", num_good, full_disk(), forever)
            failure = failure_of(lambda: run(open_output(output, format_name), items))
        if failure is not None:
            num_failures += 1
            assert re.search(r"tags\.out.*: cannot be written \(No space left on device\)", str(failure))
        records = whole_records(output, format_name)
        assert [record["path"] for record in records] == [item.path for item in items[: len(records)]]
        run(open_output(output, format_name, resume=True), items)
        assert output.read_bytes() == rendered(items, format_name)
        assert names_beside(output) == ["", ".ast-journal"]
        for file in output.parent.iterdir():
            file.unlink()
    # 20 results take 2 writes each, beginning and end 8 to 10 calls; a failed sync of the folder is ignored.
    assert num_failures >= 46


@pytest.mark.parametrize("num_good", range(8))
def test_a_full_disk_at_the_beginning_leaves_an_old_output_in_place(
    output: Path, num_good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = rendered(inputs(3), "csv")
    output.write_bytes(old)
    with monkeypatch.context() as patch:
        Fault(patch, "write fsync", num_good, full_disk(), forever=True)
        with pytest.raises(AstError, match="No space left"):
            run(open_output(output, force=True), inputs())
    # Before the replacement come the lock's content, the journal's header, a result's text and line, and two syncs.
    if num_good < 6:
        assert (output.read_bytes(), names_beside(output)) == (old, [""])
    else:
        assert whole_records(output, "jsonl") == [json.loads(line) for line in rendered(inputs(1)).splitlines()]


def test_force_keeps_the_old_output_until_the_first_result(output: Path) -> None:
    run(open_output(output, "csv"), inputs(3))
    with pytest.raises(ZeroDivisionError), open_output(output, force=True):
        raise ZeroDivisionError
    assert output.read_bytes() == rendered(inputs(3), "csv")
    assert run(open_output(output, "csv", resume=True), inputs(3)) == []
    with open_output(output, force=True) as journal:
        assert output.read_bytes() == rendered(inputs(3), "csv")
        journal.write(tagged(inputs()[5]), inputs()[5])
        assert output.read_bytes() == rendered(inputs()[5:6])
    assert names_beside(output) == ["", ".ast-journal"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_device_gives_a_one_line_error() -> None:
    with pytest.raises(AstError, match=r"^/dev/full: cannot be written \(No space left on device\)$"):
        run(open_output(Path("/dev/full")), inputs())
    with pytest.raises(UsageError, match="not a regular file"):
        open_output(Path("/dev/full"), resume=True)


@POSIX
def test_run_stopped_by_a_file_size_limit_can_be_resumed(output: Path) -> None:
    program = CHILD.replace("# BEGIN", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))")
    done = subprocess.run(
        [sys.executable, "-c", program, str(output), "20"],
        input=b"\n" * 20,
        capture_output=True,
        timeout=60,
        check=False,
        env=CHILD_ENVIRONMENT,
    )
    assert done.returncode == 1
    assert b"cannot be written (File too large)" in done.stderr
    records = whole_records(output, "jsonl")
    assert 0 < len(records) < 20
    assert run(open_output(output, resume=True), inputs(20)) == inputs(20)[len(records) :]
    assert output.read_bytes() == rendered(inputs(20))


@POSIX
def test_folder_that_is_missing_or_read_only_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AstError, match=r"gone/tags\.jsonl.* cannot be written \(No such file or directory\)"):
        open_output(tmp_path / "gone" / "tags.jsonl")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(AstError, match=r"cannot be written \(Permission denied\)"):
        open_output(tmp_path / "tags.jsonl")


def test_a_write_that_failed_can_be_tried_again(output: Path) -> None:
    with open_output(output) as journal:
        for item in journal.pending(inputs()):
            for num_good in range(2):  # the text or the journal's line
                with pytest.MonkeyPatch.context() as patch:
                    Fault(patch, "write", num_good, full_disk(), forever=True)
                    assert failure_of(lambda item=item: journal.write(tagged(item), item))
            journal.write(tagged(item), item)
    assert output.read_bytes() == rendered(inputs())
    assert run(open_output(output, resume=True), inputs()) == []


@pytest.mark.parametrize("option", ["resume", "force"])
def test_files_of_an_interrupted_replacement_are_removed(output: Path, option: str) -> None:
    start_and_kill(output)  # generation 1
    names = Sidecars(output)
    for file in (names.new_output(2), names.new_journal):
        file.write_text("torn")
    if option == "force":  # a replacement that was interrupted between the two files
        names.new_output(1).write_text("torn")
    done = run(open_output(output, **{option: True}), inputs())
    assert len(done) == (3 if option == "resume" else 7)
    assert output.read_bytes() == rendered(inputs())
    assert names_beside(output) == ["", ".ast-journal"]


class Killed(BaseException):
    """Stands for SIGKILL: every system call after it fails."""


@pytest.mark.parametrize(("old", "new"), [("jsonl", "jsonl"), ("jsonl", "csv"), ("json", "jsonl")])
def test_kill_at_any_system_call_loses_and_repeats_no_result(output: Path, old: str, new: str) -> None:
    items, calls = inputs(5), "write fsync replace ftruncate unlink"
    good = [item for item in items if int(Path(item.path).stem) not in FAILED]
    expected = rendered([*good, items[1], items[4]], new)
    for num_good in range(200):
        run(open_output(output, old), items[:4])
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, calls, num_good, Killed(), forever=True)
            with contextlib.suppress(Killed):
                run(open_output(output, new, resume=True, retry_errors=True), items)
        run(open_output(output, new, resume=True, retry_errors=True), items)
        lines = output.read_bytes()
        run(open_output(output, new, resume=True), items)
        assert output.read_bytes() == lines
        assert sorted(lines.splitlines()) == sorted(expected.splitlines())
        assert names_beside(output) == ["", ".ast-journal"]
        for file in output.parent.iterdir():
            file.unlink()
        if fault.num_left >= 0:  # the run ended before the fault
            return
    pytest.fail("the run never ended")


# Other processes

CHILD = """
import sys
from pathlib import Path
# BEGIN
from ast_cli.errors import AstError
from ast_cli.tagging.run.journal import open_journal
from journalled import FINGERPRINT, inputs, tagged
try:
    with open_journal(Path(sys.argv[1]), "jsonl", FINGERPRINT, resume=True) as journal:
        print("open", flush=True)
        for item in journal.pending(inputs(int(sys.argv[2]))):
            if not sys.stdin.readline():
                break
            journal.write(tagged(item), item)
            print(item.path, flush=True)
except AstError as error:
    sys.exit(str(error))
"""
CHILD_ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}


def start_child(output: Path, num_inputs: int) -> subprocess.Popen[str]:
    """Start a run in a child process that writes a result for each line that it receives."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(output), str(num_inputs)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CHILD_ENVIRONMENT,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n", child.communicate()
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    with contextlib.suppress(BrokenPipeError):
        child.communicate(timeout=30)


@POSIX
def test_fifteen_kills_at_random_moments_lose_and_repeat_no_result(output: Path) -> None:
    chance, num_inputs, num_known = random.Random(15), 300, 0
    for _ in range(15):
        child = start_child(output, num_inputs)
        assert child.stdin is not None
        assert child.stdout is not None
        num_sent = chance.randint(1, 30)
        child.stdin.write("\n" * num_sent)
        child.stdin.flush()
        written = [child.stdout.readline() for _ in range(chance.randint(0, num_sent))]
        kill(child)
        assert child.returncode == -signal.SIGKILL
        num_now = len(list(read_journal(Sidecars(output).journal)[1])) if output.exists() else 0
        assert num_now >= num_known + len(written)  # at most the results being written are redone
        num_known = num_now
    todo = run(open_output(output, resume=True), inputs(num_inputs))
    assert 0 < len(todo) == num_inputs - num_known
    assert output.read_bytes() == rendered(inputs(num_inputs))
    assert is_finished(Sidecars(output).journal)


@POSIX
def test_a_second_run_stops_at_once_and_names_the_first(output: Path) -> None:
    child = start_child(output, 3)
    try:
        for options in ({"resume": True}, {"force": True}, {}):
            with pytest.raises(AstError, match=rf"written by another run \(process {child.pid} on \S+\): wait for it"):
                open_output(output, **options)
    finally:
        kill(child)
    assert Sidecars(output).lock.exists()
    assert run(open_output(output, resume=True), inputs()) == inputs()  # the dead run's lock is free
    assert not Sidecars(output).lock.exists()


@pytest.mark.parametrize("options", [{}, {"resume": True}])
def test_a_start_that_fails_releases_the_lock(output: Path, options: dict[str, bool]) -> None:
    run(open_output(output), inputs())
    Sidecars(output).journal.write_bytes(b"damaged\n")
    with pytest.raises(AstError):
        open_output(output, **options)
    assert not Sidecars(output).lock.exists()
    table = TableJournal(output, "csv", FINGERPRINT, b"path\n")
    with pytest.raises(AstError):
        table.open(**{"resume": False, "force": False, **options})
    assert not Sidecars(output).lock.exists()


@POSIX
def test_lock_on_a_removed_lock_file_is_not_accepted(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, try_lock, calls = Sidecars(output).lock, output_lock._try_lock, []

    def try_late(descriptor: int) -> bool:
        calls.append(descriptor)
        if len(calls) < 3:
            lock.unlink()
        if len(calls) == 2:
            lock.touch()  # by a third run
        return try_lock(descriptor)

    monkeypatch.setattr(output_lock, "_try_lock", try_late)
    with open_output(output):
        assert len(calls) == 3
        assert lock.read_text().startswith(f"process {os.getpid()} on ")


def test_second_run_in_the_same_process_is_refused(output: Path) -> None:
    with open_output(output) as journal:
        with pytest.raises(AstError, match="is already being written by this process"):
            open_output(output, force=True)
        journal.write(tagged(inputs()[0]), inputs()[0])
    assert run(open_output(output, resume=True), inputs(2)) == inputs(2)[1:]


def test_journal_names_the_inputs_that_are_done(output: Path, tmp_path: Path) -> None:
    file = tmp_path / "0.wav"
    file.write_bytes(b"audio")
    run(open_output(output, shard=(1, 3)), [Input(str(file)), *inputs(2)[1:]])
    header, entries = read_journal(Sidecars(output).journal)
    assert (header.format_name, header.fingerprint, header.shard) == ("jsonl", FINGERPRINT, (1, 3))
    found = [(entry.key.path, entry.key.size, entry.key.mtime_ns, entry.outcome) for entry in entries]
    mtime_ns = file.stat().st_mtime_ns
    assert found == [(str(file.resolve()), 5, mtime_ns, "ok"), ("/nowhere/1.wav", None, None, "not_audio")]
