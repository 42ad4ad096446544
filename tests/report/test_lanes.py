from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from ast_cli.report import open_writer
from ast_cli.report.lanes import Lane, Span, lanes_of, time_ticks
from ast_cli.results import Event, Tag, TaggingResult, Window

RAIN, BARK = "Rain", "Bark"


def tags(**scores: float) -> tuple[Tag, ...]:
    return tuple(Tag(label, len(label), None, score) for label, score in scores.items())


def result(*windows: Window, events: tuple[Event, ...] | None = None, path: str = "a.wav") -> TaggingResult:
    duration_s = max((window.end_s for window in windows), default=6.0)
    return TaggingResult(path, "m", "sigmoid", duration_s, 16000, 1, tags(Siren=0.5), windows or None, events)


TWO = result(Window(0, 4, tags(Rain=0.2, Bark=0.1)), Window(4, 8, tags(Bark=0.9)))
EVENT = Event("Rain", 4, None, 1.0, 2.5, 0.6, 0.8)


def test_each_label_has_a_lane_and_the_best_comes_first() -> None:
    assert lanes_of(TWO) == [
        Lane("Bark", 4, (Span(0, 4, 0.1), Span(4, 8, 0.9))),
        Lane("Rain", 4, (Span(0, 4, 0.2),)),
    ]


def test_a_threshold_and_labels_select_parts_of_lanes() -> None:
    assert lanes_of(TWO, threshold=0.15) == [Lane("Bark", 4, (Span(4, 8, 0.9),)), Lane("Rain", 4, (Span(0, 4, 0.2),))]
    assert lanes_of(TWO, label_ids={5}) == []


def test_overlapping_windows_meet_in_the_middle() -> None:
    windows = [Window(start, start + 4, tags(Rain=0.1 * start)) for start in (0, 2, 4)]
    (lane,) = lanes_of(result(*windows))
    assert [(span.start_s, span.end_s) for span in lane.spans] == [(0, 3), (3, 5), (5, 8)]


def test_lanes_are_of_events_without_windows_and_of_tags_without_either() -> None:
    assert lanes_of(result(events=(EVENT,))) == [Lane("Rain", 4, (Span(1.0, 2.5, 0.6),))]
    assert lanes_of(result()) == [Lane("Siren", 5, (Span(0, 6.0, 0.5),))]
    both = result(Window(0, 8, tags(Bark=0.3)), events=(EVENT,))
    assert [lane.label for lane in lanes_of(both)] == ["Bark"]
    assert [lane.label for lane in lanes_of(both, of_events=True)] == ["Rain"]


@pytest.mark.parametrize(
    ("num_columns", "expected"),
    [
        (8, [0.1, 0.1, 0.1, 0.1, None, None, 0.9, 0.2]),
        (4, [0.1, 0.1, None, 0.9]),  # the highest score of a column
        (1, [0.9]),
        (16, [0.1] * 8 + [None] * 4 + [0.9] * 2 + [0.2] * 2),
    ],
)
def test_a_column_has_the_highest_score_in_it(num_columns: int, expected: list[float | None]) -> None:
    lane = Lane(RAIN, 0, (Span(0, 4, 0.1), Span(6, 7, 0.9), Span(7, 8, 0.2)))
    assert lane.columns(0, 8, num_columns) == expected


def test_short_spans_are_seen_in_long_columns_and_those_outside_are_not() -> None:
    lane = Lane(RAIN, 0, (Span(3599, 3600, 0.7), Span(90_000, 90_001, 0.9), Span(-3, -1, 0.9)))
    assert lane.columns(0, 86_400, 24) == [0.7] + [None] * 23


@pytest.mark.parametrize(
    ("start_s", "end_s", "num_ticks", "expected"),
    [
        (0, 6, 4, "0 2 4 6"),
        (0, 0.3, 4, "0.0 0.1 0.2 0.3"),
        (1, 1.2, 5, "1.00 1.05 1.10 1.15 1.20"),
        (60, 90, 4, "60 70 80 90"),
        (0, 600, 6, "0:00 2:00 4:00 6:00 8:00 10:00"),
        (3590, 3650, 3, "1:00:00 1:00:30"),
        (0, 86_400, 5, "0:00:00 6:00:00 12:00:00 18:00:00 24:00:00"),
        (0, 10 * 86_400, 3, "0:00:00 96:00:00 192:00:00"),
        (0, 5, 1, "0"),
        (2, 2, 3, "2.00 2.01"),
    ],
)
def test_the_ticks_of_a_time_axis_are_those_of_a_clock(
    start_s: float, end_s: float, num_ticks: int, expected: str
) -> None:
    ticks = time_ticks(start_s, max(end_s, start_s + 0.01), num_ticks)
    assert " ".join(text for _, text in ticks) == expected
    assert len(ticks) <= num_ticks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(record: TaggingResult, monkeypatch: pytest.MonkeyPatch, width: int, stream: io.StringIO | None = None) -> str:
    """Return the text that the table has on a terminal without colors."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal() if stream is None else stream
    open_writer("table", stream).write(record)
    return stream.getvalue().replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_a_terminal_shows_windows_as_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(TWO, monkeypatch, 40) == (
        "a.wav  00:08.00\n"
        "  Bark      ▁▁▁▁▁▁▁▁▁▁██████████  0.900\n"
        "  Rain      ▂▂▂▂▂▂▂▂▂▂            0.200\n"
        "  time (s)  0           5\n"
    )


def test_a_file_and_a_pipe_have_a_line_for_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "a.wav  00:08.00\n  00:00.00 - 00:04.00  0.200 Rain   0.100 Bark\n  00:04.00 - 00:08.00  0.900 Bark\n"
    assert drawn(TWO, monkeypatch, 80, io.StringIO()) == expected
    monkeypatch.setenv("FORCE_COLOR", "1")  # asks for colors in a pipe, not for another text
    stream = io.StringIO()
    open_writer("table", stream).write(TWO)
    assert "▁" not in stream.getvalue()
    assert "00:00.00 - 00:04.00" in stream.getvalue()
    assert drawn(TWO, monkeypatch, 39) == expected  # too narrow for lanes


@pytest.mark.parametrize("width", [60, 80, 120, 200, 300])
@pytest.mark.parametrize("num_windows", [1, 3, 700, 17_000])
def test_lanes_fit_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int, num_windows: int) -> None:
    labels = (
        "Rain",
        "犬の鳴き声" * 9,
        "Domestic animals, pets and more of a long name " * 3,
        "[bold]x[/bold]",
        "a\nb\x1b[2J",
    )
    windows = [
        Window(
            5.12 * i,
            5.12 * i + 5.12,
            tuple(Tag(label, j, None, (i % 7 + j + 1) / 12) for j, label in enumerate(labels)),
        )
        for i in range(num_windows)
    ]
    lines = drawn(result(*windows), monkeypatch, width).splitlines()
    assert len(lines) == 1 + len(labels) + 1
    assert all(cell_len(line) < min(width, 200) for line in lines)
    assert {cell_len(line) for line in lines[1:-1]} == {min(width, 200) - 1}
    assert any("[bold]x[/bold]" in line for line in lines)
    assert any("a\\nb\\x1b[2J" in line for line in lines)
    assert any("…" in line for line in lines)


def test_of_many_labels_the_best_have_lanes_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {f"L{i:02}": (60 - i) / 100 for i in range(25)}
    lines = drawn(result(Window(0, 8, tags(**labels))), monkeypatch, 80).splitlines()
    assert [line.split()[0] for line in lines[1:21]] == [f"L{i:02}" for i in range(20)]
    assert lines[22] == "  and 5 labels up to 0.400"


def test_low_scores_have_no_block_and_the_best_label_has_its_lane_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = (Window(0, 4, tags(Rain=0.06, Bark=0.04)), Window(4, 8, tags(Rain=0.04, Bark=0.04)))
    lines = drawn(result(*windows), monkeypatch, 40).splitlines()
    assert lines[1:] == [
        f"  Rain      {'▁' * 10}{' ' * 10}  0.060",
        "  time (s)  0           5",
        "  and 1 label up to 0.040",
    ]
    lines = drawn(result(windows[1]), monkeypatch, 40).splitlines()
    assert lines[1] == f"  Rain      {' ' * 20}  0.040"


def test_events_are_listed_below_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(result(Window(0, 8, tags(Rain=0.6)), events=(EVENT,)), monkeypatch, 80).splitlines()
    assert lines[1].split()[0] == "Rain"
    assert lines[3:] == ["  events", "  00:01.00 - 00:02.50  0.600 (up to 0.800) Rain"]


def test_logits_and_empty_windows_have_no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = TaggingResult("a.wav", "m", "none", 4.0, 16000, 1, (), (Window(0, 4, tags(Rain=-3.5)),))
    assert "-3.500 Rain" in drawn(logits, monkeypatch, 80)
    assert drawn(result(Window(0, 4, ())), monkeypatch, 80).splitlines()[1] == "  no label above the threshold"
