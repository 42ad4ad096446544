"""Runs that report only inputs that match: the journal contains all inputs, the output only those that match."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from journalled import FAILED, FINGERPRINT, LABELS, MANY, inputs, tagged

from ast_cli import Tagger, tag_files
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.report import open_writer
from ast_cli.results import Event, FileError, Record, StreamedPart, Tag, TaggingResult, Window
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions, RunOptions
from ast_cli.tagging.run.journal import open_journal
from ast_cli.tagging.run.matches import MatchSelection, check_matches_only
from ast_cli.tagging.run.merge import merge_outputs

SAMPLES = Path(__file__).parent.parent.parent / "sample_audio"
TAG = Tag("Rain", 0, None, 0.9)
EVENT = Event("Rain", 0, None, 0.0, 5.0, 0.9, 0.9)
FULL, EMPTY = Window(0.0, 5.0, (TAG,)), Window(5.0, 10.0, ())
MATCHES = (0, 3, 6)  # numbers of the inputs that match


def result(
    tags: tuple[Tag, ...] = (), windows: tuple[Window, ...] | None = None, events: tuple[Event, ...] | None = None
) -> TaggingResult:
    return TaggingResult("a.wav", "m", "sigmoid", 10.0, 16000, 1, tags, windows, events)


@pytest.mark.parametrize(
    ("options", "record", "reported"),
    [
        ({}, result((TAG,)), result((TAG,))),
        ({}, result(), None),
        ({"timestamps": True}, result((TAG,), (FULL, EMPTY)), result((TAG,), (FULL,))),
        ({"timestamps": True}, result((), (EMPTY, EMPTY)), None),
        ({"events": True}, result((TAG,), None, (EVENT,)), result((TAG,), None, (EVENT,))),
        ({"events": True}, result((TAG,), None, ()), None),  # the five best labels, whatever their scores
        ({"stream": True, "events": True}, result((TAG,)), None),
    ],
)
def test_inputs_with_a_tag_or_an_event_match(
    options: dict[str, bool], record: TaggingResult, reported: TaggingResult | None
) -> None:
    assert MatchSelection(ClassifyOptions(**options))(record) == reported  # type: ignore[arg-type]


def test_failed_input_is_reported() -> None:
    failed = TaggingResult("a.wav", "m", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "a.wav: no audio"))
    assert MatchSelection(ClassifyOptions())(failed) == failed


def test_streamed_parts_are_selected_one_by_one_and_their_result_is_reported() -> None:
    select = MatchSelection(ClassifyOptions(stream=True, timestamps=True))
    full, empty = StreamedPart("a.wav", FULL), StreamedPart("a.wav", EMPTY)
    records: list[Record] = [full, empty, result(), empty, result(), StreamedPart("a.wav", EVENT), result()]
    assert [select(record) is not None for record in records] == [True, False, True, False, False, True, True]


@pytest.mark.parametrize("changes", [{"threshold": 0.0}, {"thresholds": {"Rain": 0.5}}, {"events": True}])
def test_matches_only_needs_a_criterion(changes: dict[str, object]) -> None:
    matches_only = RunOptions(matches_only=True)
    check_matches_only(ClassifyOptions(**changes), matches_only)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--matches-only needs --threshold, --thresholds or --events"):
        check_matches_only(ClassifyOptions(labels=("Rain",)), matches_only)


def run(output: Path, format_name: str, num_inputs: int, *, retry_errors: bool = False) -> list[int]:
    """Write the results of the first inputs that are pending; return the numbers of these inputs."""
    done = []
    exists = output.exists()
    journal = open_journal(
        output, format_name, FINGERPRINT, labels=LABELS, resume=exists, retry_errors=retry_errors and exists
    )
    with journal:
        for item in journal.pending(inputs(num_inputs)):
            number = int(Path(item.path).stem)
            journal.write(tagged(item), item, is_reported=number in (*MATCHES, *FAILED))
            done.append(number)
    return done


def rendered(format_name: str) -> str:
    stream = io.StringIO(newline="")
    writer = open_writer(format_name, stream, labels=LABELS)
    for item in inputs():
        if int(Path(item.path).stem) in (*MATCHES, *FAILED):
            writer.write(tagged(item))
    writer.close()
    return stream.getvalue()


@pytest.mark.parametrize(("format_name", "num_before"), list(itertools.product(MANY, range(1, 8))))
def test_continued_run_repeats_no_input_and_gives_the_same_output(
    tmp_path: Path, format_name: str, num_before: int
) -> None:
    output = tmp_path / "tags"
    assert run(output, format_name, num_before) == list(range(num_before))
    assert run(output, format_name, 7) == list(range(num_before, 7))
    assert run(output, format_name, 7) == []
    assert output.read_text(encoding="utf-8") == rendered(format_name)
    assert run(output, format_name, 7, retry_errors=True) == list(FAILED)


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(MANY, 2)))
def test_another_format_keeps_the_matches(tmp_path: Path, old: str, new: str) -> None:
    output = tmp_path / "tags"
    run(output, old, 3)
    assert run(output, new, 7) == [3, 4, 5, 6]
    assert output.read_text(encoding="utf-8") == rendered(new)


@pytest.mark.parametrize("format_name", MANY)
def test_output_without_a_match_can_be_continued(tmp_path: Path, format_name: str) -> None:
    output = tmp_path / "tags"
    for _ in range(2):
        journal = open_journal(output, format_name, FINGERPRINT, labels=LABELS, resume=output.exists())
        with journal:
            for item in journal.pending([Input("/nowhere/0.wav")]):
                journal.write(tagged(item), item, is_reported=False)
    empty = io.StringIO(newline="")
    open_writer(format_name, empty, labels=LABELS).close()
    assert output.read_text() == empty.getvalue()
    assert run(output, format_name, 7) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
def test_shards_of_matches_are_merged_and_all_their_inputs_counted(tmp_path: Path, format_name: str) -> None:
    parts = []
    for index in range(2):
        parts.append(tmp_path / f"tags-{index}.{format_name}")
        with open_journal(parts[-1], format_name, FINGERPRINT, shard=(index, 2)) as journal:
            for item in journal.pending(inputs()[index::2]):
                number = int(Path(item.path).stem)
                journal.write(tagged(item), item, is_reported=number in (*MATCHES, *FAILED))
    report = merge_outputs(parts, tmp_path / f"tags.{format_name}")
    assert (report.num_ok, report.num_failed) == (5, 2)
    lines = (tmp_path / f"tags.{format_name}").read_text().splitlines()
    assert sorted(lines) == sorted(rendered(format_name).splitlines())


def test_run_reports_only_matches_and_cannot_continue_without_matches_only(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained("builtin", device="cpu")
    output = tmp_path / "tags.jsonl"
    options = ClassifyOptions(labels=("Rain",), threshold=0.5)
    paths = [SAMPLES / name for name in ("telephone.wav", "rain.ogg", "dog.wav", "missing.wav")]
    for resume in (False, True):
        tally = tag_files(paths, tagger, output, options=options, matches_only=True, resume=resume)
        records = [json.loads(line) for line in output.read_text().splitlines()]
        assert [(Path(record["path"]).name, record["status"]) for record in records] == [
            ("rain.ogg", "ok"),
            ("missing.wav", "error"),
        ]
    assert tally.num_skipped == 4
    with pytest.raises(UsageError, match="other settings: --matches-only was given and is now not given;"):
        tag_files(paths, tagger, output, options=options, resume=True)
