"""Whether a run may begin, asked before anything heavy is loaded. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import RunOptions


def check_run(
    inputs: Sequence[Input], run_options: RunOptions, *, is_live: bool = False, also_read: Iterable[str] = ()
) -> None:
    """Refuse to write over what is read or exists, and to resume or share out what can be read only once.

    Args:
        inputs: Of the run.
        run_options: How it goes.
        is_live: Whether its one input is raw samples on standard input.
        also_read: Other files that are read.

    Raises:
        UsageError: With what to do.
    """
    paths = [item.path for item in inputs]
    if is_live:
        if paths != [STDIN]:
            raise UsageError("raw samples are read from standard input: name - and nothing else")
        if run_options.resume:
            raise UsageError("live input cannot be resumed: leave out --resume")
        if run_options.shard is not None:
            raise UsageError("live input is one input: leave out --shard")
    elif run_options.resume and STDIN in paths:
        raise UsageError("--resume cannot tell what standard input held the last time: leave out - or --resume")
    if run_options.output is not None:
        sources = ReadFiles([*paths, *also_read])
        check_target(run_options.output, sources, force=run_options.force, resume=run_options.resume, may_be_pipe=True)
