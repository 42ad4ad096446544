from __future__ import annotations

import numpy as np
import pytest

from ast_cli.results import Event
from ast_cli.tagging.score.events import EventMerger

ID2LABEL = {0: "Rain", 1: "Speech", 2: "own label"}


def merged(threshold: float, *windows: list[float], label_ids: list[int] | None = None) -> list[list[Event]]:
    """Merge windows of one second, with a score per label; return the events that each window and the end close."""
    merger = EventMerger(ID2LABEL, np.array(label_ids or [0, 1, 2]), threshold)
    closed = [merger.add(float(i), float(i + 1), np.array(scores, np.float32)) for i, scores in enumerate(windows)]
    return [*closed, merger.finish()]


def test_consecutive_windows_over_the_threshold_become_one_event() -> None:
    first, second, third, fourth, end = merged(0.5, [0.6, 0.1, 0.0], [0.8, 0.1, 0.0], [0.4, 0.1, 0.0], [0.5, 0.1, 0.0])
    assert (first, second, fourth) == ([], [], [])
    assert third == [Event("Rain", 0, "/m/06mb1", 0.0, 2.0, pytest.approx(0.7), pytest.approx(0.8))]
    assert end == [Event("Rain", 0, "/m/06mb1", 3.0, 4.0, pytest.approx(0.5), pytest.approx(0.5))]


def test_events_of_different_labels_overlap_and_end_independently() -> None:
    closed = merged(0.5, [0.9, 0.9, 0.0], [0.1, 0.9, 0.9])
    assert [(event.label, event.start_s, event.end_s) for event in closed[1]] == [("Rain", 0.0, 1.0)]
    assert [(event.label, event.start_s, event.end_s) for event in closed[2]] == [
        ("Speech", 0.0, 2.0), ("own label", 1.0, 2.0),
    ]  # fmt: skip
    assert closed[2][1].mid is None


def test_only_chosen_labels_have_events() -> None:
    assert [event.label for event in merged(0.5, [0.9, 0.9, 0.9], label_ids=[1])[-1]] == ["Speech"]


def test_nothing_over_the_threshold_gives_no_event() -> None:
    assert merged(0.95, [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]) == [[], [], []]
