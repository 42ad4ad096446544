"""The rows of a table of vectors in CSV: one for each window, with one column for each number."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from ast_cli.engine.interface import Engine
from ast_cli.errors import UsageError
from ast_cli.report.comma_separated import path_cells
from ast_cli.report.text import harmless_cell
from ast_cli.results import SECONDS_DECIMALS
from ast_cli.tagging.extract.extraction import WindowBatch

PLACE_COLUMNS = ("path", "start_s", "end_s")
CHANNEL_COLUMN = "channel"
EXACT_PATH_COLUMN = "path_b64"


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns of a table.

    Attributes:
        what: Kind of the numbers: ``embedding`` or ``logits``.
        has_channels: Whether there is a column for the number of the channel.
        features: Names of the columns of the numbers: ``embedding_0`` ..., or ``logits.`` and the label.
    """

    what: str
    has_channels: bool
    features: tuple[str, ...]

    @classmethod
    def of(cls, what: str, engine: Engine | None, *, has_channels: bool) -> TableColumns:
        """Return the columns for a model.

        Raises:
            UsageError: If there is no model.
        """
        if engine is None:
            raise UsageError(f"{what} needs a model")
        config = engine.config
        if what == "logits":
            names = [harmless_cell(f"logits.{config.id2label[label_id]}") for label_id in sorted(config.id2label)]
        else:
            names = [f"{what}_{number}" for number in range(config.hidden_size)]
        return cls(what, has_channels, tuple(names))

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the columns before the numbers."""
        channel = (CHANNEL_COLUMN,) if self.has_channels else ()
        return (*PLACE_COLUMNS, *channel, EXACT_PATH_COLUMN)

    def heading(self) -> bytes:
        """Return the first line: the names of the columns."""
        return _lines([[*self.places, *self.features]])

    def rows(self, path: str, batch: WindowBatch) -> bytes:
        """Return the lines of some windows of one recording.

        Numbers are written with as many digits as float32 needs to be read back exactly.

        Args:
            path: Path of the recording.
            batch: The windows, with values of shape (num_windows, len(features)).
        """
        shown_path, exact_path = path_cells(path)
        numbers = batch.values.astype(str).tolist()  # the shortest that float32 reads back
        rows = []
        for channel, (start_s, end_s), row in zip(batch.channels, batch.places_s, numbers, strict=True):
            place: list[object] = [shown_path, round(start_s, SECONDS_DECIMALS), round(end_s, SECONDS_DECIMALS)]
            rows.append([*place, *([channel] if self.has_channels else []), exact_path, *row])
        return _lines(rows)


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")
