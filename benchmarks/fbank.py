"""Compare our filter bank, clip by clip and batched, with that of torchaudio, on one thread and on all.

    python benchmarks/fbank.py

If torchaudio is not installed or cannot be imported, the reference is `plain_fbank`: the same operations in the same
order, written plainly in torch. It builds the mel bank and the window only once, so it does less work than torchaudio.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR, PREEMPHASIS, FbankConfig, mel_filter_bank
from ast_cli.audio.fbank.torch_fbank import log_mel_fbank, torchaudio_fbank
from ast_cli.benchmark.timing import median_and_spread_ms, time_alternating
from ast_cli.errors import DeviceError

CPU = torch.device("cpu")
CONFIG = FbankConfig()
CLIP_S = 10
BATCH_SIZE = 8
NUM_REPEATS = 200
TOLERANCE = 5e-4  # natural-log energies, as in tests/audio/test_fbank.py


def main() -> None:
    waveforms = torch.randn(BATCH_SIZE, CLIP_S * CONFIG.sampling_rate, generator=torch.Generator().manual_seed(0)) * 0.1
    name, reference = choose_reference()
    check_equality(waveforms, reference)
    all_threads = torch.get_num_threads()
    print(f"{'':<14} {'ours, a clip':>16} {f'ours, {BATCH_SIZE} clips':>16} {name:>16}   {name} / ours")
    for num_threads in dict.fromkeys((1, all_threads)):
        torch.set_num_threads(num_threads)
        print(f"{num_threads} thread(s)".ljust(14), time_row(waveforms, reference))
    print(f"ms per clip of {CLIP_S} s, median and interquartile range")


def choose_reference() -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the name and the function of the reference: torchaudio or, without it, `plain_fbank`."""
    try:
        torchaudio_fbank(torch.zeros(1, CONFIG.frame_length_samples), CONFIG)
    except DeviceError:
        return "plain torch", plain_fbank
    return "torchaudio", torchaudio_fbank


def plain_fbank(waveforms: Tensor) -> Tensor:
    """Compute the filter bank as torchaudio does: (batch, num_samples) to (batch, num_frames, num_mel_bins)."""
    return torch.stack([plain_fbank_of_one(waveform) for waveform in waveforms])


def plain_fbank_of_one(waveform: Tensor) -> Tensor:
    mel_bank, window = tables()
    num_frames = CONFIG.num_frames(waveform.numel())
    shape, strides = (num_frames, CONFIG.frame_length_samples), (CONFIG.frame_shift_samples, 1)
    frames = waveform.as_strided(shape, strides)  # (F, 400)
    frames = frames - frames.mean(dim=1).unsqueeze(1)
    before = F.pad(frames.unsqueeze(0), (1, 0), mode="replicate").squeeze(0)  # (F, 401)
    frames = frames - PREEMPHASIS * before[:, :-1]
    frames = frames * window.unsqueeze(0)
    frames = F.pad(frames.unsqueeze(0), (0, CONFIG.fft_length - CONFIG.frame_length_samples)).squeeze(0)  # (F, 512)
    power = torch.fft.rfft(frames).abs().pow(2.0)  # (F, 257)
    return torch.mm(power, mel_bank.T).clamp(min=ENERGY_FLOOR).log()  # (F, num_mel_bins)


@functools.cache
def tables() -> tuple[Tensor, Tensor]:
    """Return the mel bank (num_mel_bins, 257) and the window (400,)."""
    window = torch.hann_window(CONFIG.frame_length_samples, periodic=False)
    return torch.from_numpy(mel_filter_bank(CONFIG).copy()), window


def check_equality(waveforms: Tensor, reference: Callable[[Tensor], Tensor]) -> None:
    difference = float((log_mel_fbank(waveforms, CONFIG) - reference(waveforms)).abs().max())
    if difference > TOLERANCE:
        sys.exit(f"error: the filter banks differ by {difference:.1e}, so their times do not compare")
    print(f"largest difference: {difference:.1e} (at most {TOLERANCE:g} is allowed)")


def time_row(waveforms: Tensor, reference: Callable[[Tensor], Tensor]) -> str:
    """Return one row of times: ours for one clip, ours per clip of a batch, and the reference for one clip."""
    clip = waveforms[:1]
    steps = [lambda: log_mel_fbank(clip, CONFIG), lambda: log_mel_fbank(waveforms, CONFIG), lambda: reference(clip)]
    times_s = time_alternating(steps, CPU, NUM_REPEATS)
    single, batched, theirs = (median_and_spread_ms(times) for times in times_s)
    batched = (batched[0] / BATCH_SIZE, batched[1] / BATCH_SIZE)
    cells = [f"{median_ms:.2f} +- {spread_ms:.2f}".rjust(16) for median_ms, spread_ms in (single, batched, theirs)]
    return " ".join(cells) + f"   {theirs[0] / single[0]:.2f} x a clip, {theirs[0] / batched[0]:.2f} x batched"


if __name__ == "__main__":
    main()
