"""Judges a model on what was held out: agreement with the teacher, known labels, calibration.

    python models/builtin/evaluate.py CORPUS MODEL [--data DATA]

prints the metrics and writes them to ``MODEL/metrics.json``. ``MODEL/thresholds.json`` gets the threshold of each label
with 20 positives among the held-out windows, ``MODEL/labels.json`` the labels that were never over 0.3 in training. A
model with other labels is judged on the named recordings and on the recordings of speech and music alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import read_labels, read_tsv, split_labels
from mixtures import EXTRACTOR, FRAME, HOP, KNOWN, WINDOW, Corpus, spectrograms
from sklearn.metrics import average_precision_score
from torch import Tensor

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification
from ast_cli.evaluation.agreement import agreement
from ast_cli.evaluation.calibration import reliability
from ast_cli.evaluation.thresholds import best_thresholds, write_thresholds

HERE = Path(__file__).parent
POSITIVE = 0.3  # a teacher's score from which a class counts as heard
FEWEST_POSITIVES = 5  # for a class to count in the mean average precision
FEWEST_FOR_THRESHOLD = 20
SPEECH_OR_MUSIC = ("Speech", "Music")

Recording = tuple[str, np.ndarray, tuple[str, ...]]  # name, samples and right labels


class Examiner:
    """Compares a model's scores for held-out windows with the teacher's and, where a label is known, with that."""

    def __init__(self, corpus: Corpus, targets: Tensor, extractor: ASTFeatureExtractor = EXTRACTOR) -> None:
        self.corpus, self.extractor = corpus, extractor
        self.test = corpus.is_test.nonzero()[:, 0]
        self.targets = targets[self.test]

    @torch.no_grad()
    def scores(self, model: ASTForAudioClassification, chosen: Tensor) -> Tensor:
        """Return scores (W, 521) of windows of the corpus."""
        windows = self.corpus.windows(chosen, 64)
        return torch.cat([scores_of(model, spectrograms(*window, self.extractor)) for window in windows])

    def examine(self, model: ASTForAudioClassification, most: int | None = None) -> dict[str, Any]:
        """Return the metrics of a model, over at most so many windows."""
        step = max(1, -(-len(self.test) // most)) if most else 1
        return self.metrics(self.scores(model, self.test[::step]), step)

    def truth(self) -> Tensor:
        """Return what is true of the held-out windows, (W, 521): what the teacher hears, and what is known."""
        return (self.targets > POSITIVE) | (self.corpus.known[self.corpus.window_piece[self.test]] > 0)

    def metrics(self, scores: Tensor, step: int = 1) -> dict[str, Any]:
        test, targets = self.test[::step], self.targets[::step]
        truth = targets > POSITIVE
        classes = truth.sum(0) >= FEWEST_POSITIVES
        agreed = agreement(scores.cpu().numpy(), targets.cpu().numpy(), is_multi_label=True)
        precision = average_precision_score(truth[:, classes].cpu(), scores[:, classes].cpu()) if classes.any() else 0.0
        results: dict[str, Any] = {
            "held_out_windows": len(targets),
            "top1_agreement": agreed.top_1,
            "top5_overlap": agreed.top_5,
            "mAP": float(precision),
            "mAP_classes": int(classes.sum()),
        }
        piece = self.corpus.window_piece[test]
        exact, package = self.corpus.known[piece] == KNOWN, self.corpus.package[piece]
        with_ancestors = self.corpus.known[piece] > 0
        rank = (scores > (scores * exact).amax(1, keepdim=True)).sum(1)  # 0: the best
        first = scores.argmax(1, keepdim=True)
        for number, name in enumerate(self.corpus.package_names):
            chosen = exact.any(1) & (package == number)
            if chosen.any():
                results[name] = {"windows": int(chosen.sum())}
                results[name] |= {f"top{k}": round((rank[chosen] < k).float().mean().item(), 4) for k in (1, 3)}
                right = with_ancestors[chosen].gather(1, first[chosen])
                results[name]["top1_with_ancestors"] = round(right.float().mean().item(), 4)
        return results


def scores_of(model: ASTForAudioClassification, input_values: Tensor) -> Tensor:
    """Return scores (B, labels) for a model's input."""
    return model(input_values).logits.float().sigmoid()


def recording_scores(
    model: ASTForAudioClassification, extractor: ASTFeatureExtractor, samples: np.ndarray
) -> np.ndarray:
    """Return the scores of a recording (int16, 16 kHz): the mean over its windows, as ``ast classify`` has it."""
    starts = range(0, max(1, len(samples) - WINDOW // 5), WINDOW)
    parts = [torch.from_numpy(samples[start : start + WINDOW].astype(np.float32) / 32768) for start in starts]
    waveforms = torch.stack([torch.nn.functional.pad(part, (0, WINDOW - len(part))) for part in parts])
    num_frames = torch.tensor([max(1, (len(part) - FRAME) // HOP + 1) for part in parts])
    with torch.no_grad():
        return scores_of(model, spectrograms(waveforms, num_frames, extractor)).mean(0).numpy()


def judge(
    model: ASTForAudioClassification, extractor: ASTFeatureExtractor, recordings: list[Recording]
) -> dict[str, Any]:
    """Say how often a right label is first, and among the first three; what is wrong is listed."""
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    ranks, wrong = [], []
    for name, samples, right in recordings:
        order = np.argsort(-recording_scores(model, extractor, samples))
        ranks.append(next((rank for rank, i in enumerate(order) if names[i] in right), len(order)))
        if ranks[-1]:
            wrong.append(f"{name}: {', '.join(names[i] for i in order[:3])} instead of {right[0]}")
    return {
        "recordings": len(ranks),
        "first": sum(rank == 0 for rank in ranks),
        "among_three": sum(rank < 3 for rank in ranks),
        "wrong": wrong,
    }


def named_recordings(corpus: Corpus) -> list[Recording]:
    """Return name, samples and right labels of the recordings that ``named.tsv`` lists."""
    places = {(row["package"], row["path"]): row for row in corpus.rows}
    samples = corpus.samples.numpy()
    recordings = []
    for row in read_tsv(HERE / "named.tsv"):
        if place := places.get((row["package"], " ".join(row["path"].split()))):
            start, length = int(place["start"]), int(place["length"])
            recordings.append(
                (row["path"].rsplit("/", 1)[1], samples[start : start + length], split_labels(row["right"]))
            )
    return recordings


def speech_and_music(corpus: Corpus) -> list[Recording]:
    """Return the held-out recordings of speech and of music."""
    samples = corpus.samples.numpy()
    recordings = []
    for row in corpus.rows:
        if row["package"] == "speech_music" and row["split"] == "test" and row["labels"] in SPEECH_OR_MUSIC:
            start, length = int(row["start"]), int(row["length"])
            recordings.append((row["path"], samples[start : start + length], SPEECH_OR_MUSIC))
    return recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="print only")
    options = parser.parse_args()
    model = ASTForAudioClassification.from_pretrained(str(options.model), dtype=torch.float32).eval()
    extractor = ASTFeatureExtractor.from_pretrained(str(options.model))
    labels = read_labels()
    corpus = Corpus(options.corpus, labels, torch.device("cpu"))
    metrics: dict[str, Any] = {"named": judge(model, extractor, named_recordings(corpus))}
    metrics["speech_music_recordings"] = judge(model, extractor, speech_and_music(corpus))
    if model.config.num_labels == len(labels):
        targets = load_targets(options.corpus, len(corpus.window_piece))
        examiner = Examiner(corpus, targets, extractor)
        scores = examiner.scores(model, examiner.test)
        metrics |= examiner.metrics(scores)
        truth = examiner.truth()
        frequent = truth.sum(0) >= FEWEST_FOR_THRESHOLD
        if not frequent.any():  # a small corpus
            frequent[:] = True
        calibration = reliability(scores[:, frequent].numpy(), truth[:, frequent].numpy())
        metrics["calibration"] = {"classes": int(frequent.sum()), **calibration.to_dict()}
        learnt = torch.maximum(targets, corpus.known[corpus.window_piece])[~corpus.is_test].amax(0)
        unproven = [label for label, most in zip(labels, learnt.tolist(), strict=True) if most <= POSITIVE]
        metrics["unproven_labels"] = len(unproven)
        if not options.dry_run:
            found = best_thresholds(scores.numpy(), truth.numpy(), labels, FEWEST_FOR_THRESHOLD)
            write_thresholds(options.model / "thresholds.json", found, ["builtin"], "held-out windows")
            text = json.dumps({"unproven": unproven}, indent=2, ensure_ascii=False)
            (options.model / "labels.json").write_text(text + "\n", encoding="utf-8")
            (options.model / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))


def load_targets(folder: Path, num_windows: int) -> Tensor:
    """Return what the teacher says of all windows, (W, 521), from the files that training wrote."""
    files = sorted(folder.glob(f"targets-{num_windows}-*.pt"))
    return sum((torch.load(file, weights_only=True) for file in files), torch.zeros(())).float()


if __name__ == "__main__":
    main()
