"""The sounds to learn from, in one file: which pieces there are, what they are known to be, and which are held out.

    python models/builtin/corpus.py CORPUS [--data DATA]

reads ``CORPUS/pieces`` (of ``gather.py`` and ``render.py``) and the tables beside this script, and writes
``CORPUS/samples.npy`` (int16, all pieces in a row) and ``CORPUS/index.tsv``. ``DATA`` holds ESC-10 and a few recordings
of speech and music, with their ``meta.csv``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ast_cli.hierarchy import classes_above
from ast_cli.labels import audioset_mids

HERE = Path(__file__).parent
SAMPLING_RATE = 16_000
SHORTEST_S = 0.15
UNWANTED_LICENSE = "Sampling+"  # of two clips of ESC-10
# Packages and parts of packages from which nothing is learnt: the model is judged on them.
HELD_OUT = set(
    "ufoai-sound sonic-pi-samples trigger-rally-data asterisk-core-sounds-it-g722 asterisk-prompt-de warmux-data "
    "minetest-data pingus-data lincity-ng-data freedoom singularity-music openclonk-data sound-icons "
    "holotz-castle-data lmms-common oxygen-sounds scorched3d-data freecol boswars-data klettres-data "
    "hydrogen-drumkits-effects gcompris-qt-data".split()
)
PARTLY_HELD_OUT = set(  # a tenth of their files
    "tuxpaint-stamps-default rendered-instruments rendered-speech rendered-noises hydrogen-drumkits ktuberling-data "
    "colobot-common-sounds".split()
)
COLUMNS = ("start", "length", "package", "path", "split", "labels")


@dataclass(frozen=True)
class Piece:
    """A piece of a recording: int16 samples (length,) and what is known of it."""

    package: str
    path: str
    samples: np.ndarray
    is_held_out: bool
    labels: tuple[str, ...]  # known, the most specific ones


def read_tsv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_labels() -> list[str]:
    """Return the 521 labels in the teacher's order."""
    return (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


class Sources:
    """What ``sources.tsv`` allows, less the recordings that are samples of the project."""

    def __init__(self) -> None:
        self.rows = {row["package"]: row for row in read_tsv(HERE / "sources.tsv")}
        self.samples = [(row["package"], row["path"]) for row in read_tsv(HERE / "samples.tsv")]

    def allow(self, package: str, path: str) -> bool:
        """Say whether a piece may be learnt from or judged on."""
        if package.startswith("rendered-"):
            return True
        row = self.rows.get(package)
        if row is None or row["verdict"] == "leave":
            return False
        file = path.rsplit("#", 1)[0]
        if any(fnmatchcase(file, pattern) for pattern in row["leave_out"].split()):
            return False
        return not any(p == package and file == sample.rsplit("#", 1)[0] for p, sample in self.samples)


class Words:
    """What ``words.tsv`` says of pieces by the names of their files; its first matching line counts."""

    def __init__(self) -> None:
        self.lines: defaultdict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        rows = read_tsv(HERE / "words.tsv")
        self.rows = [(row["package"], row["path"].lower(), split_labels(row["labels"])) for row in rows]

    def labels(self, package: str, path: str) -> tuple[str, ...]:
        if package not in self.lines:
            self.lines[package] = [(path, labels) for name, path, labels in self.rows if fnmatchcase(package, name)]
        file = path.rsplit("#", 1)[0].lower()
        return next((labels for pattern, labels in self.lines[package] if fnmatchcase(file, pattern)), ())


def split_labels(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(";") if (name := part.strip()))


def with_ancestors(labels: tuple[str, ...]) -> set[str]:
    """Return labels and all of AudioSet's classes above them."""
    mids = audioset_mids()
    names = {mid: name for name, mid in mids.items()}
    above = {names[mid] for label in labels for mid in classes_above(mids[label]) if mid in names}
    return above | set(labels)


def is_held_out(package: str, path: str) -> bool:
    if package in HELD_OUT:
        return True
    return package in PARTLY_HELD_OUT and random.Random(package + path.split("#")[0]).random() < 0.1


def gathered_pieces(folder: Path) -> Iterator[Piece]:
    """Yield what may be used of the gathered and rendered pieces."""
    sources, words = Sources(), Words()
    for file in sorted(folder.glob("*.npz")):
        package = file.stem
        with np.load(file) as arrays:
            samples, lengths, names = arrays["samples"], arrays["lengths"], arrays["names"]
            rendered = arrays["labels"] if "labels" in arrays else [""] * len(lengths)
        for path, end, length, label in zip(names, np.cumsum(lengths), lengths, rendered, strict=True):
            if sources.allow(package, path):
                labels = split_labels(label) or words.labels(package, path)
                yield Piece(package, path, samples[end - length : end], is_held_out(package, path), labels)


def given_pieces(data: Path) -> Iterator[Piece]:
    """Yield ESC-10 without its two clips under CC-Sampling+, and pieces of the recordings of speech and music."""
    for row in read_csv(data / "esc10/meta.csv"):
        if UNWANTED_LICENSE not in row["licence"]:
            samples = read(data / "esc10/audio" / row["filename"])
            yield Piece("esc10", row["filename"], samples, row["fold"] == "5", (row["audioset_label"],))
    for number, row in enumerate(read_csv(data / "speech_music/meta.csv")):
        samples = read(data / "speech_music/audio" / row["filename"])
        for start in range(0, min(len(samples), 90 * SAMPLING_RATE), 30 * SAMPLING_RATE):
            part = samples[start : start + 30 * SAMPLING_RATE]
            if len(part) > 2 * SAMPLING_RATE or start == 0:
                path = f"{row['filename']}#{start}"
                yield Piece("speech_music", path, part, number % 3 == 0, (row["audioset_label"],))


def read(file: Path) -> np.ndarray:
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    samples = soxr.resample(samples.mean(1), rate, SAMPLING_RATE)
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def distinct(pieces: list[Piece]) -> list[Piece]:
    """Leave out what occurs in two packages; one that is held out stays held out."""
    kept: dict[bytes, Piece] = {}
    for piece in sorted(pieces, key=lambda piece: not piece.is_held_out):
        kept.setdefault(hashlib.sha256((piece.samples // 64).tobytes()).digest(), piece)
    return list(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    pieces = list(gathered_pieces(options.corpus / "pieces"))
    if options.data:
        pieces += given_pieces(options.data)
    pieces = distinct([piece for piece in pieces if len(piece.samples) >= SHORTEST_S * SAMPLING_RATE])
    starts = np.cumsum([0, *(len(piece.samples) for piece in pieces)])
    with open(options.corpus / "index.tsv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(COLUMNS)
        for start, piece in zip(starts[:-1].tolist(), pieces, strict=True):
            path = " ".join(piece.path.split())
            split = "test" if piece.is_held_out else "train"
            writer.writerow([start, len(piece.samples), piece.package, path, split, "; ".join(piece.labels)])
    np.save(options.corpus / "samples.npy", np.concatenate([piece.samples for piece in pieces]))
    hours = {
        split: sum(len(p.samples) for p in pieces if p.is_held_out == held_out) / SAMPLING_RATE / 3600
        for split, held_out in (("train", False), ("test", True))
    }
    known = Counter(label for piece in pieces if not piece.is_held_out for label in piece.labels)
    print(f"{len(pieces)} pieces; {hours['train']:.2f} hours to learn from, {hours['test']:.2f} held out")
    print(f"{sum(bool(piece.labels) for piece in pieces)} pieces of known kind; {len(known)} kinds to learn from")


if __name__ == "__main__":
    main()
