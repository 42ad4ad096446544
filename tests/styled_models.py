"""Small random checkpoints with labels like MAEST's, in folders and in the hub client's cache."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import randomize, small_config

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification

STYLES = ("Electronic---House", "Electronic---IDM", "Rock---AOR", "Rock---Post Rock", "Funk / Soul---P.Funk")
COMMIT = "b" * 40


def styled_checkpoint(folder: Path, labels: tuple[str, ...] = STYLES) -> Path:
    """Write a checkpoint with random weights and an ordinary front end; return its folder."""
    torch.manual_seed(0)
    model = randomize(ASTForAudioClassification(small_config(id2label=dict(enumerate(labels)))))
    model.save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return folder


def cached_styled_checkpoint(hf_home: Path, repo_id: str) -> Path:
    """Put such a checkpoint into the cache of the hub client under a hub id; return its folder."""
    repository = hf_home / "hub" / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return styled_checkpoint(repository / "snapshots" / COMMIT)
