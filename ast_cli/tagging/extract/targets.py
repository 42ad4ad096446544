"""The output file of each input: always inside the output folder, and never the same for two inputs.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.report.parquet import check_can_write_parquet
from ast_cli.report.text import either
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import ExtractRunOptions
from ast_cli.tagging.run.folder_journal import FolderJournal
from ast_cli.tagging.run.journal_lines import Sidecars
from ast_cli.tagging.run.mirrored import mirrored

ExtractFormat = Literal["npz", "npy", "safetensors"]
EXTRACT_FORMATS: tuple[ExtractFormat, ...] = ("npz", "npy", "safetensors")
TableFormat = Literal["csv", "parquet"]
TABLE_FORMATS: tuple[TableFormat, ...] = ("csv", "parquet")  # one table of all inputs, with a row for each window
IN_TABLES = ("embedding", "logits")  # kinds of numbers that are one vector for each window
ROWS_SUFFIX = ".ast-rows"


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """The inputs of an extraction and their files.

    Attributes:
        inputs: The inputs.
        targets: The file of each input.
        format_name: Format of the files.
        journal: Journal of the output folder; None where the run cannot be resumed.
    """

    inputs: Sequence[Input]
    targets: Sequence[Path]
    format_name: str
    journal: FolderJournal | None


def plan_extraction(
    inputs: Sequence[Input],
    output: Path,
    format_name: ExtractFormat | None,
    run_options: ExtractRunOptions,
    *,
    is_single: bool = False,
) -> ExtractionPlan:
    """Choose the output file of each input, and check that the run may begin, before anything is loaded.

    Args:
        inputs: The inputs.
        output: A file for one input, or a folder.
        format_name: Format of the files; None to take it from the suffix of the output, else npz.
        run_options: Options of the run.
        is_single: Whether the one input is a file that was named by itself. Such a run keeps no journal unless it is
            resumed, so that several may write to one folder at a time.

    Raises:
        UsageError: If the output does not fit the inputs or the format, exists, or cannot be resumed.
    """
    is_file = _is_file(output)
    if run_options.resume and is_file:
        raise UsageError(f"--resume continues a folder, and --output {output} is one file: leave out --resume")
    if run_options.resume and any(item.path == STDIN for item in inputs):
        raise UsageError("--resume cannot compare standard input with that of the earlier run: leave out - or --resume")
    journal = None
    if not is_file and (run_options.resume or not is_single):
        journal = FolderJournal(output, resume=run_options.resume, force=run_options.force)
    names = {} if journal is None else journal.names
    targets = plan_targets(
        inputs, output, format_name, force=run_options.force, resume=run_options.resume, known_names=names
    )
    if run_options.resume and journal is not None:
        journal.check_begun(targets)
    suffix = output.suffix.removeprefix(".").lower()
    return ExtractionPlan(inputs, targets, suffix if is_file else format_name or "npz", journal)


@dataclass(frozen=True, slots=True)
class TablePlan:
    """The inputs of an extraction into one table.

    Attributes:
        inputs: The inputs.
        output: The table.
        format_name: Format of the table.
    """

    inputs: Sequence[Input]
    output: Path
    format_name: TableFormat

    @property
    def rows(self) -> Path:
        """File that grows row by row: a table in CSV itself, else the rows in CSV that the table is made from."""
        return self.output if self.format_name == "csv" else self.output.with_name(f"{self.output.name}{ROWS_SUFFIX}")


def table_format(output: Path, format_name: ExtractFormat | TableFormat | None) -> TableFormat | None:
    """Return the format of the table that an output is, by its format or its suffix; None if it is none.

    Raises:
        UsageError: If the suffix contradicts the format.
    """
    suffix = output.suffix.removeprefix(".").lower()
    wanted = format_name or (suffix if _is_file(output) else None)
    for known in TABLE_FORMATS:
        if wanted == known:
            if _is_file(output) and suffix != known:
                raise UsageError(f"--output {output} does not end in .{known}, the --format given")
            return known
    return None


def plan_table(
    inputs: Sequence[Input], output: Path, format_name: TableFormat, what: str, run_options: ExtractRunOptions
) -> TablePlan:
    """Check that a run into one table may begin, before anything is loaded.

    Args:
        inputs: The inputs.
        output: The table.
        format_name: Format of the table.
        what: Kind of the numbers.
        run_options: Options of the run.

    Raises:
        UsageError: If the numbers are not a vector for each window, a package is missing, or the output exists or
            cannot be continued.
    """
    plan = TablePlan(inputs, output, format_name)
    force, resume = run_options.force, run_options.resume
    if what not in IN_TABLES:
        raise UsageError(
            f"a table has one vector for each window: --what {either(IN_TABLES)}, not {what}; name a folder for files "
            f"in {either(f'.{known}' for known in EXTRACT_FORMATS)}"
        )
    if format_name == "parquet":
        check_can_write_parquet()
    if resume and any(item.path == STDIN for item in inputs):
        raise UsageError("--resume cannot compare standard input with that of the earlier run: leave out - or --resume")
    check_target(output, ReadFiles(item.path for item in inputs), force=force, resume=resume)
    if plan.rows.exists() and not (force or resume):
        raise UsageError(f"--output {output} was begun by an earlier run: --resume continues it, --force replaces it")
    if resume and output.exists() and not Sidecars(plan.rows).journal.exists():
        raise UsageError(f"{output} has no journal beside it and cannot be continued; --force replaces it")
    return plan


def plan_targets(
    inputs: Sequence[Input],
    output: Path,
    format_name: str | None,
    *,
    force: bool,
    resume: bool | None = False,
    known_names: Mapping[str, tuple[str, ...]] | None = None,
    formats: Sequence[str] = EXTRACT_FORMATS,
) -> list[Path]:
    """Return the file that each input is extracted to, or drawn in, in the order of the inputs.

    A name with the suffix of a format is a file, and takes one input; a name without a suffix, and an existing folder
    of any name, is a folder. ``v1.2`` has no suffix: a suffix begins with a letter. In a folder, the folders common to
    all inputs are left out and the suffix is added to the whole name (``a/x.wav.npz``, ``a/x.mp3.npz``), so that no two
    inputs have the same file.

    Args:
        inputs: The inputs.
        output: A file or a folder.
        format_name: Format of the files; None to take it from the suffix of the output, else the first of the formats.
        force: Whether to replace files that exist.
        resume: Whether the folder is continued, so that files of it may exist; None if the command has no ``--resume``.
        known_names: Names in the folder that earlier runs gave to inputs, by the real path of the input.
        formats: Formats that the files may have.

    Raises:
        UsageError: If there are several inputs for one file, the suffix is unknown or contradicts the format, or a file
            exists.
    """
    is_file = _is_file(output)
    suffix = output.suffix.removeprefix(".").lower()
    if is_file and suffix not in formats:
        tables = f", for a table in {either(f'.{known}' for known in TABLE_FORMATS)}"
        raise UsageError(
            f"--output {output}: {output.suffix} is not a supported format; end the name of a file in "
            f"{either(f'.{known}' for known in formats)}{tables if formats == EXTRACT_FORMATS else ''}, "
            "or name a folder without a suffix"
        )
    if is_file and len(inputs) > 1:
        raise UsageError(f"--output {output} is one file and there are {len(inputs)} inputs: name a folder")
    if is_file and format_name not in (None, suffix):
        raise UsageError(f"--output {output} does not end in .{format_name}, the --format given")
    if is_file:
        targets = [output]
    else:
        targets = [files[0] for files in mirrored(inputs, output, [f".{format_name or formats[0]}"], known_names or {})]
    sources = ReadFiles(item.path for item in inputs)
    for target in targets:
        check_target(target, sources, force=force, resume=None if is_file else resume, makes_folder=True)
    return targets


def _is_file(output: Path) -> bool:
    """Return whether an output is one file, by its name and by what exists."""
    return output.suffix[1:2].isalpha() and not output.is_dir()
