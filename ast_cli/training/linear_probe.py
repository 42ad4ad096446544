"""Linear probe: the encoder runs once over every clip, and the head is trained on the embeddings."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.windows import slice_windows
from ast_cli.files.atomic import write_whole
from ast_cli.model.transformer import ASTForAudioClassification, ASTModel
from ast_cli.training.data.batches import BATCH_DRAWS, Clips, evaluation_windows, generator_for
from ast_cli.training.objective import predicted_scores, training_loss
from ast_cli.training.trainer import Trainer
from ast_cli.training.validation import Evaluator

EMBEDDING_BATCH_SIZE = 8
CLIPS_PER_FILE = 64  # an interruption then loses less than two minutes of a base-size encoder on two cores
VERSION = 1  # of the format of the files and of the numbers in them

Embeddings = dict[str, NDArray[np.float32]]


def embedded(
    clips: Clips,
    encoder: ASTModel,
    extractor: FeatureExtractor,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Clips:
    """Return the clips with embeddings in place of spectrograms: pooled outputs, (num_windows, hidden_size) per clip.

    The embeddings are stored in files of `CLIPS_PER_FILE` clips each, so that an interrupted run, or a later run with
    the same encoder and spectrograms, does not compute them again.

    Args:
        clips: All clips of the data, with indices 0, 1, 2, ...
        encoder: Encoder of the base model.
        extractor: Feature extractor that pads and normalizes.
        folder: Folder for the files.
        on_progress: Callback with the clips done and the number of clips.

    Raises:
        AstError: If a file cannot be written.
    """
    front = _digest(encoder, extractor)
    by_clip: list[NDArray[np.float32]] = []
    for first in range(0, len(clips), CLIPS_PER_FILE):
        part = replace(clips, indices=clips.indices[first : first + CLIPS_PER_FILE])
        file = folder / f"embeddings-{_key(front, part)}.safetensors"
        found = _read(file)
        if found is None:
            found = _compute(part, encoder, extractor)
            write_whole(file, save(found))
        by_clip += np.split(found["embeddings"], np.searchsorted(found["owners"], np.arange(1, len(part))))
        if on_progress is not None:
            on_progress(len(by_clip), len(clips))
    windows = clips.windows
    if windows is not None:
        fbanks = (clips.fbanks[index] for index in clips.indices)
        windows = windows.of_parts(
            [_window_parts(fbank, extractor.scaled_window_frames or extractor.max_length) for fbank in fbanks]
        )
    return replace(clips, fbanks=by_clip, windows=windows)


def _window_parts(fbank: NDArray[np.float32], max_length: int) -> list[tuple[int, int]]:
    """Return first frame and end of each window that `evaluation_windows` cuts out of a clip."""
    windows = slice_windows([fbank], max_length, max_length)
    return [(window.start_frame, window.start_frame + len(window.content)) for window in windows]


def _digest(encoder: ASTModel, extractor: FeatureExtractor) -> bytes:
    """Return a digest of encoder and extractor, on which the embeddings of all clips depend."""
    whole = hashlib.sha256(f"{VERSION} {extractor.to_dict()} {encoder.config.to_dict()}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return whole.digest()


def _key(front: bytes, part: Clips) -> str:
    """Return a short digest of encoder, extractor and clips, for a file name."""
    whole = hashlib.sha256(front)
    for index in part.indices:
        fbank = np.ascontiguousarray(part.fbanks[index])
        whole.update(str(fbank.shape).encode())
        whole.update(fbank.data)
    return whole.hexdigest()[:32]


def _read(file: Path) -> Embeddings | None:
    """Return the embeddings of an earlier run; None if there is no valid file."""
    with contextlib.suppress(OSError, SafetensorError, ValueError):
        found: Embeddings = load_file(file)
        if found.keys() == {"owners", "embeddings"} and len(found["owners"]) == len(found["embeddings"]):
            return found
    return None


@torch.inference_mode()
def _compute(clips: Clips, encoder: ASTModel, extractor: FeatureExtractor) -> Embeddings:
    """Run the encoder over every window of every clip."""
    encoder.eval()
    all_owners, embeddings = [], []
    windows = evaluation_windows(clips, extractor.max_length, EMBEDDING_BATCH_SIZE, extractor.scaled_window_frames)
    for owners, batch in windows:
        batch = batch.to(encoder.device)
        fbank = torch.where(batch.frame_mask, batch.fbank, extractor.padding_value)
        output = encoder(extractor.normalized(fbank), return_dict=True)
        embeddings.append(output.pooler_output.float().cpu().numpy())
        all_owners.append(owners)
    return {"owners": np.concatenate(all_owners), "embeddings": np.concatenate(embeddings)}


class HeadTrainer(Trainer):
    """Trains the head on embedded clips."""

    trained = "head."

    def _loss(self, number: int, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Compute the loss of one batch, with one random window of each clip."""
        rng = generator_for(self.options, self.progress.epoch, BATCH_DRAWS, number)
        clips, device = self.task.clips, self.model.device
        indices = [clips.indices[i] for i in chosen]
        windows = [int(rng.integers(len(clips.fbanks[index]))) for index in indices]
        embeddings = np.stack([clips.fbanks[index][window] for index, window in zip(indices, windows, strict=True)])
        targets = np.stack(
            [clips.part_targets(index, window, window + 1) for index, window in zip(indices, windows, strict=True)]
        )
        logits = self.model.head(torch.from_numpy(embeddings).to(device))
        return training_loss(logits, torch.from_numpy(targets).to(device), self.task.loss, self.options.label_smoothing)


class HeadEvaluator(Evaluator):
    """Evaluates the head on embedded clips."""

    @torch.inference_mode()
    def scores(self, model: ASTForAudioClassification) -> tuple[NDArray[np.float32], float]:
        """Compute scores and loss as `Evaluator.scores` does."""
        scores, loss_sum, num_windows = [], 0.0, 0
        for windows, targets in self._clips():
            logits = model.head(windows.to(model.device))
            loss = training_loss(logits, targets.to(model.device), self.loss)
            loss_sum += loss.item() * len(windows)
            num_windows += len(windows)
            scores.append(predicted_scores(logits, self.loss).mean(axis=0, dtype=np.float64).astype(np.float32))
        return np.stack(scores), loss_sum / num_windows

    def _clips(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the windows (num_windows, hidden_size) and their targets (num_windows, num_labels), clip by clip."""
        for index in self.clips.indices:
            windows = self.clips.fbanks[index]
            targets = [self.clips.part_targets(index, i, i + 1) for i in range(len(windows))]
            yield torch.from_numpy(windows), torch.from_numpy(np.stack(targets))
