"""Long tests of a whole command: `make torture`. Each prints what it measured; seeds are fixed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path += [str(Path(__file__).parents[1] / room) for room in ("audio", "tagging")]  # for their helpers

from tiny_tagger import tiny_tagger


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny checkpoint, so that the time is that of everything around the model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    tagger = tiny_tagger()
    tagger.engine.model.save_pretrained(folder)
    tagger.feature_extractor.save_pretrained(folder)
    return folder
