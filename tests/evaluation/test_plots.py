from __future__ import annotations

import io
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ast_cli.evaluation.metrics import multi_label_metrics, single_label_metrics
from ast_cli.evaluation.plots import (
    BAR_COLOR,
    CELL_INCHES,
    DPI,
    MAX_CLASSES,
    MEAN_COLOR,
    MIN_SIDE_INCHES,
    _shown_part,
    _single_label_subtitle,
    evaluation_picture,
)
from ast_cli.labels import audioset_mids

LABELS = list(audioset_mids())
LIGHTEST, DARKEST = "#f7fbff", "#08306b"  # the ends of "Blues"


def pixels(png: bytes) -> NDArray[np.float32]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"))


def is_color(picture: NDArray[np.float32], color: str) -> NDArray[np.bool_]:
    """Return a mask of the pixels with a color ``#rrggbb``, shape (height, width)."""
    return (np.abs(picture[..., :3] - to_rgb(color)) < 0.01).all(axis=-1)


@pytest.mark.parametrize("num_labels", [2, 10, 80])
def test_a_confusion_matrix_is_drawn(num_labels: int) -> None:
    """Each class is predicted as the other of its pair: cells beside the diagonal are dark, all others light."""
    targets = np.repeat(np.arange(num_labels), 10)
    metrics = single_label_metrics(np.eye(num_labels)[targets ^ 1], targets, LABELS[:num_labels])
    picture = pixels(evaluation_picture(metrics, "model on data"))
    assert 400 < min(picture.shape[:2]) < max(picture.shape[:2]) < 4000
    dark, light = is_color(picture, DARKEST), is_color(picture, LIGHTEST)
    top, left = dark.any(axis=1).argmax(), dark.any(axis=0).argmax()
    num_shown = min(num_labels, MAX_CLASSES)
    cell = max(CELL_INCHES[num_labels > 15], MIN_SIDE_INCHES / num_labels) * DPI
    corners = np.ix_(*(start + ((np.arange(num_shown) + 0.15) * cell).astype(int) for start in (top, left)))
    expected = np.arange(num_shown)[:, None] ^ 1 == np.arange(num_shown)
    np.testing.assert_array_equal(dark[corners], expected)
    np.testing.assert_array_equal(light[corners], ~expected)
    ink = picture[..., :3].max(axis=-1) < 0.5
    assert ink[:top].any()  # the title
    for row in range(num_shown):  # a count in the dark cell, a name beside the row
        lines = slice(top + int((row + 0.15) * cell), top + int((row + 0.85) * cell))
        start = left + int(((row ^ 1) + 0.15) * cell)
        assert is_color(picture[lines, start : start + int(0.7 * cell)], "#ffffff").any()
        assert ink[lines, left - 30 : left - 3].any()


def test_classes_without_examples_have_no_row_and_share_one_column() -> None:
    """The data has labels 3 and 7 of ten; half of their examples are recognized, the others go to two labels each."""
    targets = np.repeat([3, 7], 12)
    predicted = np.concatenate([np.repeat([3, 0, 7], [6, 4, 2]), np.repeat([7, 9], [6, 6])])
    metrics = single_label_metrics(np.eye(10)[predicted], targets, LABELS[:10])
    supports = {result.label: result.support for result in metrics.per_class}
    labels, counts = _shown_part(metrics.confusion_matrix, supports)
    assert labels == [LABELS[3], LABELS[7]]
    assert counts.tolist() == [[6, 2, 4], [0, 6, 6]]
    subtitle = _single_label_subtitle(metrics, len(labels)).splitlines()
    assert subtitle[0].startswith("accuracy 50.0% (")
    assert subtitle[1] == "left out: 2 predicted labels without examples"
    assert metrics.to_dict()["confusion_matrix"]["labels"] == [LABELS[i] for i in (0, 3, 7, 9)]  # JSON has them all
    cells = pixels(evaluation_picture(metrics, "x"))
    light = is_color(cells, LIGHTEST)  # the one cell that counts nothing
    assert light.sum() == pytest.approx((MIN_SIDE_INCHES / 2 * DPI) ** 2, rel=0.03)


def test_of_many_classes_those_with_the_most_mistakes_are_drawn_and_rows_add_up() -> None:
    num_labels = MAX_CLASSES + 2
    targets = np.repeat(np.arange(num_labels), 10)
    predicted = targets.copy()
    predicted[::10] = (targets[::10] + 1) % num_labels  # one mistake of each class
    predicted[-1], predicted[-11] = 0, 0  # and one more of the last two
    metrics = single_label_metrics(np.eye(num_labels)[predicted], targets, LABELS[:num_labels])
    supports = {result.label: result.support for result in metrics.per_class}
    labels, counts = _shown_part(metrics.confusion_matrix, supports)
    left_out = num_labels - 4, num_labels - 3
    assert labels == [label for i, label in enumerate(LABELS[:num_labels]) if i not in left_out]
    np.testing.assert_array_equal(counts.sum(axis=1), 10)
    assert np.flatnonzero(counts[:, -1]).tolist() == [num_labels - 5]  # whose mistake is a class left out
    subtitle = _single_label_subtitle(metrics, len(labels)).splitlines()
    assert subtitle[1:-1] == [f"the {MAX_CLASSES} classes with the most mistakes, of {num_labels}"]


@pytest.mark.parametrize("num_labels", [1, 14, 200])
def test_bars_are_as_long_as_their_values_and_many_classes_are_cut(num_labels: int, rng: np.random.Generator) -> None:
    targets = rng.random((60, num_labels)) < 0.3
    scores = rng.random((60, num_labels)) + 0.3 * targets
    metrics = multi_label_metrics(scores, targets, LABELS[:num_labels])
    picture = pixels(evaluation_picture(metrics, "model on data"))
    assert picture.shape[0] < 2500
    values = sorted((result.average_precision for result in metrics.per_class), reverse=True)
    shown = values if num_labels <= MAX_CLASSES else values[: MAX_CLASSES // 2] + values[-MAX_CLASSES // 2 :]
    of_bars = is_color(picture, BAR_COLOR)
    is_bar = of_bars.any(axis=1)
    tops = np.flatnonzero(is_bar & ~np.roll(is_bar, 1))
    lengths = [np.ptp(np.flatnonzero(of_bars[top + 3])) + 1 for top in tops]  # the line of the mean covers a few
    axis_pixels = 5.5 * DPI / 1.08  # from 0 to 1
    np.testing.assert_allclose(lengths, np.array(shown) * axis_pixels, rtol=0, atol=4)
    assert is_color(picture, MEAN_COLOR).any()
    ink = picture[..., :3].max(axis=-1) < 0.5
    assert ink[: tops[0]].any()  # the title
    left = of_bars.any(axis=0).argmax()
    assert all(ink[top : top + 20, left - 30 : left - 3].any() for top in tops)  # names, beside the axis


def test_a_cell_is_colored_by_its_fraction_of_the_row() -> None:
    targets = np.array([0] * 99 + [1])
    right = single_label_metrics(np.eye(2)[targets], targets, LABELS[:2])
    picture = pixels(evaluation_picture(right, "x"))[..., :3]
    num_darkest = is_color(picture, DARKEST).sum()
    cell = (MIN_SIDE_INCHES / 2 * DPI) ** 2
    assert num_darkest > 1.8 * cell  # both cells of right answers, although one counts 99 and the other 1


def test_labels_are_drawn_as_text_not_as_formulas() -> None:
    labels = ["$\\frac{", "a\x1b[31m_b^{", "$x$", "\\"]
    metrics = single_label_metrics(np.eye(4), np.arange(4), labels)
    assert evaluation_picture(metrics, "$\\bad{ on x").startswith(b"\x89PNG")
    targets = np.eye(4, dtype=bool)
    assert evaluation_picture(multi_label_metrics(np.eye(4), targets, labels), "$\\bad{").startswith(b"\x89PNG")


def test_drawing_needs_no_display_and_no_global_state() -> None:
    program = (
        "import sys, numpy as np\n"
        "from ast_cli.evaluation.metrics import single_label_metrics\n"
        "from ast_cli.evaluation.plots import evaluation_picture\n"
        "assert 'matplotlib' not in sys.modules\n"
        "evaluation_picture(single_label_metrics(np.eye(2), np.arange(2), 'ab'), 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
