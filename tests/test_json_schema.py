"""The schema of the records: made from the types, and what records of every kind are held to."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import ErrorCode
from ast_cli.results import Event, FileError, StreamedPart, Tag, TaggingResult, Window

jsonschema = pytest.importorskip("jsonschema")
DOCS = Path(__file__).parent.parent / "docs"
SCHEMA = json.loads((DOCS / "json-schema.json").read_text(encoding="utf-8"))
TAGS = (Tag("Rain", 1, "/m/06mb1", 0.713), Tag("own", 0, None, -3.5))
WINDOW = Window(0.0, 5.12, TAGS)
EVENT = Event("Rain", 1, None, 0.0, 5.12, 0.6, 0.9)
PLAIN = TaggingResult("a.wav", "builtin", "softmax", 6.0, 44100, 2, TAGS, warnings=("truncated",))
SPREAD = dataclasses.replace(PLAIN, scored_windows=((0.0, 5.12), (40.0, 45.12)), scales_windows=True, license="MIT")
TIMED = dataclasses.replace(SPREAD, path=None, windows=(WINDOW, Window(2.9, 8.0, ())), events=(EVENT,))
CHANNEL = dataclasses.replace(PLAIN, channel=2, path="caf\udce9.wav")
FAILED = TaggingResult("bad.wav", "m", "softmax", error=FileError(ErrorCode.EMPTY_FILE, "is empty"))
RECORDS = {
    "plain": PLAIN.to_dict(),
    "spread": SPREAD.to_dict(),
    "timed": TIMED.to_dict(),
    "empty": dataclasses.replace(PLAIN, tags=(), windows=(), events=()).to_dict(),
    "channel": CHANNEL.to_dict(),
    "channels": TaggingResult.from_channels([CHANNEL]).to_dict(),
    "failed": FAILED.to_dict(),
    "licensed": dataclasses.replace(PLAIN, license="CC-BY-NC-SA-4.0").to_dict(),
    "window": StreamedPart("a.wav", WINDOW).to_dict(),
    "event": StreamedPart("caf\udce9.wav", EVENT, 1).to_dict(),
}


def validate(document: Any) -> None:
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)


def test_the_file_is_that_of_the_types() -> None:
    spec = importlib.util.spec_from_file_location("json_schema", DOCS / "json_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.json_schema_text()
    assert (DOCS / "json-schema.json").read_text(encoding="utf-8") == made, "run `make docs`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert "None" not in made


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_valid(name: str) -> None:
    validate(RECORDS[name])


def test_a_list_of_records_is_valid() -> None:
    validate(list(RECORDS.values()))
    validate([])


@pytest.mark.parametrize(
    ("name", "definition"), [("timed", "TaggingResult"), ("window", "StreamedWindow"), ("event", "StreamedEvent")]
)
def test_every_key_is_in_the_schema_and_every_required_one_in_the_record(name: str, definition: str) -> None:
    """A key that is added to a record without the schema fails here; validation itself allows more keys."""
    schema = SCHEMA["$defs"][definition]
    optional = {"path_b64", "channel", "channels"}
    assert set(RECORDS[name]) | optional == set(schema["properties"]) | optional
    assert set(schema["required"]) <= set(RECORDS[name])
    for part, kind in (("tags", "Tag"), ("windows", "Window"), ("events", "Event")):
        for record in RECORDS[name].get(part, ()):
            assert list(record) == list(SCHEMA["$defs"][kind]["properties"]) == SCHEMA["$defs"][kind]["required"]


def changed(name: str, **changes: Any) -> Any:
    record = copy.deepcopy(RECORDS[name])
    return {key: value for key, value in (record | changes).items() if value is not ...}


@pytest.mark.parametrize(
    "record",
    [
        changed("plain", schema_version=2),
        changed("plain", type="folder"),
        changed("plain", path=...),
        changed("plain", tags=None),
        changed("plain", tags=[{"label": "Rain"}]),
        changed("plain", windows=None),
        changed("plain", channel=0),
        changed("plain", duration_s="6"),
        changed("plain", warnings=["loud"]),
        changed("plain", status="error"),
        changed("failed", error=None),
        changed("failed", error={"code": "broken", "message": ""}),
        changed("failed", tags=RECORDS["plain"]["tags"]),
        changed("window", end_s=...),
        changed("event", mean_score=...),
    ],
)
def test_what_is_no_record_is_not_valid(record: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(record)


def test_later_versions_may_add_keys() -> None:
    validate(changed("timed", language="en"))
