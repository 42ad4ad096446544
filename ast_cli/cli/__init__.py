"""The command line: one file a command, and the one place that turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from ast_cli import __version__
from ast_cli.about import default_flag
from ast_cli.cli.commands import AstGroup
from ast_cli.cli.signals import Terminated, end_on_signals
from ast_cli.cli.streams import abandon_stdout, note
from ast_cli.engine.torch.waiting import let_threads_sleep
from ast_cli.errors import DEBUG_VARIABLE, AstError, AstWarning, ExitCode
from ast_cli.training.options import OLD_NAMES

DEBUG_FLAG = "--debug"

app = typer.Typer(
    name="ast",
    help="Tag audio files with an Audio Spectrogram Transformer (AST).",
    epilog="Start with: ast classify song.wav --top-k 5. `ast help COMMAND` lists the options of a command.",
    cls=AstGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
OLD_FLAGS = {default_flag(old): default_flag(new) for old, new in OLD_NAMES.items()}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ast {__version__}")
        raise typer.Exit


@app.callback()
def ast(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG_FLAG, help="Print tracebacks; accepted anywhere in a command.")] = False,
) -> None:
    """Tag audio files with an Audio Spectrogram Transformer (AST)."""


def _rename_old_flags() -> None:
    """Replace flags of version 0.1 that have a new name; the next version stops doing so."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    for place, argument in enumerate(sys.argv[:end]):
        name, equals, value = argument.partition("=")
        if name in OLD_FLAGS:
            sys.argv[place] = OLD_FLAGS[name] + equals + value


def _take_debug_flag() -> bool:
    """Remove ``--debug`` from the command line, anywhere before ``--``; return whether to print traces."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = [argument for argument in sys.argv[:end] if argument != DEBUG_FLAG]
    if len(options) < end:
        sys.argv[:end] = options
        os.environ[DEBUG_VARIABLE] = "1"  # which worker processes inherit
    return bool(os.environ.get(DEBUG_VARIABLE))


def _show_traces() -> None:
    """Print the traces of errors of single files, which become records, on standard error."""
    import logging

    logging.basicConfig(format="debug: %(message)s")
    logging.getLogger("ast_cli").setLevel(logging.DEBUG)


def _print_error(error: Exception, *, debug: bool) -> ExitCode:
    """Print an error as one sentence, with its trace before it if wanted; return the exit code it ends in."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, AstError):
        sentence, code = str(error), error.exit_code
    else:
        remedy = "" if debug else f"run it again with {DEBUG_FLAG} for the trace, and "
        sentence = f"internal error ({type(error).__name__}: {error}): this is a bug; {remedy}please report it"
        code = ExitCode.FATAL
    note(f"error: {sentence}")
    return code


def _print_warning(message: Warning | str, *_: object) -> None:
    note(f"warning: {message}")


def _show_own_warnings() -> None:
    """Print this library's warnings as one line each, each once, and none of other libraries'."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("once", AstWarning)
    if "-q" in sys.argv or "--quiet" in sys.argv:
        warnings.simplefilter("ignore")
    warnings.showwarning = _print_warning  # type: ignore[assignment]


def main() -> NoReturn:
    """Run the command line; every error ends here as one sentence and an exit code, its trace only with ``--debug``."""
    end_on_signals()
    let_threads_sleep(os.environ)
    _rename_old_flags()
    debug = _take_debug_flag()
    if debug:
        _show_traces()
    _show_own_warnings()
    code = ExitCode.OK
    try:
        app()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Terminated:
        code = ExitCode.TERMINATED
    except BrokenPipeError:  # the reader has seen enough: `ast ... | head -1`
        abandon_stdout()
        code = ExitCode.FATAL
    except Exception as error:
        code = _print_error(error, debug=debug)
    sys.exit(code)
