"""Training the head alone: the encoder runs once over every clip, and the head learns from what it said."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.errors import AstError
from ast_cli.model.transformer import ASTForAudioClassification, ASTModel
from ast_cli.training.batches import BATCH_DRAWS, Clips, evaluation_windows, generator_for, normalised
from ast_cli.training.objective import scores_of, training_loss
from ast_cli.training.trainer import Trainer
from ast_cli.training.validation import Judge

EMBEDDING_BATCH_SIZE = 8
VERSION = 1  # of the file and of what is in it


def embedded(
    clips: Clips,
    encoder: ASTModel,
    extractor: ASTFeatureExtractor,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Clips:
    """Return the clips as the encoder hears them: each window's pooled output, (num_windows, hidden_size) a clip.

    They are kept in a file, so that a later run with the same encoder and spectrograms begins at once.

    Args:
        clips: All clips of the data, in the order of their numbers.
        encoder: In its base's state.
        extractor: Pads and normalises.
        folder: For the file.
        on_progress: Called with clips done and clips in all.
    """
    key = _key(clips, encoder, extractor)
    file = folder / f"embeddings-{key[:16]}.safetensors"
    found = _read(file, key)
    if found is None:
        found = _compute(clips, encoder, extractor, on_progress)
        _write(file, found)
    owners, embeddings = found["owners"], found["embeddings"]
    starts = np.searchsorted(owners, np.arange(len(clips) + 1))
    by_clip = [embeddings[begin:end] for begin, end in itertools.pairwise(starts)]
    return replace(clips, fbanks=by_clip)


def _key(clips: Clips, encoder: ASTModel, extractor: ASTFeatureExtractor) -> str:
    """Return the SHA-256 of all that the embeddings depend on."""
    whole = hashlib.sha256(f"{VERSION} {len(clips)} {extractor.to_dict()} {encoder.config.to_dict()}".encode())
    for index in clips.indices:
        whole.update(np.ascontiguousarray(clips.fbanks[index]).data)
    for name, tensor in sorted(encoder.state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return whole.hexdigest()


def _read(file: Path, key: str) -> dict[str, NDArray[np.float32]] | None:
    """Return what an earlier run kept; None where there is nothing of use."""
    if not file.is_file():
        return None
    with contextlib.suppress(OSError, SafetensorError, ValueError):
        found = load_file(file)
        if found.keys() == {"owners", "embeddings"} and len(found["owners"]) == len(found["embeddings"]):
            return found
    return None


@torch.inference_mode()
def _compute(
    clips: Clips, encoder: ASTModel, extractor: ASTFeatureExtractor, on_progress: Callable[[int, int], None] | None
) -> dict[str, NDArray[np.float32]]:
    encoder.eval()
    all_owners, embeddings = [], []
    for owners, batch in evaluation_windows(clips, extractor.max_length, EMBEDDING_BATCH_SIZE):
        batch = batch.to(encoder.device)
        fbank = torch.where(batch.is_heard, batch.fbank, extractor.padding_value)
        output = encoder(normalised(fbank, extractor), return_dict=True)
        embeddings.append(output.pooler_output.float().cpu().numpy())
        all_owners.append(owners)
        if on_progress is not None:
            on_progress(int(owners[-1]) + 1, len(clips))
    return {"owners": np.concatenate(all_owners), "embeddings": np.concatenate(embeddings)}


def _write(file: Path, found: dict[str, NDArray[np.float32]]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, temporary)
        os.replace(temporary, file)
    except (OSError, SafetensorError) as error:
        raise AstError(f"{file}: cannot be written ({error})") from error


class HeadTrainer(Trainer):
    """Trains the head on embedded clips."""

    def _loss(self, number: int, chosen: NDArray[np.int64]) -> Tensor:
        """Compute the loss of one batch: of each clip, one window drawn at random."""
        rng = generator_for(self.options, self.progress.epoch, BATCH_DRAWS, number)
        clips = self.task.clips
        windows = [clips.fbanks[clips.indices[i]] for i in chosen]
        embeddings = np.stack([each[int(rng.integers(len(each)))] for each in windows])
        targets = torch.from_numpy(clips.targets[[clips.indices[i] for i in chosen]])
        logits = self.model.head(torch.from_numpy(embeddings).to(self.model.device))
        return training_loss(logits, targets.to(self.model.device), self.task.loss, self.options.label_smoothing)


class HeadJudge(Judge):
    """Judges the head on embedded clips."""

    @torch.inference_mode()
    def scores(self, model: ASTForAudioClassification) -> tuple[NDArray[np.float32], float]:
        """Return as `Judge.scores` does."""
        scores, losses = [], []
        for windows, targets in self._clips():
            logits = model.head(windows.to(model.device))
            losses.append(training_loss(logits, targets.to(model.device).expand_as(logits), self.loss).item())
            scores.append(scores_of(logits, self.loss).mean(dim=0).cpu().numpy())
        return np.stack(scores), float(np.mean(losses))

    def _clips(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each clip's windows (num_windows, hidden_size) and targets (1, num_labels)."""
        for index in self.clips.indices:
            yield torch.from_numpy(self.clips.fbanks[index]), torch.from_numpy(self.clips.targets[index])[None]
