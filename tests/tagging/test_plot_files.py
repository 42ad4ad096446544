from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_tagger import tiny_tagger

from ast_cli import Tagger
from ast_cli.errors import AstError, NoInputsError, UsageError
from ast_cli.report import open_writer
from ast_cli.report.lanes import lanes_of
from ast_cli.tagging.inputs import Input, list_inputs
from ast_cli.tagging.options import DecodeOptions, PlotOptions
from ast_cli.tagging.plot.plot_files import PlotRun, results_to_plot

Write = Callable[..., Path]
HERE = DecodeOptions(num_workers=0)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return tiny_tagger()


def texts(file: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def results_file(tagger: Tagger, folder: Path, target: Path, **options: object) -> Path:
    stream = io.StringIO()
    writer = open_writer("jsonl", stream)
    for result in tagger.classify_paths([folder], workers=HERE, **options):
        writer.write(result)
    target.write_text(stream.getvalue(), encoding="utf-8")
    return target


def test_a_picture_has_the_lanes_of_the_model_over_the_recording(
    tagger: Tagger, write_wav: Write, tmp_path: Path
) -> None:
    write_wav("in/a.wav", 2.0)
    (tmp_path / "in" / "b.wav").write_bytes(b"no audio")
    inputs = list(list_inputs([str(tmp_path / "in")]))
    targets = [tmp_path / "out" / name for name in ("a.svg", "b.svg")]
    options = PlotOptions(hop_s=0.32, top_k=3)
    run = PlotRun(inputs, targets, options, tagger=tagger)
    drawn, failed = run.plot(HERE)
    expected = tagger.classify(tmp_path / "in" / "a.wav", hop_s=0.32, timestamps=True)
    assert list(drawn.labels) == [lane.label for lane in lanes_of(expected)][:3]
    assert drawn.duration_s == 2.0
    assert {*drawn.labels, "time (s)", "frequency (Hz, mel scale)"} <= set(texts(targets[0]))
    assert "the best 3 of 4 labels" in " ".join(texts(targets[0]))
    assert failed.error is not None
    assert not targets[1].exists()
    assert (run.tally.num_ok, run.tally.num_failed) == (1, 1)


@pytest.mark.parametrize("what", ["all", "timeline", "spectrogram"])
def test_lanes_come_from_results_without_a_model(tagger: Tagger, write_wav: Write, tmp_path: Path, what: str) -> None:
    path = write_wav("in/a.wav", 2.0)
    file = results_file(tagger, path.parent, tmp_path / "tags.jsonl", timestamps=True, top_k=4)
    options = PlotOptions(what=what, labels=("Rain", "Waves, surf"))
    inputs, known = results_to_plot(file, None, options)
    if what == "timeline":
        path.unlink()  # only the other panels read it
    (drawn,) = PlotRun(inputs, [tmp_path / "a.svg"], options, results=known).plot(HERE)
    assert drawn.path == str(path)
    assert sorted(drawn.labels) == ([] if what == "spectrogram" else ["Rain", "Waves, surf"])
    assert ("frequency (Hz, mel scale)" in texts(tmp_path / "a.svg")) == (what != "timeline")


def test_the_axis_is_that_of_the_part_that_is_read(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    path = write_wav("in/a.wav", 10.0)
    file = results_file(tagger, path.parent, tmp_path / "tags.jsonl", timestamps=True, start_s=4.0, duration_s=2.0)
    for what in ("timeline", "all"):
        options = PlotOptions(what=what, **({} if what == "timeline" else {"start_s": 4.0, "duration_s": 2.0}))
        inputs, known = results_to_plot(file, [Input(str(path))], options)
        list(PlotRun(inputs, [tmp_path / "a.svg"], options, results=known).plot(HERE))
        assert {"4.0", "6.0", "5.0"} <= set(texts(tmp_path / "a.svg"))
        assert "3.5" not in texts(tmp_path / "a.svg")


def test_the_axis_of_a_part_without_events_is_that_part(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    path = write_wav("in/a.wav", 10.0)
    options = PlotOptions(what="timeline", events=True, threshold=1.0, start_s=4.0, duration_s=2.0)
    list(PlotRun([Input(str(path))], [tmp_path / "a.svg"], options, tagger=tagger).plot(HERE))
    assert {"4.0", "6.0", "no label above the threshold"} <= set(texts(tmp_path / "a.svg"))


def test_events_are_lanes_too(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    path = write_wav("in/a.wav", 2.0)
    options = PlotOptions(what="timeline", events=True, threshold=0.3)
    (drawn,) = PlotRun([Input(str(path))], [tmp_path / "a.svg"], options, tagger=tagger).plot(HERE)
    events = tagger.classify(path, events=True, threshold=0.3, top_k=4).events
    assert events
    assert set(drawn.labels) == {event.label for event in events}


def test_recordings_without_results_are_left_out(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    first, second = write_wav("in/a.wav"), write_wav("more/b.wav")
    file = results_file(tagger, first.parent, tmp_path / "tags.jsonl")
    options = PlotOptions()
    inputs, known = results_to_plot(file, [Input(str(first)), Input(str(second))], options)
    assert [item.path for item in inputs] == [str(first)]
    assert len(known) == 1
    with pytest.raises(NoInputsError, match=r"tags\.jsonl has no result for these recordings: name paths as in it"):
        results_to_plot(file, [Input(str(second))], options)
    with pytest.raises(NoInputsError, match="no result of channel 2"):
        results_to_plot(file, None, PlotOptions(channels=2))


def test_results_that_have_no_scale_are_refused(tagger: Tagger, write_wav: Write, tmp_path: Path) -> None:
    file = results_file(tagger, write_wav("in/a.wav").parent, tmp_path / "tags.jsonl", activation="none")
    with pytest.raises(AstError, match="logits"):
        results_to_plot(file, None, PlotOptions())
    with pytest.raises(UsageError, match="make results with ast convert --specific"):
        results_to_plot(file, None, PlotOptions(specific=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": "lanes"}, "--what must be waveform, spectrogram, timeline or all, not 'lanes'"),
        ({"what": ""}, "--what must be"),
        ({"channels": "each"}, "--channels each gives several results"),
        ({"top_k": 0}, "--top-k must be at least 1, not 0"),
    ],
)
def test_options_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlotOptions(**changes)  # type: ignore[arg-type]


def test_parts_of_a_picture_can_be_combined_and_are_in_one_order() -> None:
    assert PlotOptions(what="timeline, waveform").panels == ("waveform", "timeline")
    assert PlotOptions(what="timeline,all").panels == ("waveform", "spectrogram", "timeline")
