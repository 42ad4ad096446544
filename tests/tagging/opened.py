from __future__ import annotations

from collections.abc import Generator, Iterable

from faulty_decoders import RATE

from ast_cli.tagging.decode.opening import OpenStream, Workers, open_inputs
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import WindowOptions


def open_streams(
    workers: Workers, inputs: Iterable[Input], part: WindowOptions | None = None
) -> Generator[tuple[Input, OpenStream], None, None]:
    """Yield inputs in order, each with the function that opens it; each must be read before the next is taken."""
    with open_inputs(inputs, RATE, part, workers) as turns:
        for turn in turns:
            yield turn.item, turn.open_stream
