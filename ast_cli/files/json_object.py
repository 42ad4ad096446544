"""Reading and writing the JSON files of a checkpoint; the content that is read is not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ast_cli.errors import CheckpointError
from ast_cli.files.atomic import write_whole

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_SHOWN = 80  # maximum number of characters of a value in a message


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object.

    Raises:
        CheckpointError: If the file cannot be read or does not contain one JSON object.
    """
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: larger than any checkpoint's JSON file; is this the right file?")
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    return parse_json_object(content, str(file))


def parse_json_object(content: bytes, where: str) -> dict[str, Any]:
    """Parse bytes that contain one JSON object.

    Raises:
        CheckpointError: If the bytes contain something else; the message begins with ``where``.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: {foreign_content(content) or f'not valid JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: must contain a JSON object, not a {type(value).__name__}")
    return value


def write_json_object(file: Path, value: dict[str, Any]) -> None:
    """Write one JSON object to a file atomically; the folder is created if needed.

    Raises:
        CheckpointError: If the file cannot be written, or if strict JSON cannot represent the value.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: JSON cannot represent one of its values ({error})") from error
    write_whole(file, f"{text}\n".encode(), CheckpointError)


def shown(value: object) -> str:
    """Return an untrusted value as text for a message: on one line, printable, and short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def foreign_content(head: bytes) -> str | None:
    """Return a message if the bytes are a Git LFS pointer or a web page, as left by a failed download, else None."""
    start = head[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` or `ast download`"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page, not the file itself: download the file again"
    return None
