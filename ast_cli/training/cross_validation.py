"""Cross-validation: one run per fold of the data, and ``folds.json`` with their metrics and the mean."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ast_cli.dataset.examples import ExampleSet
from ast_cli.dataset.soft_targets import SoftTargets
from ast_cli.errors import UsageError
from ast_cli.evaluation.metrics import METRIC_DECIMALS, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.files.json_object import read_json_object, write_json_object
from ast_cli.results import SCHEMA_VERSION
from ast_cli.training.data.soft_targets import training_data
from ast_cli.training.finetuning import FEATURES_NAME, RunSettings, finetune, matched_targets, run_facts
from ast_cli.training.options import TrainOptions
from ast_cli.training.output_folder import (
    CHECKPOINT_NAME,
    FOLDS_NAME,
    RESULTS_NAME,
    begin,
    check_output,
    fold_folder,
    is_finished,
    is_interrupted,
    remove_checkpoint,
    writing,
)
from ast_cli.training.recipes import options_of

HEADLINES = {kind.problem: kind.headline_key for kind in (SingleLabelMetrics, MultiLabelMetrics)}


@dataclass(frozen=True)
class FoldResult:
    """Result of one fold.

    Attributes:
        fold: Number of the fold held out.
        folder: Output folder of its run.
        num_examples: Number of examples the model was evaluated on.
        value: Value of the metric; None if no example of the fold has a label.
        num_failures: Number of examples of the data that could not be read.
    """

    fold: int
    folder: Path
    num_examples: int
    value: float | None
    num_failures: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"fold": self.fold, "folder": self.folder.name, "num_examples": self.num_examples, "value": self.value}


@dataclass(frozen=True)
class FoldsResult:
    """Results of all folds.

    Attributes:
        output: Folder that contains a folder per fold.
        metric: Key of the metric: ``accuracy`` or ``mean_average_precision``.
        folds: Result of each fold.
    """

    output: Path
    metric: str
    folds: tuple[FoldResult, ...]

    @property
    def values(self) -> list[float]:
        """The metric of each fold that has one."""
        return [fold.value for fold in self.folds if fold.value is not None]

    @property
    def mean(self) -> float:
        """The mean of the metric over folds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The sample standard deviation of the metric over folds; 0 for a single fold."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``folds.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "folds",
            "metric": self.metric,
            "mean": round(self.mean, METRIC_DECIMALS),
            "std": round(self.std, METRIC_DECIMALS),
            "folds": [fold.to_dict() for fold in self.folds],
        }


def finetune_folds(
    data: str | Path | ExampleSet,
    model: str,
    output: str | Path,
    options: TrainOptions | None = None,
    run: RunSettings | None = None,
    soft_targets: str | Path | SoftTargets | None = None,
) -> FoldsResult:
    """Train once per fold of the data, with that fold held out.

    Args:
        data: Data with folds, as for `ast_cli.training.finetuning.finetune`.
        model: Base model of every fold, as for `finetune`.
        output: Folder for ``folds.json`` and a folder ``fold-N`` per fold.
        options: Options of every fold; ``fold`` must be None.
        run: Settings as for `finetune`; with ``resume`` the interrupted fold continues and finished folds are kept.
        soft_targets: Soft targets of all folds, as for `finetune`.

    Raises:
        UsageError: If the data has fewer than two folds, or as in `finetune`.
        AstError: As in `finetune`.
    """
    options, run, output = options or options_of(), run or RunSettings(), Path(output)
    examples, soft = training_data(data, soft_targets)
    if options.fold is not None:
        raise UsageError("--folds holds out every fold in turn and --fold one: choose one")
    if len(examples.folds) < 2:
        raise UsageError(f"{examples.source}: --folds needs data with at least two folds (a column named fold)")
    check_output(output, {"base model": model, "data": examples.source}, resume=run.resume, force=run.force)
    matched = matched_targets(examples, soft, options)
    clips = matched.examples if matched else examples
    facts = {**run_facts(clips, model, options, matched), "folds": True}
    with writing(output):
        begin(output, facts, resume=run.resume)
        run = replace(run, features=run.features or output / CHECKPOINT_NAME / FEATURES_NAME)
        folds = []
        for number, fold in enumerate(examples.folds, start=1):
            folder = fold_folder(output, fold)
            if not (run.resume and is_finished(folder)):
                run.on_note(f"fold {fold} is held out ({number} of {len(examples.folds)})")
                resumes = run.resume and is_interrupted(folder)
                own_run = replace(run, resume=resumes, force=not resumes)
                finetune(examples, model, folder, replace(options, fold=fold), own_run, soft)
            folds.append(_fold_result(folder, fold))
        problem = "multi_label" if clips.is_multi_label else "single_label"
        result = FoldsResult(output, HEADLINES[problem], tuple(folds))
        if not result.values:
            raise UsageError(f"{examples.source}: no fold has a clip with a label, so no metric can be computed")
        write_json_object(output / FOLDS_NAME, result.to_dict())
        if not run.keep_checkpoint:
            remove_checkpoint(output)
    return result


def _fold_result(folder: Path, fold: int) -> FoldResult:
    """Read the result of a finished fold, which an earlier, interrupted run may have written."""
    results = read_json_object(folder / RESULTS_NAME)
    validation = results["validation"]
    value = validation["metrics"][HEADLINES[validation["problem"]]] if validation else None
    num_examples = results["num_examples"]["validation"]
    return FoldResult(fold, folder, num_examples, value, len(results["failures"]))
