"""How many windows a CPU runs at once: measured on a long run's own windows once, then kept for every later run.

Which size is fastest depends on the processor's caches and the model's size, and no formula knows it. Sizes are tried
in turn on the first batches of a run over many inputs, so that measuring costs next to nothing; the answer goes into a
small file in the user's cache folder. Scores are the same within 1e-5 for every size (float32 sums in another order);
once the size is kept, runs repeat exactly.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ast_cli import __version__
from ast_cli.engine.interface import Engine, cpu_name
from ast_cli.files.atomic import replacing
from ast_cli.files.cache import cache_folder

CANDIDATES = (1, 2, 4, 8, 16)
NUM_ROUNDS = 3  # after one that is not measured: the first batch of a size builds its kernels
NUM_WINDOWS_MEASURED = sum(CANDIDATES) * (NUM_ROUNDS + 1)
MIN_INPUTS = 200  # of a run that measures: it has more windows than that
TIE = 1.05  # times that are so close are equal: then the smaller size has it
HOPELESS = 1.15  # slower than the best by so much is not tried again
FILE_NAME = "batch_sizes.json"
MAX_ENTRIES = 1_000
MAX_FILE_BYTES = 1 << 20


class BatchSizeSearch:
    """Says which size to run next, is told how long it took, and knows the fastest size in the end.

    Args:
        candidates: Sizes to try, ascending.
    """

    def __init__(self, candidates: Iterable[int] = CANDIDATES) -> None:
        self.seconds = dict.fromkeys(candidates, math.inf)  # per window, the least of all rounds: noise only adds
        self.best: int | None = None
        self._num_rounds = 0
        self._to_try = list(self.seconds)

    @property
    def batch_size(self) -> int:
        """The size to run next: the best one, once it is known."""
        return self._to_try[0] if self.best is None else self.best

    def add(self, num_windows: int, elapsed_s: float) -> None:
        """Take the time of a batch; one that was not full says nothing."""
        if self.best is not None or num_windows != self.batch_size:
            return
        if self._num_rounds:
            self.seconds[num_windows] = min(self.seconds[num_windows], elapsed_s / num_windows)
        self._to_try.pop(0)
        if not self._to_try:
            self._end_round()

    def _end_round(self) -> None:
        self._num_rounds += 1
        least = min(self.seconds.values())
        if self._num_rounds > NUM_ROUNDS:
            self.best = min(size for size, seconds in self.seconds.items() if seconds <= least * TIE)
        else:
            self._to_try = [size for size, seconds in self.seconds.items() if not seconds > least * HOPELESS]


class MicroBatch:
    """The number of windows that one run gives to the model at once.

    Attributes:
        num_windows: To be run together next.
        origin: Where the number comes from, for people.
    """

    def __init__(self, num_windows: int, origin: str, search: BatchSizeSearch | None = None, key: str = "") -> None:
        self.num_windows = num_windows
        self.origin = origin
        self._search = search
        self._key = key

    def add(self, num_windows: int, elapsed_s: float) -> None:
        """Take the time of a batch; where sizes are being tried this may change the number, and end with keeping it."""
        if self._search is None:
            return
        self._search.add(num_windows, elapsed_s)
        self.num_windows = self._search.batch_size
        if self._search.best is not None:
            keep(self._key, self._search.best)
            self._search, self.origin = None, "measured"

    def lower(self, num_windows: int) -> None:
        """Run no more than so many windows from now on: the device's memory is too small for more."""
        self.num_windows, self.origin, self._search = num_windows, "what the memory holds", None

    def __str__(self) -> str:
        """Return the number with its origin: ``batches of 8 windows (measured)``."""
        return f"batches of {self.num_windows} window{'s' * (self.num_windows != 1)} ({self.origin})"


def choose_micro_batch(engine: Engine, asked_for: int | None, num_inputs: int) -> MicroBatch:
    """Return how many windows to run at once: as asked for, as measured before, else by the model's size.

    Args:
        engine: The loaded model.
        asked_for: Windows a batch; None to choose.
        num_inputs: How many inputs the run has; many are worth measuring on, if nobody has before.
    """
    if asked_for is not None:
        return MicroBatch(asked_for, "as asked for")
    if engine.device_name != "cpu":
        return MicroBatch(engine.default_batch_size, f"as suits {engine.device_name}")
    key = machine_key(engine)
    if (size := kept(key)) is not None:
        return MicroBatch(size, "measured before")
    if num_inputs >= MIN_INPUTS:
        search = BatchSizeSearch()
        return MicroBatch(search.batch_size, "being measured", search, key)
    return MicroBatch(engine.default_batch_size, "by the model's size")


def machine_key(engine: Engine) -> str:
    """Return what the fastest size depends on: processor, threads, versions, and the model's sizes."""
    config = engine.config
    facts = {
        "cpu": cpu_name(),
        "engine": engine.name,
        **engine.facts,
        "ast": __version__,
        "dtype": engine.dtype_name,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "intermediate": config.intermediate_size,
        "tokens": config.num_tokens,
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def cache_file() -> Path:
    """Return where measured sizes are kept: in ``AST_CACHE``, else in the user's cache folder."""
    return cache_folder() / FILE_NAME


def kept(key: str) -> int | None:
    """Return the size that was measured for a key; a file that cannot be read or makes no sense is as good as none."""
    size = _read().get(key)
    return size if type(size) is int and size in CANDIDATES else None


def keep(key: str, size: int) -> None:
    """Keep a size for later runs; the file is replaced whole, and where it cannot be written nothing is kept."""
    sizes = _read()
    if len(sizes) >= MAX_ENTRIES:
        sizes = {}
    # RuntimeError: no home folder
    with contextlib.suppress(OSError, RuntimeError), replacing(cache_file(), is_shared=True) as stream:
        stream.write(json.dumps({**sizes, key: size}, indent=1).encode())


def _read() -> dict[str, Any]:
    with contextlib.suppress(OSError, RuntimeError, ValueError, RecursionError):
        with cache_file().open("rb") as stream:
            sizes = json.loads(stream.read(MAX_FILE_BYTES))
        if isinstance(sizes, dict):
            return sizes
    return {}
