"""Results in a folder: files of their own for each input, one for each format, which a later run continues.

Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.errors import UsageError
from ast_cli.files.atomic import write_whole
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.report import WIDE, rendered, suffix_of
from ast_cli.results import Record, StreamedPart, TaggingResult
from ast_cli.tagging.inputs import Input, RealPaths
from ast_cli.tagging.run.folder_journal import FolderJournal
from ast_cli.tagging.run.journal_lines import Key
from ast_cli.tagging.run.mirrored import mirrored
from ast_cli.tagging.run.shards import Shard

FLAG = "--output-dir"


@dataclass(frozen=True, slots=True)
class FolderPlan:
    """The files of a run's inputs in a folder, all checked: none of them is overwritten by accident.

    Attributes:
        formats: Formats of the files of an input.
        files: Files of each input, one for each format, by the path of the input.
        journal: Journal of the folder.
    """

    formats: Sequence[str]
    files: Mapping[str, tuple[Path, ...]]
    journal: FolderJournal


def plan_folder(
    inputs: Sequence[Input],
    folder: Path,
    formats: Sequence[str],
    *,
    resume: bool = False,
    force: bool = False,
    also_read: Iterable[str] = (),
) -> FolderPlan:
    """Choose the files of each input, and check that the run may begin, before anything is loaded.

    Args:
        inputs: Inputs of all shards, so that no two shards choose the same name.
        folder: The output folder, which need not exist.
        formats: Formats of the files of an input.
        resume: Whether to continue a folder that was begun.
        force: Whether to replace files that exist, and to start a folder over that was begun.
        also_read: Other files that the command reads.

    Raises:
        UsageError: If the folder is a file, was begun, or contains one of the files, with neither ``resume`` nor
            ``force``, or cannot be continued.
        AstError: If the journal of the folder is damaged or cannot be read.
    """
    if resume and force:
        raise UsageError("--resume continues an output and --force replaces it: choose one")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{FLAG} {folder} is a file: name a folder, or use --output for one file of all results")
    journal = FolderJournal(folder, resume=resume, force=force, flag=FLAG)
    files = mirrored(inputs, folder, [suffix_of(name) for name in formats], journal.names)
    sources = ReadFiles([*(item.path for item in inputs), *also_read])
    for file in (file for each in files for file in each):
        check_target(file, sources, force=force, resume=resume, flag=FLAG, makes_folder=True)
    if resume:
        journal.check_begun(file for each in files for file in each)
    return FolderPlan(formats, {item.path: each for item, each in zip(inputs, files, strict=True)}, journal)


class FolderOutput:
    """Writes results to the files of a plan, and records which inputs are done; made by `open_folder_output`.

    Attributes:
        num_skipped: Number of inputs that earlier runs have done.
        num_skipped_failures: 0, because inputs that failed have no file and are tried again.
    """

    num_skipped_failures = 0

    def __init__(
        self,
        plan: FolderPlan,
        *,
        has_channels: bool = False,
        labels: Sequence[str] = (),
        num_listed: int | None = None,
    ) -> None:
        self.num_skipped = 0
        self._plan = plan
        self._has_channels = has_channels
        self._labels = labels
        self._num_listed = num_listed
        self._in_flight: dict[str, Key] = {}  # keys of inputs yielded and not written yet, by path as named

    @property
    def output(self) -> Path:
        """Folder with the results that are done."""
        return self._plan.journal.folder

    @property
    def journal_file(self) -> Path | None:
        """Journal in the folder: from the first file on."""
        return self._plan.journal.path if self._plan.journal.exists else None

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs whose files are missing, damaged, or of an earlier state of the input; count the others."""
        real_path = RealPaths()
        for item in inputs:
            key = Key.of(real_path(item))
            if self._plan.journal.has(key):
                self.num_skipped += 1
            else:
                self._in_flight[item.path] = key
                yield item

    def write(self, result: Record, item: Input, *, is_reported: bool = True) -> None:
        """Write the files of an input, each whole or not at all; an input that failed has none.

        Args:
            result: The result.
            item: The input.
            is_reported: Whether it has files; if not, it is only noted as done.

        Raises:
            AstError: If a file cannot be written; earlier files stay.
        """
        assert not isinstance(result, StreamedPart), "a run into a folder does not stream"
        key = self._in_flight.pop(item.path)
        if result.error is not None:
            return
        files = self._plan.files[item.path] if is_reported else ()
        with self._plan.journal.recording(key, *files):
            for format_name, file in zip(self._plan.formats, files, strict=False):
                listed = result if format_name == WIDE else shortened(result, self._num_listed)
                content = rendered(listed, format_name, has_channels=self._has_channels, labels=self._labels)
                write_whole(file, content)


@contextlib.contextmanager
def open_folder_output(
    plan: FolderPlan,
    fingerprint: Mapping[str, Any],
    *,
    shard: Shard | None = None,
    has_channels: bool = False,
    labels: Sequence[str] = (),
    num_listed: int | None = None,
) -> Iterator[FolderOutput]:
    """Hold the lock of the folder while its files are written.

    Args:
        plan: The files of the inputs.
        fingerprint: All settings that change results, as JSON represents them: model, options.
        shard: Shard of the inputs; None for all inputs.
        has_channels: Whether results are those of single channels, for the columns of CSV.
        labels: Labels that may be reported, for the columns of wide.
        num_listed: Greatest number of tags in the files of all formats but wide; None for all tags of the results.

    Raises:
        UsageError: If the folder was begun with other settings; the message names them.
        AstError: If another run writes to the folder, or if the folder cannot be created.
    """
    with plan.journal.open(",".join(plan.formats), fingerprint, shard):
        yield FolderOutput(plan, has_channels=has_channels, labels=labels, num_listed=num_listed)


def shortened(result: TaggingResult, num_tags: int | None) -> TaggingResult:
    """Return a result with the best tags alone, also of its windows and channels."""
    if num_tags is None:
        return result
    windows = result.windows
    if windows is not None:
        windows = tuple(dataclasses.replace(window, tags=window.tags[:num_tags]) for window in windows)
    channels = tuple(shortened(channel, num_tags) for channel in result.channels)
    return dataclasses.replace(result, tags=result.tags[:num_tags], windows=windows, channels=channels)
