"""Results as a pandas data frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ast_cli.errors import UsageError
from ast_cli.results import TaggingResult, path_fields

if TYPE_CHECKING:
    from pandas import DataFrame

# Columns with their data types: those that keep an empty cell apart from 0.
DTYPES = {
    **{"path": "string", "channel": "Int64", "type": "string", "start_s": "float64", "end_s": "float64"},
    **{"rank": "Int64", "label": "string", "label_id": "Int64", "mid": "string", "score": "float64"},
    **{"max_score": "float64", "status": "string", "error_code": "string"},
}


def results_to_dataframe(results: TaggingResult | Iterable[TaggingResult]) -> DataFrame:
    """Return the tags of results as a data frame, a row for each tag.

    A recording has the rows of its windows and events where it has those, else of its tags. A recording, a window or a
    channel without tags has one row without a label, so that nothing that was tagged is missing; so has an input that
    failed, with ``status`` ``error``.

    Args:
        results: Results, as from `Tagger.classify_paths` or `read_results`, which are taken one by one; or one result.

    Returns:
        Columns ``path``, ``channel``, ``type`` (``file``, ``window`` or ``event``), ``start_s`` and ``end_s`` (in
        seconds), ``rank`` (from 1), ``label``, ``label_id``, ``mid``, ``score`` (of an event the mean), ``max_score``
        (of an event), ``status`` and ``error_code``.

    Raises:
        UsageError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("results_to_dataframe needs pandas: pip install pandas") from error
    if isinstance(results, TaggingResult):
        results = [results]
    columns: dict[str, list[Any]] = {name: [] for name in DTYPES}
    for result in results:
        for record in result.records:
            for row in _rows(record):
                for name, values in columns.items():
                    values.append(row.get(name))
    return pandas.DataFrame({name: pandas.Series(columns[name], dtype=dtype) for name, dtype in DTYPES.items()})


def _rows(record: TaggingResult) -> Iterator[dict[str, Any]]:
    """Yield the rows of a recording, or of one channel, without empty cells."""
    common = {"path": path_fields(record.path)["path"], "channel": record.channel, "status": record.status}
    if record.error is not None:
        yield {**common, "type": "file", "error_code": str(record.error.code)}
        return
    for window in record.windows or ():
        times = {"type": "window", "start_s": window.start_s, "end_s": window.end_s}
        yield from ({**common, **times, **tag} for tag in _ranked(window.tags))
    for event in record.events or ():
        fields = event.to_dict()
        yield {**common, "type": "event", **fields, "score": event.mean_score, "max_score": event.max_score}
    if not record.windows and not record.events:
        times = {"type": "file", "start_s": 0.0, "end_s": record.duration_s}
        yield from ({**common, **times, **tag} for tag in _ranked(record.tags if record.events is None else ()))


def _ranked(tags: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the cells of tags; of none an empty row."""
    rows = [
        {"rank": rank, "label": tag.label, "label_id": tag.label_id, "mid": tag.mid, "score": tag.score}
        for rank, tag in enumerate(tags, start=1)
    ]
    return rows or [{}]
