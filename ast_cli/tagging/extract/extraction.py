"""Features, embeddings, logits, hidden states and attentions of one recording, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH
from ast_cli.audio.windows import AudioWindow
from ast_cli.engine.interface import Engine
from ast_cli.errors import AudioError, ErrorCode, UsageError
from ast_cli.tagging.options import ExtractOptions
from ast_cli.tagging.score.recording import Recording

NEEDS_NO_MODEL = ("fbank", "input-values")
NEEDS_TORCH = ("embedding", "hidden-states", "attentions")  # the other engines compute logits alone
FIRST_WINDOW_ONLY = ("hidden-states", "attentions")


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """The arrays of one recording.

    Attributes:
        what: Kind of the arrays, as in `ExtractOptions`.
        arrays: Arrays by name, the main one first:
            ``fbank``: ``fbank`` (num_frames, num_mel_bins).
            ``input-values``: ``input_values`` (num_windows, max_length, num_mel_bins).
            ``embedding``: ``embedding`` (hidden_size,), the mean over windows, and ``window_embeddings`` (num_windows,
            hidden_size).
            ``logits``: ``logits`` (num_labels,), the mean over windows, and ``window_logits`` (num_windows,
            num_labels).
            ``hidden-states``: ``hidden_states`` (num_windows, num_layers + 1, num_tokens, hidden_size).
            ``attentions``: ``attentions`` (num_windows, num_layers, num_heads, num_tokens, num_tokens).
            All but ``fbank`` come with ``start_s`` and ``end_s`` (num_windows,), the times of the windows.
            With ``channels="each"`` all other arrays have one more axis, the first: (num_channels, ...).
        duration_s: Length of the audio that was read, in seconds.
        sampling_rate: Sampling rate of the recording, in Hz, before resampling.
        num_channels: Number of channels of the recording, before the mix-down.
        warnings: Codes of the warnings.
    """

    what: str
    arrays: dict[str, NDArray[Any]]
    duration_s: float
    sampling_rate: int
    num_channels: int
    warnings: tuple[str, ...]

    @property
    def main(self) -> NDArray[Any]:
        """The array that has the name of ``what``."""
        return next(iter(self.arrays.values()))


def extract_features(recordings: Sequence[Recording], engine: Engine | None, options: ExtractOptions) -> Extraction:
    """Extract the arrays of one recording, or of each of its channels.

    Args:
        recordings: The recording, or its channels, from `ast_cli.tagging.score.recording.recordings_of`; opened and not
            yet iterated.
        engine: The loaded model; None for the fbank and the input values, which need none.
        options: Kind of the arrays, and the windows.

    Raises:
        AudioError: If the recording cannot be decoded or is too short.
        UsageError: If a model is needed and there is none, or if the engine computes only logits.
    """
    if options.what == "fbank":
        arrays: dict[str, NDArray[Any]] = {"fbank": _fbank(recordings, options)}
    else:
        arrays = _window_arrays(recordings, engine, options)
    stream = recordings[0].stream
    return Extraction(
        options.what, arrays, stream.duration_s, stream.sampling_rate, stream.num_channels, recordings[0].warnings
    )


def _fbank(recordings: Sequence[Recording], options: ExtractOptions) -> NDArray[np.float32]:
    """Return the fbank of the whole recording (num_frames, num_mel_bins), or of each channel, in a leading axis."""
    in_turns = zip(*(recording.fbank_blocks() for recording in recordings), strict=True)
    blocks = [np.stack(blocks) for blocks in in_turns]
    if not blocks:
        raise _no_audio()
    fbanks = np.concatenate(blocks, axis=1)  # (num_channels, num_frames, num_mel_bins)
    return fbanks if options.channels == EACH else fbanks[0]


def _in_turns(recordings: Sequence[Recording]) -> Iterator[tuple[Recording, AudioWindow]]:
    """Yield the first window of every recording, then the second, and so on."""
    for windows in zip(*(recording.windows() for recording in recordings), strict=True):
        yield from zip(recordings, windows, strict=True)


class WindowBatch(NamedTuple):
    """Numbers of consecutive windows, those of several channels in turns.

    Attributes:
        channels: Number of the channel of each window; None for a mix.
        places_s: Start and end of each window in the recording, in seconds.
        values: Numbers of the windows, float32, shape (num_windows, ...).
    """

    channels: list[int | None]
    places_s: list[tuple[float, float]]
    values: NDArray[np.float32]


def window_batches(
    recordings: Sequence[Recording], engine: Engine | None, options: ExtractOptions
) -> Iterator[WindowBatch]:
    """Compute the numbers of the windows batch by batch, in constant memory; windows of several channels share batches.

    Args:
        recordings: The recording, or its channels, as in `extract_features`.
        engine: The loaded model; None for the input values, which need none.
        options: Kind of the numbers, which is not the fbank, and the windows.

    Raises:
        AudioError: If the recording cannot be decoded or is too short.
        UsageError: If a model is needed and there is none, or if the engine computes only logits.
    """
    extractor = recordings[0].feature_extractor
    all_windows = _in_turns(recordings)
    only_first = options.what in FIRST_WINDOW_ONLY and not options.all_windows
    windows = islice(all_windows, len(recordings)) if only_first else all_windows
    compute = _computation(engine, options.what)
    is_empty = True
    batch_size = options.batch_size or (engine.default_batch_size if engine else 1)
    while batch := list(islice(windows, batch_size)):
        is_empty = False
        places_s = [recording.place_s(window) for recording, window in batch]
        values = compute(extractor.input_values([window.content for _, window in batch]))
        yield WindowBatch([recording.channel for recording, _ in batch], places_s, values)
    if is_empty:
        raise _no_audio()
    for _ in all_windows:  # reads to the end, so that length and warnings are those of the whole recording
        pass


def _window_arrays(
    recordings: Sequence[Recording], engine: Engine | None, options: ExtractOptions
) -> dict[str, NDArray[Any]]:
    """Return the arrays of all windows."""
    times: list[tuple[float, float]] = []
    parts: list[NDArray[Any]] = []
    for batch in window_batches(recordings, engine, options):
        times += batch.places_s
        parts.append(batch.values)
    values = np.concatenate(parts)
    if options.channels == EACH:  # (num_windows * num_channels, ...) to (num_channels, num_windows, ...)
        by_window = values.reshape(-1, len(recordings), *values.shape[1:])
        values = np.ascontiguousarray(by_window.swapaxes(0, 1))
    starts, ends = np.array(times[:: len(recordings)], dtype=np.float64).T
    key = options.what.replace("-", "_")
    if options.what in ("embedding", "logits"):
        plural = {"embedding": "window_embeddings", "logits": "window_logits"}[options.what]
        window_axis = 1 if options.channels == EACH else 0
        return {key: values.mean(axis=window_axis), plural: values, "start_s": starts, "end_s": ends}
    return {key: values, "start_s": starts, "end_s": ends}


def _no_audio() -> AudioError:
    return AudioError(ErrorCode.NO_SAMPLES, "the recording is too short for a single sample at the model's rate")


def _computation(engine: Engine | None, what: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the function from input_values (B, max_length, num_mel_bins) to a float32 array (B, ...)."""
    if what == "input-values":
        return lambda input_values: input_values
    if engine is None:
        raise UsageError(f"{what} needs a model")
    if what == "logits":
        return engine.logits
    from ast_cli.engine.torch.torch_engine import TorchEngine

    if not isinstance(engine, TorchEngine):
        raise UsageError(f"the {engine.name} engine computes only logits; use --engine torch for {what}")
    if what == "embedding":
        return engine.embeddings
    wanted = "output_hidden_states" if what == "hidden-states" else "output_attentions"
    key = what.replace("-", "_")

    def stacked(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        layers = engine.forward(input_values, **{wanted: True})[key]
        return np.stack([layer.float().cpu().numpy() for layer in layers], axis=1)

    return stacked
