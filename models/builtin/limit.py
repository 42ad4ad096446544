"""Measures the teacher against itself: the same held-out windows 10 dB lower, and through Opus at 32 kbit/s.

    python models/builtin/limit.py CORPUS --teacher yamnet.safetensors

prints JSON: what a student could reach at best that hears sounds at other levels than the teacher did.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from corpus import read_labels
from evaluate import Examiner, load_targets
from mixtures import NUM_PATCHES, SILENCE, Corpus, ask
from teacher import SAMPLING_RATE, YamNet
from torch import Tensor

LOWER_DB, BIT_RATE = -10.0, 32_000


def lower(waveforms: Tensor) -> Tensor:
    return waveforms * float(10 ** (LOWER_DB / 20))


def through_opus(waveforms: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([encoded_and_decoded(waveform) for waveform in waveforms.numpy()]))


def encoded_and_decoded(waveform: np.ndarray) -> np.ndarray:
    """Return samples (N,) after Opus, of the same length; Opus' delay is what its container says."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLING_RATE, layout="mono", bit_rate=BIT_RATE)
        frame = av.AudioFrame.from_ndarray(waveform[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate = SAMPLING_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLING_RATE)
        frames = [part for decoded in container.decode(audio=0) for part in resampler.resample(decoded)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])[: len(waveform)]
    return np.pad(samples, (0, len(waveform) - len(samples)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="hear every so many windows")
    options = parser.parse_args()
    labels = read_labels()
    corpus = Corpus(options.corpus, labels, torch.device("cpu"))
    teacher = YamNet(options.teacher)
    teacher.with_openvino(torch.get_num_threads())
    examiner = Examiner(corpus, load_targets(options.corpus, len(corpus.window_piece)))
    ways: dict[str, Callable[[Tensor], Tensor]] = {"10 dB lower": lower, "Opus at 32 kbit/s": through_opus}
    found = {}
    for name, change in ways.items():
        windows = corpus.windows(examiner.test[:: options.every], 32)
        answers = (ask(teacher, change(waveforms), frames, NUM_PATCHES) for waveforms, frames in windows)
        scores = torch.cat([answer.together(labels.index(SILENCE)) for answer in answers])
        metrics = examiner.metrics(scores, options.every)
        found[name] = {key: metrics[key] for key in ("held_out_windows", "top1_agreement", "top5_overlap", "mAP")}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
