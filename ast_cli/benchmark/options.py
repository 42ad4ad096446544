"""What a benchmark measures, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass

from ast_cli.audio.front_end import FrontEndName, check_front_end_name
from ast_cli.benchmark.peers import REFERENCE
from ast_cli.engine.options import EngineName, EngineOptions
from ast_cli.errors import UsageError
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS

MAX_BATCH_SIZE = 65_536


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """What to run against what.

    Attributes:
        model: ``base``, ``small`` or ``tiny`` with random weights; else a checkpoint as in
            ``ASTForAudioClassification.from_pretrained``, or a folder that ``ast export`` wrote. A folder of such a
            name is ``./base``.
        engine: What runs the model; ``auto`` for the fastest installed that offers every data type; None for torch,
            or what an exported model was exported for.
        attn_implementations: Which attentions, in the order they take turns; None for both, or the engine's own.
        dtypes: Names of data types; ``auto`` is float16 on CUDA and float32 elsewhere.
        batch_sizes: Windows at once; None for 1, 2, 4, 8, on a CPU 1, 2.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compare: ``transformers`` to have the reference implementation take turns too.
        num_repeats: Timed passes of a peer in a cell; None for as many as fit 3 s, 5 to 100, and 3 where a
            pass takes longer than 1 s.
        num_warmups: Passes before those; None for 1 on a CPU and 5 elsewhere.
        num_threads: Of the engine on the CPU; None for its own choice, or torch's where ``transformers`` takes part.
        front_end: ``audioset`` or ``speech-commands``, where a checkpoint brings no ``preprocessor_config.json`` and
            its labels do not tell either.
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
        """Refuse what cannot be; names of devices and data types are checked where they are resolved."""
        EngineOptions(self.engine, num_threads=self.num_threads)
        check_front_end_name(self.front_end)
        attns = self.attn_implementations
        if attns is not None and (not attns or set(attns) - set(ATTN_IMPLEMENTATIONS)):
            chosen = ",".join(attns)
            raise UsageError(f"attn must be one or more of {', '.join(ATTN_IMPLEMENTATIONS)}, not {chosen!r}")
        if not self.dtypes:
            raise UsageError("dtype must name at least one data type")
        if self.batch_sizes is not None and not self.batch_sizes:
            raise UsageError("batch size must name at least one number")
        if self.compare not in (None, REFERENCE):
            raise UsageError(f"compare must be {REFERENCE}, not {self.compare!r}")
        for batch_size in self.batch_sizes or ():
            _check_count("batch size", batch_size, MAX_BATCH_SIZE)
        _check_count("repeats", self.num_repeats)
        _check_count("warmup", self.num_warmups)


def _check_count(name: str, value: int | None, most: int = 1_000_000) -> None:
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{name} must be from 1 to {most}, not {value}")
