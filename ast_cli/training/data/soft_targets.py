"""Soft targets of a run: which scores of a teacher belong to which clips, and the targets that follow from them."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ast_cli.dataset.examples import Example, ExampleSet, manifest_with_scores, read_examples
from ast_cli.dataset.manifest import candidate_paths
from ast_cli.dataset.soft_targets import SoftTargets, read_soft_targets
from ast_cli.errors import UsageError
from ast_cli.report.text import counted
from ast_cli.results import FileError
from ast_cli.tagging.inputs import Input, RealPaths
from ast_cli.training.data.batches import Clips, Fbanks, target_matrix
from ast_cli.training.data.spectrograms import UnreadExample
from ast_cli.training.data.window_targets import WindowTargets, combined
from ast_cli.training.options import TrainOptions

SAME_TIME_S = 0.002  # tables have times in milliseconds
CLIPS_AT_ONCE = 4096  # whose labels are in memory beside the targets
MAX_UNCOVERED_FRAMES = 100  # that windows may leave of a clip's end without a note
NEAR_LABELS = 3  # similar labels that a message lists


@dataclass(frozen=True, eq=False)
class MatchedTargets:
    """The scores of a teacher for the clips of a data set.

    Attributes:
        soft: Scores, and what is known about them.
        examples: Clips with scores. Their labels are those of the data; the labels of the set are the teacher's.
        rows: Rows of the scores for each clip: one for the whole clip, or those of the windows that it overlaps.
        failures: Clips that the teacher could not score.
        num_unused: Number of recordings with scores that are no clips of the data.
    """

    soft: SoftTargets
    examples: ExampleSet
    rows: Mapping[Example, NDArray[np.int64]]
    failures: tuple[UnreadExample, ...]
    num_unused: int

    @property
    def has_labels(self) -> bool:
        """Whether a clip has labels beside its scores."""
        return any(example.labels for example in self.examples.examples)

    def digest(self) -> str:
        """Return the SHA-256 of labels, times and scores of all clips."""
        whole = hashlib.sha256("\n".join(self.soft.labels).encode("utf-8", "surrogatepass"))
        for example in self.examples.examples:
            rows = self.rows[example]
            for values in (self.soft.starts[rows], self.soft.ends[rows], self.soft.scores[rows]):
                whole.update(np.ascontiguousarray(values).data)
        return whole.hexdigest()


def training_data(
    data: str | Path | ExampleSet, soft_targets: str | Path | SoftTargets | None
) -> tuple[ExampleSet, SoftTargets | None]:
    """Read the data of a run, and the scores of a teacher if there are any: in a file, or in the manifest itself.

    Raises:
        UsageError: If the data or the scores are invalid.
    """
    if soft_targets is None and not isinstance(data, ExampleSet):
        soft_targets = manifest_with_scores(data)
    examples = data if isinstance(data, ExampleSet) else read_examples(data, needs_labels=soft_targets is None)
    if soft_targets is None or isinstance(soft_targets, SoftTargets):
        return examples, soft_targets
    return examples, read_soft_targets(soft_targets)


def match_soft_targets(examples: ExampleSet, soft: SoftTargets, options: TrainOptions) -> MatchedTargets:
    """Find the scores of each clip.

    Paths are compared as files, whatever their spelling; a relative one may start at the current folder, at the file of
    the scores, or at the data. A clip takes the row of exactly its part if there is one, else all rows of parts that
    it overlaps.

    Args:
        examples: Clips, with labels or without.
        soft: Scores of a teacher.
        options: Options with ``soft_weight``; 1 drops the labels of the clips.

    Raises:
        UsageError: If a clip has no scores, or a label that the teacher lacks.
    """
    if options.soft_weight == 1:
        unlabeled = tuple(replace(example, labels=()) for example in examples.examples)
        examples = replace(examples, examples=unlabeled, is_multi_label=False)
    _check_labels(examples, soft)
    real_path = RealPaths()
    paths = {real_path(Input(example.path)) for example in examples.examples}
    rows_of, num_unused = _rows_by_path(examples.source, soft, paths, real_path)
    errors = dict(_failures(examples.source, soft, paths, real_path))
    rows: dict[Example, NDArray[np.int64]] = {}
    failures: list[UnreadExample] = []
    missing: list[str] = []
    for example in examples.examples:
        path = real_path(Input(example.path))
        found = _rows_of(example, soft, rows_of.get(path))
        if isinstance(found, str):
            if path in errors:
                failures.append((example, errors[path]))
            else:
                missing.append(found)
        else:
            rows[example] = found
    _check_found(soft, rows, missing, len(examples), has_paths=bool(rows_of))
    matched = replace(
        examples,
        examples=tuple(example for example in examples.examples if example in rows),
        labels=soft.labels,
        is_multi_label=examples.is_multi_label or not soft.are_probabilities,
    )
    return MatchedTargets(soft, matched, rows, tuple(failures), num_unused)


def _check_labels(examples: ExampleSet, soft: SoftTargets) -> None:
    """Check that the teacher knows the labels of the data."""
    known = frozenset(soft.labels)
    for example in examples.examples:
        for label in example.labels:
            if label in known:
                continue
            folded = {name.casefold(): name for name in soft.labels}
            near = difflib.get_close_matches(label.casefold(), folded, n=NEAR_LABELS)
            similar = f", which has {', '.join(repr(folded[name]) for name in near)}" if near else ""
            raise UsageError(
                f"{examples.source}: the label {label!r} of {example.path} has no scores in {soft.source}{similar}; "
                "correct it, or ignore all labels of the data with --soft-weight 1"
            )


def _located(path: str, source: str, soft: SoftTargets, paths: set[str], real_path: RealPaths) -> str | None:
    """Return the real path of a recording in the scores if it is one of the data, else None."""
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    for candidate in (path, *candidate_paths(os.path.dirname(soft.source), path), *candidate_paths(folder, path)):
        found = real_path(Input(candidate))
        if found in paths:
            return found
    return None


def _rows_by_path(
    source: str, soft: SoftTargets, paths: set[str], real_path: RealPaths
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Return the rows of each recording of the data, by real path, and the number of other recordings with scores.

    Raises:
        UsageError: If two rows are of the same part of a recording.
    """
    located: dict[str, str | None] = {}
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(soft.paths):
        if path not in located:
            located[path] = _located(path, source, soft, paths, real_path)
        if (found := located[path]) is not None:
            rows_of[found].append(row)
    for rows in rows_of.values():
        first: dict[tuple[float, float], int] = {}
        for row in rows:
            earlier = first.setdefault((soft.starts[row], soft.ends[row]), row)
            if earlier != row:
                raise UsageError(
                    f"{soft.place(row)}: has scores for {soft.paths[row]!r}, as {soft.place(earlier)} has; keep one"
                )
    num_unused = sum(found is None for found in located.values())
    return {path: np.array(rows, np.int64) for path, rows in rows_of.items()}, num_unused


def _failures(source: str, soft: SoftTargets, paths: set[str], real_path: RealPaths) -> Iterator[tuple[str, FileError]]:
    """Yield the recordings of the data that the teacher could not score, by real path."""
    for path, error in soft.failures.items():
        if (found := _located(path, source, soft, paths, real_path)) is not None:
            yield found, error


def _rows_of(example: Example, soft: SoftTargets, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | str:
    """Return the rows for a clip, or a description of the clip that has none."""
    if rows is None:
        return repr(example.path)
    end_s = np.inf if example.end_s is None else example.end_s
    starts, ends = soft.starts[rows], soft.ends[rows]
    same_end = (ends == end_s) | (np.abs(np.where(np.isinf(ends), -1, ends) - end_s) < SAME_TIME_S)
    exact = np.flatnonzero((np.abs(starts - example.start_s) < SAME_TIME_S) & same_end)
    if len(exact):
        return rows[exact[:1]]
    is_whole = (starts == 0) & np.isinf(ends)
    windows = rows[~is_whole & (starts < end_s) & (ends > example.start_s)]
    if len(windows):
        return np.asarray(windows)
    part = f"{example.path!r} from {example.start_s:g} s to {'its end' if example.end_s is None else f'{end_s:g} s'}"
    hint = ", only for the whole recording; score windows with ast classify --timestamps"
    return part + hint if is_whole.any() else part


def _check_found(
    soft: SoftTargets,
    rows: Mapping[Example, NDArray[np.int64]],
    missing: Sequence[str],
    num_clips: int,
    *,
    has_paths: bool,
) -> None:
    """Check that every clip has scores, except those that the teacher could not score."""
    if missing:
        count = f" ({len(missing)} of {num_clips} clips have none)" if len(missing) > 1 else ""
        example = "" if has_paths else f"; its first recording is {soft.paths[0]!r}"
        raise UsageError(f"{soft.source}: has no scores for {missing[0]}{count}{example}")
    if not rows:
        raise UsageError(f"{soft.source}: has errors instead of scores for all clips of the data")


def soft_clips(
    fbanks: Fbanks,
    num_frames: Sequence[int],
    examples: Sequence[Example],
    matched: MatchedTargets,
    weight: float | None,
    frames_per_s: float,
) -> Clips:
    """Return clips with soft targets.

    Args:
        fbanks: Log-mel energies by index.
        num_frames: Number of frames of each clip.
        examples: The clips that could be read, in the order of the log-mel energies.
        matched: Scores of the clips.
        weight: Weight of the soft targets beside the labels; None if the labels are only kept as the truth.
        frames_per_s: Number of frames in a second.
    """
    soft = matched.soft
    are_probabilities = not matched.examples.is_multi_label
    rows = [matched.rows[example] for example in examples]
    flat, first = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    windows = None
    if len(flat) > len(examples):
        starts_s = np.repeat([example.start_s for example in examples], np.diff(first))
        starts, ends = ((times[flat] - starts_s) * frames_per_s for times in (soft.starts, soft.ends))
        labels = target_matrix(examples, soft.labels, np.bool_)
        windows = WindowTargets(soft.scores, flat, first, starts, ends, labels, weight, are_probabilities)
        targets = np.stack([windows.part_scores(clip, 0, length) for clip, length in enumerate(num_frames)])
    else:
        targets = soft.scores[flat]
    # What the data states is true, whatever the weight of its labels in the targets.
    truth = np.empty_like(targets) if weight is not None and matched.has_labels else None
    for start in range(0, len(examples), CLIPS_AT_ONCE):
        part = slice(start, start + CLIPS_AT_ONCE)
        of_part = target_matrix(examples[part], soft.labels)
        if truth is not None:
            truth[part] = combined(targets[part], of_part, None, are_probabilities=are_probabilities)
        targets[part] = combined(targets[part], of_part, weight, are_probabilities=are_probabilities)
    return Clips(fbanks, targets, tuple(range(len(examples))), windows, truth)


def num_uncovered(clips: Clips, num_frames: Sequence[int]) -> int:
    """Return the number of clips that last longer than their windows by more than `MAX_UNCOVERED_FRAMES`."""
    if clips.windows is None:
        return 0
    ends = np.maximum.reduceat(clips.windows.ends, clips.windows.first[:-1])
    return int((np.array(num_frames) - ends > MAX_UNCOVERED_FRAMES).sum())


def unused_note(matched: MatchedTargets) -> str:
    """Return a note on recordings with scores that are not in the data."""
    recordings = counted(matched.num_unused, "recording")
    return f"note: {matched.soft.source} also has scores for {recordings} that the data lacks"
