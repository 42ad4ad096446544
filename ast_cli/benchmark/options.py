"""The options of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from ast_cli.audio.front_ends.unstated import FrontEndName, check_front_end_name
from ast_cli.benchmark.peers import REFERENCE
from ast_cli.engine.options import EngineName, EngineOptions
from ast_cli.errors import UsageError
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS

MAX_BATCH_SIZE = 65_536


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """Options of a benchmark: the model, and the engines, data types and batch sizes to compare.

    A cell is one data type and batch size; in each cell all peers take turns.

    Attributes:
        model: Size of a model with random weights (``base``, ``small`` or ``tiny``), a checkpoint as in
            ``ASTForAudioClassification.from_pretrained``, or a folder written by ``ast export``. Use ``./base`` for a
            folder with the name of a size.
        engine: Engine that runs the model; ``auto`` for the one that ``ast classify`` uses by default, if it supports
            every data type; None for torch, or for the engine that an exported model was exported for.
        attn_implementations: Attention implementations, in the order in which they take turns; None for both, or for
            the only one of an engine without a choice.
        dtypes: Names of data types; ``auto`` is float16 on CUDA and float32 elsewhere.
        batch_sizes: Numbers of windows per batch; None for 1, 2, 4 and 8, or 1 and 2 on a CPU.
        device: Device that runs the model: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compare: ``transformers`` to measure the reference implementation as well, or None.
        num_repeats: Timed passes per peer and cell; None for as many as fit into 3 s, from 5 to 100, or 3 if a pass
            takes longer than 1 s.
        num_warmups: Untimed passes before the timed ones; None for 1 on a CPU and 5 elsewhere.
        num_threads: Number of CPU threads of the engine; None for the engine's choice, or torch's number of threads if
            transformers is measured too.
        front_end: Front end of a checkpoint that has no ``preprocessor_config.json`` and whose labels do not identify
            it: ``audioset`` or ``speech-commands``.
    """

    model: str = "base"
    engine: EngineName | None = None
    attn_implementations: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] = ("auto",)
    batch_sizes: tuple[int, ...] | None = None
    device: str = "auto"
    compare: str | None = None
    num_repeats: int | None = None
    num_warmups: int | None = None
    num_threads: int | None = None
    front_end: FrontEndName | None = None

    def __post_init__(self) -> None:
        """Validate the options, except the names of devices and data types, which are validated when resolved."""
        EngineOptions(self.engine or "auto", num_threads=self.num_threads)
        check_front_end_name(self.front_end)
        attns = self.attn_implementations
        if attns is not None and (not attns or set(attns) - set(ATTN_IMPLEMENTATIONS)):
            chosen = ",".join(attns)
            raise UsageError(f"--attn must be one or more of {', '.join(ATTN_IMPLEMENTATIONS)}, not {chosen!r}")
        if not self.dtypes:
            raise UsageError("--dtype must name at least one data type")
        if self.batch_sizes is not None and not self.batch_sizes:
            raise UsageError("--batch-size must name at least one number")
        if self.compare not in (None, REFERENCE):
            raise UsageError(f"--compare must be {REFERENCE}, not {self.compare!r}")
        for batch_size in self.batch_sizes or ():
            _check_count("--batch-size", batch_size, MAX_BATCH_SIZE)
        _check_count("--repeats", self.num_repeats)
        _check_count("--warmup", self.num_warmups)


def _check_count(name: str, value: int | None, most: int = 1_000_000) -> None:
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{name} must be from 1 to {most}, not {value}")
