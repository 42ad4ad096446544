"""Waveforms that callers hand over, in any form: converted to float32 samples in [-1, 1], and checked."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.mel_bank import FRAME_LENGTH_MS
from ast_cli.audio.samples import INTEGER_SCALES, MAX_PEAK, scale_to_float32
from ast_cli.errors import AstWarning, AudioError, ErrorCode, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Waveform: TypeAlias = "NDArray[Any] | Tensor | Sequence[float]"


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_batch(raw_speech: Any, frame_length_samples: int) -> list[Any]:
    """Return a list of waveforms from one waveform or several, without copying them."""
    if isinstance(raw_speech, np.ndarray) or is_tensor(raw_speech):
        if raw_speech.ndim > 2:
            raise UsageError(
                f"a waveform has one dimension and a batch two, but this array has {raw_speech.ndim}: "
                f"{_remedy(raw_speech)}"
            )
        if raw_speech.ndim == 2 and 0 < raw_speech.shape[1] < min(frame_length_samples, len(raw_speech)):
            num_waveforms, num_samples = raw_speech.shape
            raise UsageError(
                f"an array of shape {(num_waveforms, num_samples)} is a batch of {num_waveforms} waveforms of "
                f"{num_samples} samples each; if it is one recording, {_remedy(raw_speech)}"
            )
        batch = list(raw_speech) if raw_speech.ndim == 2 else [raw_speech]
    elif isinstance(raw_speech, list | tuple) and raw_speech and not np.isscalar(raw_speech[0]):
        batch = list(raw_speech)
    else:
        batch = [raw_speech]
    if not batch:
        raise AudioError(ErrorCode.NO_SAMPLES, "the batch contains no waveforms")
    return batch


def _as_array(numbers: Any) -> NDArray[Any]:
    """Return a list of Python numbers as an array of floats; integers above 1 stay integers, whose scale is unknown."""
    try:
        array = np.asarray(numbers)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        raise UsageError(
            f"a waveform is an array, a tensor or a list of floats, not {type(numbers).__name__} "
            "(ast_cli.load_waveform reads a file)"
        )
    is_unambiguous = array.dtype.kind != "f" and array.size and np.abs(array).max() <= 1
    return array.astype(np.float32) if is_unambiguous else array


def as_float32(waveform: Waveform) -> NDArray[np.float32]:
    """Return one waveform as float32 samples in [-1, 1], shape (num_samples,).

    Integer samples are scaled by their type; the reference takes int16 samples as they are, 32,768 times too loud.

    Raises:
        UsageError: If the waveform is not one-dimensional, or its type has no known scale.
        AudioError: If the waveform contains no samples, or samples that are not finite.
    """
    if is_tensor(waveform):
        waveform = waveform.detach().cpu()
        array: NDArray[Any] = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    elif isinstance(waveform, np.ndarray):
        array = waveform
    else:
        array = _as_array(waveform)
    if array.ndim != 1:
        raise UsageError(f"a waveform must be mono, shape (num_samples,), not {array.shape}: {_remedy(array)}")
    if array.size == 0:
        raise AudioError(ErrorCode.NO_SAMPLES, "the waveform contains no samples")
    samples = scale_to_float32(array)
    if samples is None:
        raise UsageError(f"samples of type {array.dtype} have no known scale: convert them to floats in [-1, 1]")
    if not np.isfinite(samples).all():
        raise AudioError(ErrorCode.NON_FINITE, "the waveform contains NaN or infinite samples: replace them by 0 first")
    return samples


def checked_waveform(waveform: Waveform, sampling_rate: int, *, stacklevel: int = 3) -> NDArray[np.float32]:
    """Return one waveform as `as_float32` does, and check that it is a plausible recording.

    A peak above `MAX_PEAK` times full scale gives a warning.

    Args:
        waveform: Mono samples, shape (num_samples,).
        sampling_rate: Sampling rate in Hz.
        stacklevel: Stack level of the warning: 2 for the caller's line, 3 for the line of the caller's caller.

    Raises:
        UsageError: If the waveform is shorter than one frame, or as in `as_float32`.
        AudioError: As in `as_float32`.
    """
    samples = as_float32(waveform)
    frame_length_samples = int(sampling_rate) * FRAME_LENGTH_MS // 1000
    if samples.size < frame_length_samples:
        raise UsageError(
            f"a waveform of {samples.size} samples is shorter than one frame, {FRAME_LENGTH_MS} ms or "
            f"{frame_length_samples} samples at {sampling_rate} Hz: pass a whole recording, shape (num_samples,)"
        )
    peak = float(max(samples.max(), -samples.min()))
    if peak > MAX_PEAK:
        warnings.warn(
            f"the waveform's peak is {peak:g}, {peak:.0f} times full scale (1), so its features will be wrong; "
            "divide 16-bit samples by 32768, or pass the int16 array unchanged",
            AstWarning,
            stacklevel=stacklevel,
        )
    return samples


def _remedy(array: NDArray[Any] | Tensor) -> str:
    """Return advice on how to get one waveform from an array of another shape.

    Of two axes, the shorter one is taken for the channels.
    """
    if array.ndim == 0:
        return "a single number is not a recording"
    if array.ndim > 2:
        first = ", ".join("0" * (array.ndim - 2))
        return f"select one recording, such as waveform[{first}], and mix its channels down"
    axis = 0 if array.shape[0] <= array.shape[1] else 1
    dtype = str(array.dtype).removeprefix("torch.")
    steps = {str(integer): round(1 / scale) for integer, scale in INTEGER_SCALES.items()}
    scaled = (
        f"(waveform / {steps[dtype]})" if dtype in steps else "waveform"
    )  # the mean of integers would lose their scale
    return f"mix its channels down with {scaled}.mean(axis={axis})"
