"""Labeled recordings for training and evaluation. Standard library only."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ast_cli.dataset.class_folders import METADATA_NAMES, read_folder
from ast_cli.dataset.manifest import MANIFEST_EXTENSIONS, LabeledRow, has_scores, read_manifest
from ast_cli.errors import NoInputsError, UsageError
from ast_cli.tagging.inputs import Input, list_inputs, no_audio_found
from ast_cli.tagging.options import WindowOptions


@dataclass(frozen=True, slots=True)
class Example:
    """A labeled recording, or a part of one.

    Attributes:
        path: Path of the file.
        labels: Label names; exactly one in single-label data, any number in multi-label data.
        split: ``train``, ``validation`` or ``test``; None if the data does not state it.
        fold: Fold of cross-validation; None if the data does not state it.
        start_s: Start of the part, in seconds.
        end_s: End of the part, in seconds; None for the end of the recording.
    """

    path: str
    labels: tuple[str, ...]
    split: str | None = None
    fold: int | None = None
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def input(self) -> Input:
        """The recording, or its part, as an input of a run."""
        duration_s = None if self.end_s is None else self.end_s - self.start_s
        return Input(self.path, part=WindowOptions(start_s=self.start_s, duration_s=duration_s))


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """A data set of labeled recordings, or a subset of one.

    Attributes:
        source: Path of the folder or manifest.
        examples: Examples, in the order of the source.
        labels: All labels of the source, sorted; a subset keeps them all.
        is_multi_label: Whether an example may have several labels, or none.
    """

    source: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    is_multi_label: bool

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the examples, in the order ``train``, ``validation``, ``test``."""
        present = {example.split for example in self.examples}
        return tuple(split for split in ("train", "validation", "test") if split in present)

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of the examples, sorted."""
        return tuple(sorted({example.fold for example in self.examples if example.fold is not None}))

    def of_split(self, split: str) -> ExampleSet:
        """Return the examples of one split.

        Raises:
            UsageError: If the split has no examples.
        """
        if split not in self.splits:
            known = f"its splits are {', '.join(self.splits)}" if self.splits else "it names no splits"
            raise UsageError(f"{self.source}: has no examples of the split {split!r}; {known}")
        return self._where(lambda example: example.split == split)

    def of_folds(self, folds: Iterable[int]) -> ExampleSet:
        """Return the examples of the given folds.

        Raises:
            UsageError: If one of the folds has no examples.
        """
        wanted = self._known_folds(folds)
        return self._where(lambda example: example.fold in wanted)

    def outside_folds(self, folds: Iterable[int]) -> ExampleSet:
        """Return the examples of all other folds, and those without a fold.

        Raises:
            UsageError: If one of the given folds has no examples.
        """
        unwanted = self._known_folds(folds)
        return self._where(lambda example: example.fold not in unwanted)

    def split_by_fraction(self, fraction: float, seed: int) -> tuple[ExampleSet, ExampleSet]:
        """Split at random, stratified by label; all parts of a recording stay in the same set.

        A multi-label example counts for the rarest of its labels. Every label keeps at least one recording in the first
        set. The result depends on the paths and the seed, not on the order of the examples.

        Args:
            fraction: Fraction of the recordings in the second set.
            seed: Seed of the random choice.

        Returns:
            The remaining examples, and those of the fraction; each in the order of the source.

        Raises:
            UsageError: If the fraction is not between 0 and 1, or there are too few recordings for it.
        """
        if not 0 < fraction < 1:
            raise UsageError(f"the fraction must be between 0 and 1, not {fraction:g}")
        shuffle = random.Random(seed).shuffle
        chosen: set[str] = set()
        owed = 0.0  # rounding error carried over from the labels before, in recordings
        for _, paths in sorted(self._paths_by_label().items()):
            shuffle(paths)
            owed += fraction * len(paths)
            num_chosen = max(0, min(round(owed), len(paths) - 1))
            owed = max(-0.5, min(owed - num_chosen, 0.5))  # limits what labels with a single recording carry over
            chosen.update(paths[:num_chosen])
        if not chosen:
            raise UsageError(f"{self.source}: too few recordings per label for a fraction of {fraction:g}")
        return (
            self._where(lambda example: example.path not in chosen),
            self._where(lambda example: example.path in chosen),
        )

    def class_counts(self) -> dict[str, int]:
        """Return the number of examples of each label, in the order of `labels`."""
        counts = Counter(label for example in self.examples for label in example.labels)
        return {label: counts[label] for label in self.labels}

    def _where(self, is_wanted: Callable[[Example], bool]) -> ExampleSet:
        return replace(self, examples=tuple(example for example in self.examples if is_wanted(example)))

    def _known_folds(self, folds: Iterable[int]) -> frozenset[int]:
        wanted = frozenset(folds)
        if unknown := sorted(wanted.difference(self.folds)):
            known = f"its folds are {', '.join(map(str, self.folds))}" if self.folds else "it has no fold column"
            raise UsageError(f"{self.source}: has no examples of fold {unknown[0]}; {known}")
        return wanted

    def _paths_by_label(self) -> dict[str, list[str]]:
        """Return the sorted recordings of each label; a recording belongs to its rarest label only."""
        counts = self.class_counts()
        labels_of: defaultdict[str, set[str]] = defaultdict(set)
        for example in self.examples:
            labels_of[example.path].update(example.labels)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(labels_of):
            groups[min(labels_of[path], key=lambda label: (counts[label], label), default="")].append(path)
        return groups


def read_examples(data: str | Path, exclude: Sequence[str] = (), *, needs_labels: bool = True) -> ExampleSet:
    """Read labeled recordings.

    `ast_cli.dataset.class_folders.read_folder` and `ast_cli.dataset.manifest.read_manifest` describe the layouts. The
    data is multi-label if its source has a column for several labels (``labels`` or ``mids``), else single-label.

    Args:
        data: Folder or manifest.
        exclude: Patterns of files and folders that the search of a folder leaves out.
        needs_labels: Whether recordings without labels are an error; they are none where a teacher's scores are the
            targets.

    Raises:
        UsageError: If the data is invalid; the message states the place and what to do.
    """
    source = os.fspath(data)
    rows = _read_rows(source, needs_labels=needs_labels, exclude=exclude)
    _check_labels(source, rows)
    fewest = 1 if needs_labels else 0
    is_multi_label = any(row.allows_several or not fewest <= len(row.labels) <= 1 for row in rows)
    labels = tuple(sorted({label for row in rows for label in row.labels}))
    if not labels and needs_labels:
        raise UsageError(f"{source}: none of its {len(rows)} examples has a label")
    if len(labels) == 1 and not is_multi_label and needs_labels:
        raise UsageError(f"{source}: all examples have the label {labels[0]!r}; at least two classes are needed")
    return ExampleSet(source, _examples(rows, is_multi_label=is_multi_label), labels, is_multi_label)


def manifest_with_scores(data: str | Path) -> str | None:
    """Return the manifest of the data, or of the folder, if it contains a teacher's scores; else None."""
    source = os.fspath(data)
    if os.path.isdir(source):
        files = (os.path.join(source, name) for name in METADATA_NAMES)
        file = next((file for file in files if os.path.isfile(file)), None)
    else:
        file = source if source.lower().endswith(MANIFEST_EXTENSIONS) else None
    return file if file is not None and has_scores(file) else None


def read_recordings(paths: Sequence[str], exclude: Sequence[str] = ()) -> ExampleSet:
    """Read recordings whose labels do not matter: data as in `read_examples`, plain folders, files and patterns.

    Args:
        paths: Folders, manifests, files and patterns.
        exclude: Patterns of files and folders that the search of folders and patterns leaves out.

    Returns:
        Examples that may lack labels; missing files are included, and fail when they are opened.

    Raises:
        UsageError: If a folder or a manifest is invalid.
        NoInputsError: If nothing matches the folders or patterns.
    """
    rows: list[LabeledRow] = []
    for path in paths:
        if os.path.isdir(path) or path.lower().endswith(MANIFEST_EXTENSIONS):
            rows += _read_rows(path, needs_labels=False, exclude=exclude)
        else:
            found = list_inputs([path], exclude=exclude)
            rows += [LabeledRow(item.path, (), item.path) for item in found if not item.is_pattern]
    if not rows:
        raise NoInputsError(no_audio_found(paths))
    parts = {(os.path.normpath(row.path), row.start_s, row.end_s): _example(row) for row in reversed(rows)}
    labels = tuple(sorted({label for row in rows for label in row.labels}))
    return ExampleSet(", ".join(paths), tuple(reversed(parts.values())), labels, is_multi_label=True)


def _read_rows(source: str, *, needs_labels: bool, exclude: Sequence[str]) -> list[LabeledRow]:
    """Read a folder or a manifest."""
    if os.path.isdir(source):
        return read_folder(source, needs_labels=needs_labels, exclude=exclude)
    if not os.path.lexists(source):
        raise UsageError(f"{source}: there is no such file or folder")
    if not source.lower().endswith(MANIFEST_EXTENSIONS):
        extensions = ", ".join(MANIFEST_EXTENSIONS)
        raise UsageError(f"{source}: data is a folder with a folder per class, or a manifest ({extensions})")
    return read_manifest(source, needs_labels=needs_labels)


def _check_labels(source: str, rows: Iterable[LabeledRow]) -> None:
    """Check that no labels differ only in case or spaces, since a typing error must not make two classes of one."""
    spellings: dict[str, str] = {}
    for row in rows:
        for label in row.labels:
            first = spellings.setdefault("".join(label.casefold().split()), label)
            if first != label:
                raise UsageError(
                    f"{row.place}: the label {label!r} differs from {first!r} only in case or spaces; use one spelling "
                    f"in {source}"
                )


def _examples(rows: Iterable[LabeledRow], *, is_multi_label: bool) -> tuple[Example, ...]:
    """Return the examples of the rows, without duplicates.

    Raises:
        UsageError: If two rows of the same recording or part have different labels, splits or folds.
    """
    first: dict[tuple[str, float, float | None], LabeledRow] = {}
    for row in rows:
        earlier = first.setdefault((os.path.normpath(row.path), row.start_s, row.end_s), row)
        if earlier is row:
            continue
        if set(earlier.labels) != set(row.labels):
            hint = "; name all labels of a recording in one row" if is_multi_label else ""
            raise UsageError(
                f"{row.place}: has the labels {_listed(row.labels)}, but the same recording has "
                f"{_listed(earlier.labels)} in {earlier.place}{hint}"
            )
        if (earlier.split, earlier.fold) != (row.split, row.fold):
            raise UsageError(f"{row.place}: the same recording has another split or fold in {earlier.place}")
    return tuple(_example(row) for row in first.values())


def _example(row: LabeledRow) -> Example:
    return Example(row.path, row.labels, row.split, row.fold, row.start_s, row.end_s)


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in labels) or "none"
