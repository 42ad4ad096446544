"""Write ``docs/json-schema.json``, the schema of the records of ``ast classify``, from the types of the results.

Run: ``make docs``. A test compares the file with what this writes, and holds records to it.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

from ast_cli.errors import ErrorCode, WarningCode
from ast_cli.results import SCHEMA_VERSION, Event, FileError, Tag, TaggingResult, Window

FILE = Path(__file__).parent / "json-schema.json"
SIMPLE = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
# Keys that a record has only where they were requested or mean something.
MAY_BE_MISSING = ("channel", "license", "scales_windows", "scored_windows", "windows", "events", "channels")
PATH_B64 = "Exact bytes of the path in base64, only where it is not UTF-8."
Schema = dict[str, Any]


def schema_of(kind: Any) -> Schema:
    """Return the schema of a type: of a simple one, a union, a list, a code, or one of the dataclasses by name."""
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if typing.get_origin(kind) is tuple:
        return {"type": "array", "items": schema_of(typing.get_args(kind)[0])}
    if isinstance(kind, types.UnionType):
        parts = [schema_of(part) for part in typing.get_args(kind)]
        if all(list(part) == ["type"] for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return {"enum": [str(code) for code in kind]}
    return {"$ref": f"#/$defs/{kind.__name__}"}


def described(kind: type[Any]) -> dict[str, str]:
    """Return what the docstring of a dataclass says about each attribute, in words of JSON."""
    text = inspect.getdoc(kind) or ""
    section = text.partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, flags=re.MULTILINE)
    return {name: _in_json(name, re.sub(r"\s+", " ", about)) for name, about in entries}


def _in_json(name: str, about: str) -> str:
    """Return the text about an attribute without Python's marks; a key that may be missing is never None."""
    if name in MAY_BE_MISSING:
        about = re.sub(r"[,;] (else )?None[^.]*\.", ".", about)
    return re.sub(r"`+", "", about).replace("None", "null")


def properties_of(kind: type[Any]) -> dict[str, Schema]:
    """Return the schema of each field of a dataclass, with its description; keys that may be missing are never null."""
    hints, about = typing.get_type_hints(kind), described(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if field.name in MAY_BE_MISSING and isinstance(hint, types.UnionType):
            (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
        text = {"description": about[field.name]} if field.name in about else {}
        properties[field.name] = text | schema_of(hint)
    return properties


def object_of(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object; later versions may add keys."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def beginning(kind: str) -> dict[str, Schema]:
    """Return the properties that each record begins with."""
    return {"schema_version": {"const": SCHEMA_VERSION}, "type": {"const": kind}}


def file_record() -> Schema:
    """Return the schema of the record of a recording, or of one of its channels."""
    fields = properties_of(TaggingResult)
    fields["warnings"]["items"] = schema_of(WarningCode)
    fields["channels"]["description"] += " In files these are records of their own."
    place = {"path": fields.pop("path"), "path_b64": {"type": "string", "description": PATH_B64}}
    place["channel"] = fields.pop("channel") | {"minimum": 1}
    properties = {**beginning("file"), **place, "status": {"enum": ["ok", "error"]}, **fields}
    failed = {"properties": {"status": {"const": "error"}}}
    return object_of(properties, ("path_b64", *MAY_BE_MISSING)) | {
        "if": failed,
        "then": {"properties": {"error": {"type": "object"}, "tags": {"maxItems": 0}}},
        "else": {"properties": {"error": {"type": "null"}}},
    }


def streamed_record(kind: type[Any]) -> Schema:
    """Return the schema of a record that ``--stream`` writes before that of its recording."""
    file = file_record()["properties"]
    place = {name: file[name] for name in ("path", "path_b64", "channel")}
    properties = {**beginning(kind.__name__.lower()), **place, **properties_of(kind)}
    return object_of(properties, ("path_b64", "channel"))


def json_schema() -> Schema:
    """Return the schema of a record, which is a line of JSON Lines, and of a list of records, which is JSON."""
    error = object_of(properties_of(FileError))
    error["properties"]["code"] = schema_of(ErrorCode)
    streamed = {f"Streamed{kind.__name__}": streamed_record(kind) for kind in (Window, Event)}
    parts = {kind.__name__: object_of(properties_of(kind)) for kind in (Tag, Window, Event)}
    records = ["TaggingResult", *streamed]
    record = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in records]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of ast classify",
        "description": "A record, which is a line of JSON Lines, or a list of records, which is a JSON document.",
        "oneOf": [{"$ref": "#/$defs/Record"}, {"type": "array", "items": {"$ref": "#/$defs/Record"}}],
        "$defs": {"Record": record, "TaggingResult": file_record(), **streamed, **parts, "FileError": error},
    }


def json_schema_text() -> str:
    """Return the content of the file."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(json_schema_text(), encoding="utf-8")
