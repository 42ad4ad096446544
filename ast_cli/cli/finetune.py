"""``ast finetune``: train a model on labeled recordings."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ast_cli.about import default_flag
from ast_cli.cli.completion import complete_models
from ast_cli.cli.option_flags import as_command
from ast_cli.cli.parameters import Device, Exclude, choose_model, note_license
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.dataset.examples import manifest_with_scores, read_examples
from ast_cli.errors import ExitCode
from ast_cli.hub.licenses import license_of
from ast_cli.hub.names import BUILTIN
from ast_cli.report.text import counted, printable
from ast_cli.training.options import settings
from ast_cli.training.recipes import DEFAULT_RECIPE, options_of

if TYPE_CHECKING:
    from ast_cli.training.cross_validation import FoldsResult
    from ast_cli.training.finetune_result import FinetuneResult


def with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the ``**flags`` of a command by one flag for each field of `TrainOptions`; unused flags are None."""

    def run(**values: Any) -> None:
        own = {name: values.pop(name) for name in named}
        command(**own, **values)

    hints = inspect.get_annotations(command, eval_str=True)
    signature = inspect.signature(command)
    named = {
        name: each for name, each in signature.parameters.items() if each.kind is not inspect.Parameter.VAR_KEYWORD
    }
    parameters = [each.replace(annotation=hints[name]) for name, each in named.items()]
    for name, setting in settings().items():
        flag = default_flag(name)
        spelling = f"{flag}/--no-{name.replace('_', '-')}" if setting.kind is bool else flag
        option = typer.Option(
            spelling, help=setting.about.help, show_default=False, rich_help_panel="Settings of the recipe"
        )
        annotation: Any = Annotated[setting.kind | None, option]
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=None, annotation=annotation))
    return as_command(run, command, parameters)


@with_setting_flags
def finetune(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder per class, or a manifest: .csv, .tsv or .jsonl.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the checkpoint and its model card.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Base model: builtin, a folder, an alias, a hub id, scratch:192x6 (width and layers; random weights), "
            "or a config.json. [default: AST_MODEL, else builtin]",
            show_default=False,
            autocompletion=complete_models,
        ),
    ] = BUILTIN,  # not the AudioSet model if downloaded: a download must not change what training starts from
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="Settings to start from: default, esc50, speech-commands, audioset, scratch, or a TOML file. "
            "Flags override them.",
        ),
    ] = DEFAULT_RECIPE,
    soft_targets: Annotated[
        Path | None,
        typer.Option(
            "--soft-targets",
            metavar="FILE",
            help="Scores of a teacher for the recordings, which then need no labels: what ast classify --top-k 1000 "
            "writes, a CSV file with a column for each label, or .npz. [default: those in the manifest, if any]",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        bool, typer.Option("--folds", help="Cross-validate: train once per fold, with that fold held out.")
    ] = False,
    exclude: Exclude = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of torch on the CPU. [default: one per core]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes that decode audio. [default: half of the cores, at most 16]"),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="FOLDER",
            help="Folder that keeps the spectrograms for later runs on the same data. [default: inside the output, "
            "deleted when the run ends]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output of an earlier run.")] = False,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="Keep optimizer and training state in the output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only on stderr.")] = False,
    **flags: Any,
) -> None:
    """Train a model on labeled recordings and write a checkpoint that `ast classify` and transformers load.

    With --soft-targets it learns the scores of another model, its teacher, and recordings need no labels.

    Examples: `ast finetune clips/ --output my-model`, `ast finetune esc50.csv --model audioset --recipe esc50 --folds
    --output esc50`. Ctrl-C saves the state; the same command with --resume continues.
    """
    base_model = choose_model(model, quiet=quiet)
    note_license(base_model, license_of(base_model), quiet=quiet)
    options = options_of(recipe, {name: value for name, value in flags.items() if value is not None})
    scores_file = soft_targets or manifest_with_scores(data)
    examples = read_examples(data, exclude or (), needs_labels=scores_file is None)
    with quiet_native_libraries(), resume_hint(output, quiet=quiet):
        from ast_cli.cli.train_progress import TrainDisplay
        from ast_cli.engine.torch.device import set_num_threads
        from ast_cli.training.cross_validation import FoldsResult, finetune_folds
        from ast_cli.training.finetuning import RunSettings
        from ast_cli.training.finetuning import finetune as library_finetune

        set_num_threads(threads)
        with TrainDisplay(quiet=quiet) as display:
            run = RunSettings(
                device=device,
                num_workers=workers,
                features=features,
                resume=resume,
                force=force,
                keep_checkpoint=keep_checkpoint,
                on_report=display.report,
                on_note=display.note,
                on_failures=display.failures,
                on_progress=display.progress,
            )
            train = finetune_folds if folds else library_finetune
            result = train(examples, base_model, output, options, run, scores_file)
    num_failures = _print_folds(result) if isinstance(result, FoldsResult) else _print_result(result)
    if num_failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


@contextlib.contextmanager
def resume_hint(output: Path, *, quiet: bool) -> Iterator[None]:
    """Print how to continue when the run is interrupted and its state was saved."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and (output / "checkpoint" / "run.json").is_file():
            note(f"stopped; to continue, run the same command with --resume (state saved in {output})", quiet=quiet)
        raise


def _print_result(result: FinetuneResult) -> int:
    """Print the output folder and the metrics of the model; return the number of clips that could not be read."""
    typer.echo(printable(str(result.output)))
    for name, metrics in (("validation", result.validation), ("test", result.test)):
        if metrics is not None:
            title, value = metrics.headline
            typer.echo(f"{name} {title}  {value:.4f}  ({counted(metrics.num_examples, 'clip')})")
        agreement = result.taught.agreement.get(name) if result.taught else None
        if agreement is not None:
            top_5 = "" if agreement.top_5 is None else f", {agreement.top_5:.4f} of the first five"
            typer.echo(f"{name} agreement  {agreement.top_1:.4f} of the first labels{top_5}")
    return len(result.failures)


def _print_folds(result: FoldsResult) -> int:
    """Print the metric of each fold and their mean; return the number of clips that could not be read."""
    from ast_cli.evaluation.metrics import METRIC_NAMES

    title = METRIC_NAMES[result.metric]
    typer.echo(printable(str(result.output)))
    for fold in result.folds:
        value = "-" if fold.value is None else f"{fold.value:.4f}"
        typer.echo(f"fold {fold.fold} {title}  {value}  ({counted(fold.num_examples, 'clip')})")
    typer.echo(f"mean {title}  {result.mean:.4f}  (standard deviation {result.std:.4f})")
    return max(fold.num_failures for fold in result.folds)
