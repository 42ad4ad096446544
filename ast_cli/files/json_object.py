"""Reading and writing the JSON files of a checkpoint; what is read may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import CheckpointError
from ast_cli.files.atomic import write_whole

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_SHOWN = 80  # characters of a value in a message
FEATURE_EXTRACTOR_TYPE = "ASTFeatureExtractor"  # of a checkpoint's preprocessor_config.json


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Raises:
        CheckpointError: It cannot be read, or holds something else; the message says what.
    """
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: larger than any checkpoint's JSON file; is this the right file?")
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    return parse_json_object(content, str(file))


def parse_json_object(content: bytes, where: str) -> dict[str, Any]:
    """Read bytes that must hold one JSON object.

    Raises:
        CheckpointError: They hold something else; the message begins with ``where``.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: {foreign_content(content) or f'no valid JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: a JSON object is needed, not a {type(value).__name__}")
    return value


def write_json_object(file: Path, value: dict[str, Any]) -> None:
    """Write one JSON object into a folder that is made if needed; the file is old or new, never half.

    Raises:
        CheckpointError: The folder cannot be written, or strict JSON cannot hold the value.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: JSON cannot hold a value of it ({error})") from error
    write_whole(file, f"{text}\n".encode(), CheckpointError)


def refuse_foreign_front_end(preprocessor: Mapping[str, Any], where: str) -> None:
    """Refuse the ``preprocessor_config.json`` of a checkpoint that needs other features, such as MAEST's.

    Its model may be of the same type and shape: nothing else tells that its scores would be wrong.

    Raises:
        CheckpointError: Naming the front end.
    """
    kind = preprocessor.get("feature_extractor_type")
    if kind not in (None, FEATURE_EXTRACTOR_TYPE):
        raise CheckpointError(f"{where}: needs another front end, {shown(kind)}: its scores would be wrong here")


def shown(value: object) -> str:
    """Return a foreign value as a message can show it: on one line, printable, and short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def foreign_content(head: bytes) -> str | None:
    """Say what stands in place of a checkpoint's file after a download that went wrong, if that is what it is."""
    start = head[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` or `ast download`"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page, not the file itself: download the file again"
    return None
