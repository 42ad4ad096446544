"""``ast evaluate``: measure models on labeled recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.completion import complete_models
from ast_cli.cli.evaluation_files import EvaluationFiles
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.streams import note, notice, print_faults, quiet_native_libraries
from ast_cli.errors import ExitCode
from ast_cli.evaluation.options import EvaluationOptions
from ast_cli.report import format_for
from ast_cli.results import TaggingResult
from ast_cli.tagging.options import LoadOptions
from ast_cli.tagging.run.tally import Tally


@with_flags
def evaluate(
    *,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder with a folder per class, or a manifest (csv, tsv, jsonl).")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model, as for classify. Several --model form an ensemble: the mean of their scores.",
            autocompletion=complete_models,
        ),
    ] = None,
    split: p.Split = None,
    fold: p.Fold = None,
    exclude: p.Exclude = None,
    format_name: Annotated[
        Literal["table", "json"] | None,
        typer.Option("--format", "-f", help="Format of the result. [default: by the suffix of --output, else table]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File for the result, instead of stdout.")
    ] = None,
    thresholds_output: Annotated[
        Path | None,
        typer.Option(
            "--thresholds-output",
            metavar="FILE.json",
            help="File for the threshold of each label with the best F1, for classify --thresholds.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE.png", help="Picture of the confusion matrix, or of the average precisions."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="File for the scores of every example (.jsonl or .csv)."),
    ] = None,
    options: EvaluationOptions,
    load: LoadOptions,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    quiet: p.Quiet = False,
) -> None:
    """Evaluate models on labeled recordings.

    Single-label data gives accuracy, F1 and a confusion matrix; multi-label data gives mAP, AUC and d-prime.

    Examples: `ast evaluate clips/ --model my-model`, `ast evaluate meta.csv --fold 1 --format json --plot matrix.png`
    """
    from ast_cli.dataset.examples import read_examples

    chosen_format = format_name or format_for(output, ("json", "table"))
    outputs = EvaluationFiles(chosen_format, output, thresholds_output, plot, predictions)
    examples = p.choose_examples(read_examples(data, exclude or ()), split, fold, quiet=quiet)
    outputs.check([data, *(example.path for example in examples.examples)], force=force)
    chosen: list[str | None] = [*model] if model else [None]
    names = [p.choose_model(name, quiet=quiet) for name in chosen]

    with quiet_native_libraries():
        from ast_cli.evaluation import evaluate as evaluation
        from ast_cli.tagging.tagger import Tagger

        taggers = [Tagger.load(name, load, partial(notice, quiet=quiet)) for name in names]
        for tagger in {tagger.name: tagger for tagger in taggers}.values():
            p.note_license(tagger.name, tagger.license, quiet=quiet)
        result = evaluation.evaluate(examples, taggers, options, _Watch(quiet=quiet))
        outputs.write(result)
    if result.failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


class _Watch:
    """Shows the progress of each model, and prints errors and warnings."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, results: Iterable[TaggingResult], num_examples: int, model: str) -> Iterator[TaggingResult]:
        """Pass results on, and print a summary after the last one."""
        progress = RunProgress(Tally(num_examples))
        for result in watched(results, progress, quiet=self.quiet, to_stdout=False):
            assert isinstance(result, TaggingResult)
            print_faults(result.path, result.error, result.warnings, quiet=self.quiet)
            progress.tally.add(result)
            yield result
        note(f"{model}: {progress.tally.summary(progress.elapsed_s)}", quiet=self.quiet)
