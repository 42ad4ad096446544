"""``ast doctor``: show what is installed, and check its results against stored values."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ast_cli.errors import ExitCode
from ast_cli.report.text import counted

LINE_WIDTH = 100  # characters, for lists of file formats

if TYPE_CHECKING:
    from ast_cli.selfcheck import Check


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show versions, devices, decoders and models, and check the results against stored reference values.

    Each decoder decodes a tiny clip of every file format. The exit code is 1 if a result differs.
    """
    import warnings

    from ast_cli import selfcheck
    from ast_cli.errors import AstWarning
    from ast_cli.hub.folders import default_model

    warnings.simplefilter("ignore", AstWarning)  # float16 is slow on a CPU, but here it is only checked
    facts: dict[str, Any] = {
        "versions": selfcheck.versions(),
        "decoders": selfcheck.decoders(),
        "devices": selfcheck.devices(),
        "caches": selfcheck.caches(),
        "models": selfcheck.models(),
        "default_model": default_model(),
    }
    checks = list(selfcheck.run_checks())
    # torchaudio is optional: it is no failure if its filter bank cannot be imported.
    needed = [check for check in checks if check.engine != "torchaudio" or check.difference is not None]
    num_wrong = sum(not check.is_right for check in needed)
    if as_json:
        typer.echo(json.dumps({**facts, "checks": [check.to_dict() for check in checks], "num_wrong": num_wrong}))
    else:
        for heading, values in facts.items():
            _print_facts(heading, values)
        typer.echo("checks: largest difference from the stored reference values")
        for line in _decoding_lines([check for check in checks if check.what == "decoding"]):
            typer.echo(f"  {line}")
        for check in checks:
            if check.what != "decoding":
                typer.echo(f"  {_check_line(check, is_needed=check in needed)}")
        typer.echo("all numbers are right" if not num_wrong else f"{counted(num_wrong, 'check')} failed")
    if num_wrong:
        raise typer.Exit(ExitCode.FATAL)


def _print_facts(heading: str, values: dict[str, str | None] | str) -> None:
    if isinstance(values, str):
        typer.echo(f"{heading.replace('_', ' ')}: {values}")
        return
    typer.echo(f"{heading}:")
    for name, value in values.items():
        typer.echo(f"  {name:<24} {value or '-'}")


def _decoding_lines(checks: list[Check]) -> list[str]:
    """Return a line for each clip that failed, and lines with the formats that each decoder decodes correctly."""
    lines = [f"{_check_line(check, is_needed=True)} in {check.container}" for check in checks if not check.is_right]
    for decoder in sorted({check.engine for check in checks}):
        right = [check.container for check in checks if check.engine == decoder and check.is_right]
        if right:
            text = f"{'decoding':<8} {decoder:<14} {len(right)} kinds of files ok: {', '.join(right)}"
            lines += textwrap.wrap(text, LINE_WIDTH, subsequent_indent=" " * 22)
    return lines


def _check_line(check: Check, *, is_needed: bool) -> str:
    verdict = "ok" if check.is_right else ("FAILED" if is_needed else "not available")
    number = "" if check.difference is None else f"{check.difference:.1e} (at most {check.tolerance:.0e})"
    return (
        f"{check.what:<8} {check.engine:<14} {check.device:<7} {check.dtype:<9} {verdict:<14} {number}{check.message}"
    )
