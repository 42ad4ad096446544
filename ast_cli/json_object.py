"""Reading the JSON files of a checkpoint, which may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ast_cli.errors import CheckpointError

MAX_JSON_BYTES = 64 * 1024 * 1024


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
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: {foreign_content(content) or f'no valid JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: a JSON object is needed, not a {type(value).__name__}")
    return value


def foreign_content(head: bytes) -> str | None:
    """Say what stands in place of a checkpoint's file after a download that went wrong, if that is what it is."""
    start = head[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` or `ast download`"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page, not the file itself: download the file again"
    return None
