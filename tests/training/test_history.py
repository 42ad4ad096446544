from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from ast_cli.training.finetune_result import HISTORY_COLUMNS, draw_curves, write_history


def rows(*, validated: bool) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "update": 3 * epoch,
            "learning_rate": 1e-5 * epoch,
            "train_loss": 1 / epoch,
            "validation_loss": 2 / epoch if validated and epoch % 2 == 0 else None,
            "validation_metric": 0.25 * epoch if validated and epoch % 2 == 0 else None,
            "seconds": 1.25,
        }
        for epoch in range(1, 5)
    ]


def test_the_history_has_a_row_for_each_epoch(tmp_path: Path) -> None:
    write_history(tmp_path, rows(validated=True))
    text = (tmp_path / "history.csv").read_text()
    assert text.splitlines()[:3] == [
        "epoch,update,learning_rate,train_loss,validation_loss,validation_metric,seconds",
        "1,3,1e-05,1,,,1.25",
        "2,6,2e-05,0.5,1,0.5,1.25",
    ]
    assert list(csv.DictReader(text.splitlines()))[3]["train_loss"] == "0.25"
    assert tuple(csv.DictReader(text.splitlines()).fieldnames or ()) == HISTORY_COLUMNS
    write_history(tmp_path, [])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("validated", [True, False])
def test_curves_are_drawn_with_and_without_validation(tmp_path: Path, validated: bool) -> None:
    draw_curves(tmp_path, rows(validated=validated), "accuracy")
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[:2] == (720, 960)
    is_blue = np.abs(picture[:360, :, :3] - np.array([0x1F, 0x5F, 0x99]) / 255).max(axis=2) < 0.02
    is_red = np.abs(picture[:, :, :3] - np.array([0xB8, 0x43, 0x0B]) / 255).max(axis=2) < 0.02
    assert is_blue.sum() > 200  # the training loss
    assert (is_red.sum() > 200) == validated
    draw_curves(tmp_path, rows(validated=validated)[:1], "mAP")  # a single epoch too
