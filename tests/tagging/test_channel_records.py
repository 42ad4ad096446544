"""Inputs with a record for each channel: the records are written, resumed, rendered and merged together."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from journalled import FAILED, FINGERPRINT, LABELS, MANY, inputs, tagged

from ast_cli.errors import AstError
from ast_cli.report import open_writer
from ast_cli.results import StreamedPart, TaggingResult, Window
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.run.journal import Journal, open_journal
from ast_cli.tagging.run.journal_lines import Sidecars
from ast_cli.tagging.run.matches import MatchSelection
from ast_cli.tagging.run.merge import merge_outputs

NUM_CHANNELS = 3
PART = Window(0.0, 1.0, ())


def by_channel(item: Input) -> TaggingResult:
    """Return the result of an input with three channels, or the error of one that cannot be read."""
    result = tagged(item)
    if result.error is not None:
        return result
    channels = [
        dataclasses.replace(result, channel=number, tags=result.tags[: number - 1])
        for number in range(1, NUM_CHANNELS + 1)
    ]
    return TaggingResult.from_channels(channels)


def begin(output: Path, format_name: str, *, resume: bool = False, retry_errors: bool = False) -> Journal:
    changes = {"resume": resume, "retry_errors": retry_errors, "has_channels": True}
    return open_journal(output, format_name, FINGERPRINT, labels=LABELS, **changes)


def run(journal: Journal, items: Iterable[Input], *, stream: bool = False) -> list[Input]:
    done = []
    with journal:
        for item in journal.pending(items):
            for number in range(1, NUM_CHANNELS + 1) if stream else ():
                journal.write(StreamedPart(item.path, PART, number), item)
            journal.write(by_channel(item), item)
            done.append(item)
    return done


def kill(journal: Journal) -> None:
    """Let go of the files without a last word, as a killed process does."""
    journal._is_in_place = True
    journal._release()


def rendered(items: Iterable[Input], format_name: str) -> bytes:
    """Return what the format's writer makes of the results without any journal."""
    stream = io.StringIO(newline="")
    writer = open_writer(format_name, stream, has_channels=True, labels=LABELS)
    for item in items:
        writer.write(by_channel(item))
    writer.close()
    return stream.getvalue().encode()


def test_result_of_channels_is_read_back() -> None:
    for item in inputs(2):
        result = by_channel(item)
        assert TaggingResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_result_with_channels_has_tags_only_in_its_channels() -> None:
    result = by_channel(inputs()[2])
    assert (result.tags, result.channel, result.error, result.duration_s) == ((), None, None, 12.0)
    assert [channel.channel for channel in result.records] == [1, 2, 3]
    failed = by_channel(inputs()[FAILED[0]])
    assert failed.records == (failed,)


@pytest.mark.parametrize("format_name", MANY)
@pytest.mark.parametrize("num_done", [0, 1, 3])
def test_killed_run_is_continued_to_the_same_bytes(tmp_path: Path, format_name: str, num_done: int) -> None:
    output = tmp_path / "tags"
    journal = begin(output, format_name)
    for item in inputs()[:num_done]:
        journal.write(by_channel(item), item)
    kill(journal)
    assert run(begin(output, format_name, resume=True), inputs()) == inputs()[num_done:]
    assert output.read_bytes() == rendered(inputs(), format_name)


@pytest.mark.parametrize("num_bytes", [1, 50, 400, 700])
def test_input_with_some_of_its_channels_written_is_tagged_again(tmp_path: Path, num_bytes: int) -> None:
    output = tmp_path / "tags.jsonl"
    run(begin(output, "jsonl"), inputs(3))
    whole = output.read_bytes()
    num_last = len(rendered(inputs(3)[2:], "jsonl"))
    assert num_bytes < num_last
    output.write_bytes(whole[:-num_bytes])  # into the last channel, or before it
    assert run(begin(output, "jsonl", resume=True), inputs(3)) == inputs(3)[2:]
    assert output.read_bytes() == whole


@pytest.mark.parametrize("old", MANY)
@pytest.mark.parametrize("new", MANY)
def test_output_is_rendered_again_in_another_format(tmp_path: Path, old: str, new: str) -> None:
    output = tmp_path / "tags"
    run(begin(output, old), inputs()[:4])
    assert run(begin(output, new, resume=True), inputs()) == inputs()[4:]
    assert output.read_bytes() == rendered(inputs(), new)
    assert run(begin(output, old, resume=True), inputs()) == []
    assert output.read_bytes() == rendered(inputs(), old)


def test_failed_inputs_are_redone_and_the_others_keep_all_channels(tmp_path: Path) -> None:
    output = tmp_path / "tags.csv"
    run(begin(output, "csv"), inputs())
    failed = [inputs()[number] for number in FAILED]
    assert run(begin(output, "csv", resume=True, retry_errors=True), inputs()) == failed
    assert output.read_bytes() == rendered([*(item for item in inputs() if item not in failed), *failed], "csv")


def test_streamed_windows_name_their_channel_and_are_dropped_in_another_format(tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    run(begin(output, "jsonl"), inputs(1), stream=True)
    records = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [(record["type"], record["channel"]) for record in records] == [
        ("window", 1), ("window", 2), ("window", 3), ("file", 1), ("file", 2), ("file", 3),
    ]  # fmt: skip
    run(begin(output, "json", resume=True), inputs(1))
    assert output.read_bytes() == rendered(inputs(1), "json")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("journals", [False, True])
@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
def test_parts_are_merged_input_by_input(tmp_path: Path, format_name: str, journals: bool, stream: bool) -> None:
    stream = stream and format_name == "jsonl"
    parts = [tmp_path / f"{number}.{format_name}" for number in range(2)]
    for part, items in zip(parts, (inputs()[:4], inputs()[4:]), strict=True):
        run(begin(part, format_name), items, stream=stream)
        if not journals:
            Sidecars(part).journal.unlink()
    merged = tmp_path / f"merged.{format_name}"
    report = merge_outputs(parts, merged)
    assert (report.num_ok, report.num_failed) == (len(inputs()) - len(FAILED), len(FAILED))
    first, second = (part.read_bytes() for part in parts)
    assert merged.read_bytes() == first + (second[second.index(b"\n") + 1 :] if format_name == "csv" else second)


@pytest.mark.parametrize("journals", [False, True])
def test_input_in_two_parts_is_an_error(tmp_path: Path, journals: bool) -> None:
    parts = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for part in parts:
        run(begin(part, "jsonl"), inputs()[2:4])
        if not journals:
            Sidecars(part).journal.unlink()
    with pytest.raises(AstError, match=r"2\.wav occurs twice: .*0\.jsonl line \d, .*1\.jsonl line \d"):
        merge_outputs(parts, tmp_path / "merged.jsonl")


def test_repeated_channels_of_an_input_are_an_error(tmp_path: Path) -> None:
    part = tmp_path / "tags.jsonl"
    text = rendered(inputs()[2:3], "jsonl")
    for twice in (text + text, text.splitlines(keepends=True)[1] * 2):
        part.write_bytes(twice)
        with pytest.raises(AstError, match=r"2\.wav occurs twice"):
            merge_outputs([part], tmp_path / "merged.jsonl")


def test_error_while_channels_are_written_leaves_complete_inputs(tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    first, _, third = inputs(3)
    good = by_channel(third)
    no_json = dataclasses.replace(good.channels[2], duration_s=float("nan"))
    with begin(output, "jsonl") as journal:
        journal.write(by_channel(first), first)
        with pytest.raises(ValueError, match="JSON"):
            journal.write(TaggingResult.from_channels([*good.channels[:2], no_json]), third)
        assert output.read_bytes() == rendered([first], "jsonl")
        journal.write(good, third)
    assert output.read_bytes() == rendered([first, third], "jsonl")


def tagged_channels(*num_tags: int) -> TaggingResult:
    """Return a result of one channel per number, each with so many tags."""
    one = by_channel(inputs()[2]).channels[2]
    tags = tagged(inputs()[2]).tags
    return TaggingResult.from_channels(
        [dataclasses.replace(one, channel=i, tags=tags[:number]) for i, number in enumerate(num_tags, start=1)]
    )


def test_only_channels_that_match_are_reported() -> None:
    select = MatchSelection(ClassifyOptions(threshold=0.5, channels="each"))
    result = tagged_channels(1, 0, 2)
    selected = select(result)
    assert isinstance(selected, TaggingResult)
    assert selected.channels == (result.channels[0], result.channels[2])
    assert select(tagged_channels(0, 0)) is None
    failed = by_channel(inputs()[FAILED[0]])
    assert select(failed) is failed


def test_channel_whose_windows_were_streamed_is_reported() -> None:
    select = MatchSelection(ClassifyOptions(threshold=0.5, channels="each", stream=True, timestamps=True))
    result = tagged_channels(0, 0, 0)
    part = StreamedPart(result.path, Window(0.0, 1.0, tagged(inputs()[2]).tags), 2)
    assert select(part) is part
    selected = select(result)
    assert isinstance(selected, TaggingResult)
    assert [channel.channel for channel in selected.channels] == [2]
    assert select(result) is None  # of another input


@pytest.mark.parametrize("journals", [False, True])
def test_inputs_with_some_of_their_channels_are_merged_and_resumed(tmp_path: Path, journals: bool) -> None:
    part = tmp_path / "tags.jsonl"
    first, second = inputs()[2:4]
    few = tagged_channels(1, 0, 2)
    few = TaggingResult.from_channels([few.channels[0], few.channels[2]])
    with begin(part, "jsonl") as journal:
        assert list(journal.pending([first, second])) == [first, second]
        journal.write(few, first)
        journal.write(by_channel(second), second)
    with begin(part, "jsonl", resume=True) as journal:
        assert list(journal.pending([first, second])) == []
    if not journals:
        Sidecars(part).journal.unlink()
    assert merge_outputs([part], tmp_path / "merged.jsonl").num_files == 2
