"""Files that are old or new, never half. Standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ast_cli.errors import AstError


def write_whole(file: Path, content: bytes, error_kind: type[AstError] = AstError) -> None:
    """Write a file that takes its name only when all of it is on the disk; its folder is made if needed.

    Args:
        file: To write, or to replace.
        content: Of it.
        error_kind: What is raised.

    Raises:
        AstError: It cannot be written; what was there before stays.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise error_kind(f"{file}: cannot be written ({error.strerror})") from error
