"""The license of a model's weights: of published ones by name, else what its own folder states. No network."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ast_cli.errors import AstError
from ast_cli.files.json_object import read_json_object
from ast_cli.hub.cached import cached_folder
from ast_cli.hub.folders import describing_folder, exported_file
from ast_cli.hub.names import BUILT_IN, BUILTIN, CHECKPOINTS, CONFIG_NAME, HUB_ID, README_NAME, Family, known_aliases

LICENSE_KEY = "license"  # of config.json, where ast export and ast finetune write it, and of a model card
LICENSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
CARD_LINE = re.compile(r"""(license|license_name):\s*(["']?)(\S+)\2\s*(?:#.*)?""")
MAX_CARD_BYTES = 65_536  # of the front matter of a model card
NO_LICENSE = ("other", "unknown")  # of the hub: a license without an identifier
# Identifiers as SPDX spells them; the hub's are in lower case.
SPDX_IDS = {
    name.casefold(): name
    for name in ("Apache-2.0", "MIT", "BSD-3-Clause", "BSD-2-Clause", "ISC", "Unlicense", "BSL-1.0", "WTFPL", "Zlib")
}
CREATIVE_COMMONS = re.compile(r"cc0?-[a-z0-9.-]+", re.IGNORECASE)


def license_of(model: str | Path) -> str | None:
    """Return the SPDX identifier of the license of a model's weights; None if it is not known or not stated.

    It is known for published checkpoints and the built-in model. A folder states it in its ``config.json``, where
    ``ast export`` and ``ast finetune`` write it, or in the front matter of its model card.

    Args:
        model: Name, folder or file of a model. One that does not exist, or is not on this machine, has no license.
    """
    if (family := family_of(model)) is not None:
        return family.license_id
    name = os.fspath(model)
    folder = _own_folder(name)
    if folder is None:
        return None
    with contextlib.suppress(AstError):
        if (stated := license_id(read_json_object(folder / CONFIG_NAME).get(LICENSE_KEY))) is not None:
            return stated
    return _license_of_card(folder / README_NAME)


def _own_folder(name: str) -> Path | None:
    """Return the folder whose files describe a model; None if there is none on this machine."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not path.is_file():
        return cached_folder(name) if HUB_ID.fullmatch(name) else None
    if (exported := exported_file(name)) is not None:
        return describing_folder(exported)
    return path.parent if (path.parent / CONFIG_NAME).is_file() else None


def family_of(model: str | Path) -> Family | None:
    """Return the family of a published checkpoint, or of the built-in model; None for any other model."""
    name = os.fspath(model)
    if name == BUILTIN:
        return BUILT_IN
    if name not in known_aliases() and Path(name).expanduser().exists():
        return None
    repo_id = known_aliases().get(name, name)
    return next((known.family for known in CHECKPOINTS.values() if known.repo_id == repo_id), None)


def license_id(stated: object) -> str | None:
    """Return an identifier as SPDX spells it; None for what is no identifier."""
    if not isinstance(stated, str) or not LICENSE_ID.fullmatch(stated) or stated.casefold() in NO_LICENSE:
        return None
    if CREATIVE_COMMONS.fullmatch(stated):
        return stated.upper()
    return SPDX_IDS.get(stated.casefold(), stated)


def is_noncommercial(license_id: str | None) -> bool:
    """Return whether a license forbids commercial use, as Creative Commons' with ``NC`` do."""
    return license_id is not None and "NC" in license_id.upper().split("-")


def license_note(model: str | Path, license_id: str | None) -> str | None:
    """Return what a user must know about the license of a model; None if there is nothing."""
    if is_noncommercial(license_id):
        return f"note: the weights of {model} are under {license_id}, which forbids commercial use"
    if license_id is None and family_of(model) is not None:
        return f"note: the authors of {model} state no license for its weights"
    return None


def _license_of_card(file: Path) -> str | None:
    """Return the license in the front matter of a model card; None if there is none."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    first, *lines = text.splitlines() or [""]
    found: dict[str, str] = {}
    for line in lines if first.strip() == "---" else []:
        if line.strip() == "---":
            return license_id(found.get("license")) or license_id(found.get("license_name"))
        if match := CARD_LINE.fullmatch(line.rstrip()):
            found.setdefault(match[1], match[3])
    return None
