"""The plan of a run, made without a model: its inputs, their lengths by their headers, and an estimate of its time."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ast_cli.errors import AstError, AudioError
from ast_cli.files.atomic import write_whole
from ast_cli.files.cache import cache_folder
from ast_cli.files.json_object import read_json_object
from ast_cli.tagging.decode.opening import Workers, open_inputs
from ast_cli.tagging.inputs import Input, RealPaths
from ast_cli.tagging.options import RunOptions, WindowOptions
from ast_cli.tagging.run.folder_journal import FolderJournal
from ast_cli.tagging.run.journal_lines import OK, Key, Sidecars, read_journal, records_file
from ast_cli.tagging.run.shards import in_shard

OPENING_RATE = 16_000  # Hz; any rate serves, because no sample is used
SPEEDS_NAME = "speeds.json"
MIN_AUDIO_S = 60.0  # a shorter run measures how long the program takes to start
MAX_SPEEDS = 50  # models remembered


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input of a run that has not begun.

    Attributes:
        path: Path of the input, as named or found.
        duration_s: Seconds to process, by the file's header; None if the header does not state them.
        error: Reason why the file cannot be opened; None if it can.
    """

    path: str
    duration_s: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of the last run with a model on this machine.

    Attributes:
        times_real_time: Seconds of audio in a second, decoding included.
        how: Engine, device and data type.
    """

    times_real_time: float
    how: str


def plan_run(
    inputs: Iterable[Input], part: WindowOptions, run: RunOptions, workers: Workers | None = None
) -> Iterator[PlannedInput]:
    """Yield the inputs that a run would process, in order. Each file is opened and no model is loaded.

    Args:
        inputs: Inputs of all shards.
        part: Part of each input to process.
        run: Options of the run. With ``resume``, inputs that are done are left out.
        workers: Running worker processes, or the options to start them with; None for the defaults.

    Raises:
        AstError: If the journal of the output to resume is damaged.
    """
    chosen = list(_chosen(inputs, run))
    with open_inputs(chosen, OPENING_RATE, part, workers) as turns:
        for turn in turns:
            try:
                yield PlannedInput(turn.item.path, turn.open_stream().header_duration_s)
            except AudioError as error:
                yield PlannedInput(turn.item.path, None, str(error))


def _chosen(inputs: Iterable[Input], run: RunOptions) -> Iterator[Input]:
    """Yield the inputs of the run's shard that it would process."""
    real_path = RealPaths()
    is_done = _done_before(run)
    for item in inputs:
        if run.shard is not None and not in_shard(item, run.shard, real_path):
            continue
        if not is_done(Key.of(real_path(item))):
            yield item


def _done_before(run: RunOptions) -> Callable[[Key], bool]:
    """Return whether an earlier run has written the result of an input; with ``retry_errors`` failures do not count."""
    if run.output_dir is not None and run.resume:
        return FolderJournal(run.output_dir, resume=True).has
    output = run.output if run.output is None or run.format_name != "parquet" else records_file(run.output)
    if output is None or not run.resume or not (journal := Sidecars(output).journal).exists():
        return lambda _key: False
    _, entries = read_journal(journal)
    done = {entry.key.path: entry.key for entry in entries if entry.outcome == OK or not run.retry_errors}
    return lambda key: key.path in done and not key.has_changed_since(done[key.path])


def remember_speed(model: str, audio_s: float, elapsed_s: float, how: str) -> None:
    """Store the speed of a run for `speed_of`; short runs are left out. Failures to write are ignored.

    Args:
        model: The name or folder that the model was loaded by.
        audio_s: Seconds of audio that were processed.
        elapsed_s: Seconds that this took.
        how: Engine, device and data type, to be shown with an estimate.
    """
    if audio_s < MIN_AUDIO_S or elapsed_s <= 0:
        return
    with contextlib.suppress(OSError, AstError, RuntimeError):
        file = cache_folder() / SPEEDS_NAME
        speeds = read_json_object(file) if file.is_file() else {}
        speeds.pop(model, None)
        speeds = dict(list(speeds.items())[-MAX_SPEEDS:])
        speeds[model] = {"times_real_time": round(audio_s / elapsed_s, 3), "how": how}
        write_whole(file, json.dumps(speeds, indent=2).encode())


def speed_of(model: str) -> Speed | None:
    """Return the speed of the last run with a model on this machine; None if none is remembered."""
    with contextlib.suppress(OSError, AstError, RuntimeError, KeyError, TypeError, ValueError):
        entry = read_json_object(cache_folder() / SPEEDS_NAME)[model]
        speed = Speed(float(entry["times_real_time"]), str(entry["how"]))
        if math.isfinite(speed.times_real_time) and speed.times_real_time > 0:
            return speed
    return None
