"""Labels of the form ``Genre---Style``: how people read them, name them, and find them in every format."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from styled_models import STYLES, styled_checkpoint

from ast_cli import ASTConfig, ClassifyOptions, read_results
from ast_cli.errors import UsageError
from ast_cli.label_list import list_labels
from ast_cli.labels import audioset_id2label, select_label_ids
from ast_cli.report import rendered
from ast_cli.report.text import label_text
from ast_cli.results import Event, Tag, TaggingResult, Window
from ast_cli.styles import display_name, genre_and_style, styles_by_genre
from ast_cli.tagging.score.scoring import TagChooser

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HOUSE, IDM, AOR, POST_ROCK, P_FUNK = STYLES
ID2LABEL = dict(enumerate(STYLES))
MACHINE_FORMATS = ("json", "jsonl", "csv", "tsv", "wide", "raven", "dcase")
FORMATS_FOR_PEOPLE = ("table", "audacity", "srt", "vtt")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Electronic---House", "House (Electronic)"),
        ("Folk, World, & Country---Celtic", "Celtic (Folk, World, & Country)"),
        ("Funk / Soul---P.Funk", "P.Funk (Funk / Soul)"),
        ("Rock---Rock & Roll---Early", "Rock & Roll---Early (Rock)"),
        ("Rock", "Rock"),
        ("Rock--AOR", "Rock--AOR"),
        ("---", "---"),
        ("---AOR", "---AOR"),
        ("Rock---", "Rock---"),
        ("Waves, surf", "Waves, surf"),
    ],
)
def test_people_read_the_style_before_its_genre(label: str, shown: str) -> None:
    assert display_name(label) == shown


def test_no_label_of_audioset_is_read_otherwise() -> None:
    assert all(display_name(label) == label for label in audioset_id2label().values())


def test_labels_for_people_are_escaped_too() -> None:
    assert label_text("Rock---\x1b[31mAOR") == "\\x1b[31mAOR (Rock)"


def test_labels_of_another_form_belong_to_no_genre() -> None:
    assert styles_by_genre({0: "Speech", 1: "A---b", 2: "C---d", 3: "A---e"}) == {"A": [1, 3], "C": [2]}
    assert genre_and_style("Speech") is None


# --- choosing labels


@pytest.mark.parametrize(
    ("names", "label_ids"),
    [
        (["Rock---AOR"], [2]),
        (["aor (rock)"], [2]),
        (["P.Funk (Funk / Soul),House (Electronic)"], [4, 0]),
        (["Rock/*"], [2, 3]),
        (["funk / soul/*", "Rock/*,Electronic---IDM"], [4, 2, 3, 1]),
    ],
)
def test_labels_are_named_in_both_spellings_and_by_genre(names: list[str], label_ids: list[int]) -> None:
    assert select_label_ids(names, ID2LABEL) == label_ids


def test_commas_in_genres_are_part_of_the_name() -> None:
    id2label = {0: "Folk, World, & Country---Celtic", 1: "Folk, World, & Country---Fado", 2: "Rock---AOR"}
    assert select_label_ids(["Fado (Folk, World, & Country),Rock/*"], id2label) == [1, 2]
    assert select_label_ids(["Folk, World, & Country/*"], id2label) == [0, 1]


def test_the_name_in_the_file_comes_before_what_people_read() -> None:
    assert select_label_ids(["b (a)"], {0: "a---b", 1: "b (a)"}) == [1]
    assert select_label_ids(["Rock/*"], {0: "Rock---AOR", 1: "Rock/*"}) == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Rok/*", r"the model has no genre 'Rok'; similar genres: 'Rock/\*'"),
        ("Animal/*", r"the model has no genre 'Animal'; it has 'Electronic/\*', 'Rock/\*', 'Funk / Soul/\*'"),
        ("Post Rok", "the model has no label 'Post Rok'"),
    ],
)
def test_an_unknown_genre_is_refused_in_words_about_genres(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_label_ids([name], ID2LABEL)


def test_a_class_of_audioset_is_still_one_in_a_model_with_both_kinds_of_labels() -> None:
    assert select_label_ids(["Rock/*", "Dog/*"], {0: "Bark", 1: "Rock---AOR", 2: "Howl"}) == [1, 0, 2]


# --- formats

TAGS = (Tag(AOR, 2, None, 0.75), Tag(IDM, 1, None, 0.25))
RESULT = TaggingResult(
    "a.wav",
    "maest",
    "sigmoid",
    6.0,
    16000,
    1,
    TAGS,
    windows=(Window(0.0, 6.0, TAGS),),
    events=(Event(AOR, 2, None, 0.0, 6.0, 0.7, 0.75),),
)


def written(format_name: str) -> str:
    return rendered(RESULT, format_name).decode()


@pytest.mark.parametrize("format_name", MACHINE_FORMATS)
def test_machine_formats_keep_the_label_of_the_checkpoint(format_name: str) -> None:
    text = written(format_name)
    assert AOR in text
    assert display_name(AOR) not in text


@pytest.mark.parametrize("format_name", FORMATS_FOR_PEOPLE)
def test_formats_for_people_have_the_style_before_its_genre(format_name: str) -> None:
    text = written(format_name)
    assert display_name(AOR) in text
    assert AOR not in text


def test_notebooks_show_the_style_before_its_genre() -> None:
    html = RESULT._repr_html_()
    assert display_name(AOR) in html
    assert AOR not in html
    assert AOR in repr(RESULT)  # Python's own form names the label as the library takes it


def test_the_page_has_both_names(tmp_path: Path) -> None:
    from ast_cli.report_page.data import Labels

    labels = Labels()
    assert [labels.number(AOR, 2, None), labels.number("Rain", 0, "/m/06mb1")] == [0, 1]
    assert labels.rows() == [(AOR, 2, None, display_name(AOR)), ("Rain", 0, "/m/06mb1")]
    assert labels.names() == [AOR, "Rain"]


def test_the_list_of_labels_shows_and_finds_both_names(run_ast: Run, tmp_path: Path) -> None:
    model = str(styled_checkpoint(tmp_path / "model"))
    table = run_ast("labels", "--model", model).stdout
    assert [display_name(label) in table for label in STYLES] == [True] * 5
    rows = csv.DictReader(io.StringIO(run_ast("labels", "--model", model, "--format", "csv").stdout))
    assert [row["label"] for row in rows] == list(STYLES)
    listed = list_labels(model)
    assert [each.label for each in listed.containing("rock)").labels] == [AOR, POST_ROCK]
    assert [each.label for each in listed.containing("Rock---A").labels] == [AOR]


def test_a_run_chooses_a_genre_and_records_the_labels_of_the_checkpoint(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    model = str(styled_checkpoint(tmp_path / "model"))
    command = ("classify", str(write_wav("a.wav")), "--model", model, "--labels", "Rock/*", "--quiet")
    record = json.loads(run_ast(*command, "--format", "jsonl").stdout)
    assert record["activation"] == "sigmoid"
    assert sorted(tag["label"] for tag in record["tags"]) == [AOR, POST_ROCK]
    table = run_ast(*command).stdout
    assert [display_name(label) in table for label in STYLES] == [False, False, True, True, False]


# --- genres instead of styles


def test_a_genre_has_the_score_of_its_best_style_in_each_window() -> None:
    config = ASTConfig(id2label=ID2LABEL)
    chooser = TagChooser(config, ClassifyOptions(by_genre=True))
    logits = np.array([[1.0, -2.0, -3.0, 0.5, 2.0], [-4.0, 3.0, 1.0, -1.0, 0.0]], np.float32)
    sigmoid = 1 / (1 + np.exp(-np.array([[1.0, 0.5, 2.0], [3.0, 1.0, 0.0]])))
    assert chooser.labels == ["Electronic", "Rock", "Funk / Soul"]
    np.testing.assert_allclose(chooser.scores(logits), sigmoid, rtol=1e-6)
    assert [(tag.label, tag.label_id) for tag in chooser.choose(chooser.scores(logits)[0])] == [
        ("Funk / Soul", 2),
        ("Electronic", 0),
        ("Rock", 1),
    ]


def test_options_of_labels_and_thresholds_are_about_genres() -> None:
    config = ASTConfig(id2label=ID2LABEL)
    options = ClassifyOptions(
        by_genre=True, labels=("rock,Funk / Soul",), thresholds=(("Rock", 0.7),), events=True, threshold=0.4
    )
    chooser = TagChooser(config, options, {HOUSE: 0.9})
    assert chooser.labels == ["Rock", "Funk / Soul"]
    assert chooser.event_thresholds.tolist() == [0.7, 0.4]
    with pytest.raises(UsageError, match="the model has no label 'AOR"):
        TagChooser(config, ClassifyOptions(by_genre=True, labels=("AOR (Rock)",)))


def test_thresholds_that_come_with_a_model_are_for_its_styles_alone() -> None:
    assert ClassifyOptions(events=True).leave_events_to_model
    assert not ClassifyOptions(events=True, by_genre=True).leave_events_to_model


def test_genres_need_a_model_of_styles(run_ast: Run, write_wav: Callable[..., Path]) -> None:
    done = run_ast("classify", str(write_wav("a.wav")), "--model", "builtin", "--by-genre")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --by-genre needs a model whose labels are all of the form Genre---Style, such as maest; this one has "
        "the label 'Speech'\n"
    )


def test_a_run_reports_genres_in_every_part_and_is_not_continued_without_them(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    model, output = str(styled_checkpoint(tmp_path / "model")), tmp_path / "tags.jsonl"
    command = ("classify", str(write_wav("a.wav")), "--model", model, "--quiet", "-o", str(output))
    parts = ("--timestamps", "--events", "--threshold", "0")
    assert run_ast(*command, *parts, "--by-genre").returncode == 0
    (by_genre,) = read_results(output)
    genres = {"Electronic", "Rock", "Funk / Soul"}
    assert {tag.label for tag in by_genre.tags} == genres
    assert all({tag.label for tag in window.tags} == genres for window in by_genre.windows or ())
    assert {event.label for event in by_genre.events or ()} == genres
    refused = run_ast(*command, *parts, "--resume")
    assert refused.returncode == 2
    assert "--by-genre" in refused.stderr
    assert run_ast(*command, *parts, "--by-genre", "--resume").returncode == 0

    assert run_ast(*command, "--timestamps", "--top-k", "5", "--force").returncode == 0
    (by_style,) = read_results(output)
    for of_styles, of_genres in zip(by_style.windows or (), by_genre.windows or (), strict=True):
        best: dict[str, float] = {}
        for tag in of_styles.tags:
            genre = tag.label.partition("---")[0]
            best[genre] = max(tag.score, best.get(genre, 0.0))
        assert {tag.label: tag.score for tag in of_genres.tags} == best
