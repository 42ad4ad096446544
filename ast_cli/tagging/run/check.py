"""Check the options of a run before libraries and models are loaded. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.report import BINARY, ONE_RECORDING, WIDE
from ast_cli.report.parquet import check_can_write_parquet
from ast_cli.report.spans import one_recording_only
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import ClassifyOptions, RunOptions
from ast_cli.tagging.run.folder_output import FolderPlan, plan_folder
from ast_cli.tagging.run.matches import check_matches_only


def check_run(
    inputs: Sequence[Input],
    options: ClassifyOptions,
    run_options: RunOptions,
    *,
    is_live: bool = False,
    also_read: Iterable[str] = (),
) -> FolderPlan | None:
    """Check that a run overwrites none of its inputs and no existing file, and that its options fit its inputs.

    Returns:
        The files of the inputs if they are written to a folder.

    Args:
        inputs: Inputs of the run.
        options: Options of the tagging.
        run_options: Options of the run.
        is_live: Whether the only input is raw samples on standard input.
        also_read: Other files that the command reads.

    Raises:
        UsageError: If the run is not possible; the message says what to do.
    """
    check_matches_only(options, run_options)
    paths = [item.path for item in inputs]
    if is_live:
        if paths != [STDIN]:
            raise UsageError("raw samples are read from standard input: the only input must be -")
        if run_options.resume:
            raise UsageError("live input cannot be resumed: leave out --resume")
        if run_options.shard is not None:
            raise UsageError("live input is one input: leave out --shard")
        if options.num_windows is not None:
            raise UsageError("live input has no end to spread windows over: leave out --windows")
    elif run_options.resume and STDIN in paths:
        raise UsageError("--resume cannot compare standard input with that of the earlier run: leave out - or --resume")
    if "parquet" in run_options.formats:
        check_can_write_parquet()
    if options.events and run_options.formats == (WIDE,):
        raise UsageError("wide has no place for events: leave out --events, or add a format, with --output-dir")
    if run_options.output_dir is not None:
        if is_live or options.stream:
            raise UsageError("--output-dir has files of whole recordings: write live or streamed results to --output")
        return plan_folder(
            inputs,
            run_options.output_dir,
            run_options.formats,
            resume=run_options.resume,
            force=run_options.force,
            also_read=also_read,
        )
    _check_format(run_options, len(inputs))
    if run_options.output is not None:
        sources = ReadFiles([*paths, *also_read])
        check_target(run_options.output, sources, force=run_options.force, resume=run_options.resume, may_be_pipe=True)
    return None


def _check_format(run_options: RunOptions, num_inputs: int) -> None:
    """Check that one file, or standard output, can contain the results."""
    formats = run_options.formats
    if len(formats) > 1:
        raise UsageError(f"--format {','.join(formats)} are several formats: name a folder for them with --output-dir")
    if formats[0] in BINARY and run_options.output is None:
        raise UsageError(f"{formats[0]} is binary: name a file to write it to with --output FILE.{formats[0]}")
    if formats[0] in ONE_RECORDING and num_inputs > 1:
        only = one_recording_only(formats[0])
        raise UsageError(f"{only}, and there are {num_inputs} inputs: write a file for each with --output-dir DIR")
