from __future__ import annotations

import io
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray

from ast_cli.labels import audioset_mids
from ast_cli.training.metrics import multi_label_metrics, single_label_metrics
from ast_cli.training.pictures import DPI, MIN_SIDE_INCHES, evaluation_picture

LABELS = list(audioset_mids())


def pixels(png: bytes) -> NDArray[np.float32]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"))


@pytest.mark.parametrize("num_labels", [2, 10, 80])
def test_a_confusion_matrix_is_drawn(num_labels: int, rng: np.random.Generator) -> None:
    targets = rng.integers(0, num_labels, 10 * num_labels)
    scores = rng.random((len(targets), num_labels))
    picture = pixels(evaluation_picture(single_label_metrics(scores, targets, LABELS[:num_labels]), "model on data"))
    assert 400 < min(picture.shape[:2]) < max(picture.shape[:2]) < 4000


@pytest.mark.parametrize("num_labels", [1, 14, 200])
def test_bars_are_drawn_and_many_classes_are_cut(num_labels: int, rng: np.random.Generator) -> None:
    targets = rng.random((60, num_labels)) < 0.3
    scores = rng.random((60, num_labels))
    picture = pixels(evaluation_picture(multi_label_metrics(scores, targets, LABELS[:num_labels]), "model on data"))
    assert picture.shape[0] < 2500


def test_a_cell_is_coloured_by_its_share_of_the_row() -> None:
    targets = np.array([0] * 99 + [1])
    right = single_label_metrics(np.eye(2)[targets], targets, LABELS[:2])
    picture = pixels(evaluation_picture(right, "x"))[..., :3]
    num_darkest = (np.abs(picture - [8 / 255, 48 / 255, 107 / 255]) < 0.01).all(axis=-1).sum()  # the end of "Blues"
    cell = (MIN_SIDE_INCHES / 2 * DPI) ** 2
    assert num_darkest > 1.8 * cell  # both cells of right answers, although one counts 99 and the other 1


def test_labels_are_text_and_never_formulas() -> None:
    labels = ["$\\frac{", "a\x1b[31m_b^{", "$x$", "\\"]
    metrics = single_label_metrics(np.eye(4), np.arange(4), labels)
    assert evaluation_picture(metrics, "$\\bad{ on x").startswith(b"\x89PNG")
    targets = np.eye(4, dtype=bool)
    assert evaluation_picture(multi_label_metrics(np.eye(4), targets, labels), "$\\bad{").startswith(b"\x89PNG")


def test_drawing_touches_no_display_and_no_global_state() -> None:
    program = (
        "import sys, numpy as np\n"
        "from ast_cli.training.metrics import single_label_metrics\n"
        "from ast_cli.training.pictures import evaluation_picture\n"
        "assert 'matplotlib' not in sys.modules\n"
        "evaluation_picture(single_label_metrics(np.eye(2), np.arange(2), 'ab'), 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
