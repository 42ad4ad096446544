"""The labels of a model as text: a table, a drawing of AudioSet's hierarchy, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Set

from ast_cli.errors import UsageError
from ast_cli.hierarchy import audioset_classes, classes_above, classes_below, classes_directly_below
from ast_cli.label_list import LabelList, ListedLabel, nothing_contains
from ast_cli.report.text import harmless_cell, label_text

CSV_COLUMNS = ("label_id", "mid", "label", "ancestors", "unproven")
BELOW = " > "  # between a class and one below it
ALSO = "; "  # between two chains of classes that lead to the same label
NO_MID = "-"
UNPROVEN = "unproven"
OUTSIDE = "(not in AudioSet's hierarchy)"


def json_text(listed: LabelList) -> str:
    """Return one JSON document."""
    return json.dumps(listed.to_dict(), allow_nan=False) + "\n"


def csv_text(listed: LabelList) -> str:
    """Return a header and one row for each label; ``unproven`` is empty if the model does not say it."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    for each in listed.labels:
        unproven = "" if each.unproven is None else str(each.unproven).lower()
        rows.writerow([each.label_id, each.mid or "", harmless_cell(each.label), _chains(each), unproven])
    return stream.getvalue()


def table_text(listed: LabelList) -> str:
    """Return a table with one line for each label; a column for unproven labels only if there are any."""
    rows = [("id", "mid", "label", "", "ancestors")]
    for each in listed.labels:
        mark = UNPROVEN if each.unproven else ""
        rows.append((str(each.label_id), each.mid or NO_MID, label_text(each.label), mark, _chains(each)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [column for column, width in enumerate(widths) if width]
    lines = ("  ".join(row[column].ljust(widths[column]) for column in shown).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _chains(label: ListedLabel) -> str:
    return ALSO.join(BELOW.join(chain) for chain in label.ancestors)


def tree_text(listed: LabelList, search: str | None = None) -> str:
    """Draw AudioSet's hierarchy as far as it leads to labels of the model.

    Classes that are no labels of the model are in parentheses. A class below several others is drawn below each.

    Args:
        listed: Labels of the model.
        search: Part of a name or machine identifier; only classes that contain it, and those above and below them, are
            drawn. None for all.

    Raises:
        UsageError: If no label is in the hierarchy, or no name contains the text.
    """
    by_mid = {each.mid: each for each in listed.labels if each.mid is not None}
    if not by_mid:
        raise UsageError(f"no label of {listed.model} is in AudioSet's hierarchy: leave out --tree")
    drawn = {above for mid in by_mid for above in (mid, *classes_above(mid))}
    outside = [each for each in listed.labels if each.mid is None]
    if search is not None:
        folded = search.strip().casefold()
        found = [mid for mid in drawn if folded in mid.casefold() or folded in audioset_classes()[mid].name.casefold()]
        outside = [each for each in outside if folded in each.label.casefold()]
        if not found and not outside:
            names = [audioset_classes()[mid].name for mid in sorted(drawn)]
            raise UsageError(nothing_contains(search.strip(), listed.model, names))
        drawn &= {each for mid in found for each in (mid, *classes_above(mid), *classes_below(mid))}
    tops = [mid for mid in audioset_classes() if mid in drawn and not audioset_classes()[mid].parents]
    lines = [line for top in tops for line in _branch(top, drawn, by_mid)]
    if outside:
        last = len(outside) - 1
        names = [label_text(each.label) + _mark(each) for each in outside]
        lines += [OUTSIDE, *(f"{'└─' if i == last else '├─'} {name}" for i, name in enumerate(names))]
    return "".join(f"{line}\n" for line in lines)


def _branch(mid: str, drawn: Set[str], by_mid: dict[str, ListedLabel]) -> Iterator[str]:
    """Yield the line of a class, then those of the classes below it, indented."""
    name = audioset_classes()[mid].name
    yield f"{name}  {mid}{_mark(by_mid[mid])}" if mid in by_mid else f"({name})"
    below = [each for each in classes_directly_below().get(mid, ()) if each in drawn]
    for each in below:
        first, others = ("└─ ", "   ") if each == below[-1] else ("├─ ", "│  ")
        head, *rest = _branch(each, drawn, by_mid)
        yield first + head
        yield from (others + line for line in rest)


def _mark(label: ListedLabel) -> str:
    return f"  {UNPROVEN}" if label.unproven else ""
