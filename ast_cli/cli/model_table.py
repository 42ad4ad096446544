"""The models that are known by name as text: a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import itertools
import json

from ast_cli.cli.terminal import wrapped
from ast_cli.model_list import ListedModel, ModelList

BYTES_PER_MB = 1_000_000
HEADINGS = ("name", "labels", "window", "quality", "GMAC", "MB", "here", "from")
LEFT_ALIGNED = ("name", "here", "from", "hub id")
LEGEND = "GMAC: multiply-adds for a minute of audio, in units of 1e9. MB: size to download."
HUB_ID = "hub id"  # the last column, only where there is room
NO_NUMBER = "-"
NOT_STATED = "none stated"
NONCOMMERCIAL = "no commercial use"


def json_text(listed: ModelList) -> str:
    """Return one JSON document."""
    return json.dumps(listed.to_dict(), allow_nan=False) + "\n"


def csv_text(listed: ModelList) -> str:
    """Return a header and one row for each model, with the keys of the JSON form; empty cells for null."""
    stream = io.StringIO()
    rows = [each.to_dict() for each in listed.models]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()})
    return stream.getvalue()


def table_text(listed: ModelList, width: int | None) -> str:
    """Return the models in groups by the kind of their labels, then the sources and licenses of their families.

    Args:
        listed: The models.
        width: Number of columns of the terminal; None for no limit. The hub ids need 120 columns, all else 80.
    """
    headings: tuple[str, ...] = (*HEADINGS, HUB_ID)
    rows = [headings, *(_row(each) for each in listed.models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        headings = HEADINGS
    lines = [_line(headings, headings, widths)]
    for (labels, metric), models in itertools.groupby(listed.models, key=lambda each: (each.labels, _metric(each))):
        lines.append(f"{labels[0].upper()}{labels[1:]}{f' (quality: {metric})' if metric else ''}")
        lines += (_line(headings, _row(each), widths) for each in models)
    longest = max(len(family.name) for family in listed.families)
    lines += ["", wrapped(LEGEND, width), "", "Licenses, and the papers that report the quality:"]
    for family in listed.families:
        facts = f"{family.name.ljust(longest)}  {license_text(family.license_id)}; {family.paper}"
        lines.append(wrapped(facts, width))
    return "".join(f"{line}\n" for line in lines)


def license_text(license_id: str | None) -> str:
    """Return a license in words."""
    if license_id is None:
        return NOT_STATED
    return f"{license_id}, {NONCOMMERCIAL}" if "-NC" in license_id else license_id


def _metric(model: ListedModel) -> str | None:
    """Return what the quality of a group is; the built-in model, which reports others, is listed with the first."""
    return model.metric or ("mAP" if model.repo_id is None else None)


def _row(model: ListedModel) -> tuple[str, ...]:
    return (
        model.name,
        str(model.num_labels),
        f"{model.window_s:.3g} s",
        NO_NUMBER if model.quality is None else f"{model.quality:.4f}".rstrip("0"),
        f"{model.gmac_per_minute:.3g}" if model.gmac_per_minute < 100 else f"{model.gmac_per_minute:.0f}",
        f"{model.size_bytes / BYTES_PER_MB:.0f}",
        "yes" if model.is_here else "no",
        model.family,
        model.repo_id or "",
    )


def _line(headings: tuple[str, ...], row: tuple[str, ...], widths: list[int]) -> str:
    cells = []
    for heading, cell, width in zip(headings, row, widths, strict=False):  # a row may have a column more
        cells.append(cell.ljust(width) if heading in LEFT_ALIGNED else cell.rjust(width))
    return "  ".join(cells).rstrip()
