"""``ast finetune``: a model of one's own from labeled recordings."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ast_cli.cli.option_flags import as_command
from ast_cli.cli.parameters import Device, choose_model
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.dataset.examples import read_examples
from ast_cli.errors import ExitCode
from ast_cli.hub.names import BUILTIN
from ast_cli.report.text import counted, printable
from ast_cli.training.options import settings
from ast_cli.training.recipes import DEFAULT_RECIPE, options_of

if TYPE_CHECKING:
    from ast_cli.training.cross_validation import FoldsResult
    from ast_cli.training.finetune_result import FinetuneResult


def with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with ``**flags`` one flag for each field of `TrainOptions`; a flag not used is None."""

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
        flag = "--" + name.replace("_", "-")
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
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the checkpoint goes, with its card.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Base model: builtin, a folder, an alias, a hub id, scratch:192x6 (width and layers; random weights), "
            "or a config.json. [default: AST_MODEL, else builtin]",
            show_default=False,
        ),
    ] = BUILTIN,  # whatever is downloaded: that must not change what training starts from
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", help="default, esc50, speech-commands, audioset, scratch, or a TOML file; flags go before it."
        ),
    ] = DEFAULT_RECIPE,
    folds: Annotated[
        bool, typer.Option("--folds", help="Hold out every fold of the data in turn, each in a folder of its own.")
    ] = False,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="Of torch on the CPU. [default: torch's choice, the cores]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode. [default: the cores]")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="FOLDER",
            help="Keep the spectrograms here for later runs on the same data. [default: in FOLDER, until the end]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run's output.")] = False,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="Leave the state for --resume in the output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
    **flags: Any,
) -> None:
    """Train a model on labeled recordings; writes a checkpoint that classify and transformers load.

    Examples: `ast finetune clips/ --output my-model`, `ast finetune esc50.csv --model audioset --recipe esc50 --folds
    --output esc50`. Ctrl-C saves; the same command with --resume goes on.
    """
    base_model = choose_model(model, quiet=quiet)
    options = options_of(recipe, {name: value for name, value in flags.items() if value is not None})
    examples = read_examples(data)
    with quiet_native_libraries(), told_how_to_go_on(output, quiet=quiet):
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
            result = train(examples, base_model, output, options, run)
    num_failures = _print_folds(result) if isinstance(result, FoldsResult) else _print_result(result)
    if num_failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


@contextlib.contextmanager
def told_how_to_go_on(output: Path, *, quiet: bool) -> Iterator[None]:
    """Say at an interruption what is saved, if anything is."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and (output / "checkpoint" / "run.json").is_file():
            note(f"stopped; the same command with --resume goes on from what is saved in {output}", quiet=quiet)
        raise


def _print_result(result: FinetuneResult) -> int:
    """Print where the checkpoint is and how good it is; return how many clips could not be read."""
    typer.echo(printable(str(result.output)))
    for name, metrics in (("validation", result.validation), ("test", result.test)):
        if metrics is not None:
            title, value = metrics.headline
            typer.echo(f"{name} {title}  {value:.4f}  ({counted(metrics.num_examples, 'clip')})")
    return len(result.failures)


def _print_folds(result: FoldsResult) -> int:
    """Print each fold's metric and their mean; return how many clips could not be read."""
    from ast_cli.evaluation.metrics import METRIC_NAMES

    title = METRIC_NAMES[result.metric]
    typer.echo(printable(str(result.output)))
    for fold in result.folds:
        value = "-" if fold.value is None else f"{fold.value:.4f}"
        typer.echo(f"fold {fold.fold} {title}  {value}  ({counted(fold.num_examples, 'clip')})")
    typer.echo(f"mean {title}  {result.mean:.4f}  (standard deviation {result.std:.4f})")
    return max(fold.num_failures for fold in result.folds)
