"""The command line: one file a command, and the one place that turns errors into exit codes."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, NoReturn

import typer

from ast_cli import __version__
from ast_cli.cli import benchmark, classify, doctor, download, evaluate, export, extract, finetune, merge, stats
from ast_cli.cli.signals import Terminated, end_on_signals
from ast_cli.cli.streams import abandon_stdout
from ast_cli.errors import AstError, AstWarning, ExitCode
from ast_cli.report.text import printable

app = typer.Typer(
    name="ast",
    help="Tag audio files with AudioSet labels, by the Audio Spectrogram Transformer.",
    epilog="Start with: ast classify song.wav --top-k 5",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("classify")(classify.classify)
app.command("extract")(extract.extract)
app.command("export")(export.export)
app.command("finetune")(finetune.finetune)
app.command("evaluate")(evaluate.evaluate)
app.command("stats")(stats.stats)
app.command("merge")(merge.merge)
app.command("benchmark")(benchmark.benchmark)
app.command("download")(download.download)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ast {__version__}")
        raise typer.Exit


@app.callback()
def ast(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tag audio files with AudioSet labels, by the Audio Spectrogram Transformer."""


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {printable(str(message))}", file=sys.stderr)  # noqa: T201


def _show_own_warnings() -> None:
    """Print this library's warnings as one line each, and none of other libraries'."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AstWarning)
    if "-q" in sys.argv or "--quiet" in sys.argv:
        warnings.simplefilter("ignore")
    warnings.showwarning = _print_warning  # type: ignore[assignment]


def main() -> NoReturn:
    """Run the command line; every error ends here as one sentence and an exit code, anything else is a bug."""
    end_on_signals()
    _show_own_warnings()
    code = ExitCode.OK
    try:
        app()
    except AstError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Terminated:
        code = ExitCode.TERMINATED
    except BrokenPipeError:  # the reader has seen enough: `ast ... | head -1`
        abandon_stdout()
        code = ExitCode.FATAL
    sys.exit(code)
