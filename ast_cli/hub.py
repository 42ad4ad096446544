"""Which checkpoint: the built-in one, a folder, a known alias or a hub id; and fetching it, verified.

The network is used by `download` and by `checkpoint_folder` for an explicit ``org/name`` that is not yet in the cache,
and by nothing else. The cache is the hub client's own, so ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and
``HF_TOKEN`` mean what they always mean. No torch here.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ast_cli.errors import HubError, UsageError

BUILTIN = "builtin"
DEFAULT_ALIAS = "audioset"
CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
WEIGHTS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
DEFAULT_REVISION = "main"
ATTEMPTS = 3
HASH_BLOCK_BYTES = 1 << 20
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """One of the eight checkpoints its authors published (BSD-3-Clause).

    Attributes:
        repo_id: On the hub.
        num_labels: 527 for AudioSet, 35 for Speech Commands.
        max_length: Frames of a window.
        stride: Of the patches, in mel bins and frames: the smaller, the slower and the better.
        quality: As its authors report it.
    """

    repo_id: str
    num_labels: int
    max_length: int
    stride: int
    quality: str


def _published(
    name: str, stride: int, quality: str, num_labels: int = 527, max_length: int = 1024
) -> PublishedCheckpoint:
    return PublishedCheckpoint(f"MIT/ast-finetuned-{name}", num_labels, max_length, stride, quality)


CHECKPOINTS = {
    "audioset-10-10-0.4593": _published("audioset-10-10-0.4593", 10, "mAP 0.4593"),
    "audioset-10-10-0.450": _published("audioset-10-10-0.450", 10, "mAP 0.450"),
    "audioset-10-10-0.448": _published("audioset-10-10-0.448", 10, "mAP 0.448"),
    "audioset-10-10-0.448-v2": _published("audioset-10-10-0.448-v2", 10, "mAP 0.448"),
    "audioset-12-12-0.447": _published("audioset-12-12-0.447", 12, "mAP 0.447"),
    "audioset-14-14-0.443": _published("audioset-14-14-0.443", 14, "mAP 0.443"),
    "audioset-16-16-0.442": _published("audioset-16-16-0.442", 16, "mAP 0.442"),
    "speech-commands": _published("speech-commands-v2", 10, "accuracy 98.12 %", num_labels=35, max_length=128),
}
SHORT_ALIASES = {DEFAULT_ALIAS: "audioset-10-10-0.4593", "fast": "audioset-16-16-0.442"}


def known_aliases() -> dict[str, str]:
    """Return every alias and the hub id it stands for."""
    full = {alias: checkpoint.repo_id for alias, checkpoint in CHECKPOINTS.items()}
    return {alias: full[name] for alias, name in SHORT_ALIASES.items()} | full


def builtin_folder() -> Path:
    """Return the folder of the model that ships in the package."""
    return Path(str(resources.files("ast_cli").joinpath("assets", "builtin")))


def default_model() -> str:
    """Return what to load when nobody says: ``AST_MODEL``, the AudioSet checkpoint if it was fetched, else built-in."""
    if chosen := os.environ.get("AST_MODEL"):
        return chosen
    return DEFAULT_ALIAS if cached_folder(known_aliases()[DEFAULT_ALIAS]) else BUILTIN


def checkpoint_folder(model: str | Path) -> Path:
    """Find the folder of a checkpoint, fetching it only if it is a hub id that is not in the cache.

    Args:
        model: ``builtin``, a folder, an alias, or a hub id such as ``MIT/ast-finetuned-audioset-10-10-0.4593``.

    Raises:
        UsageError: Nothing of that name; near aliases are offered.
        HubError: Known, but not on this machine; the message says how to get it.
    """
    name = os.fspath(model)
    if name == BUILTIN:
        return builtin_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    aliases = known_aliases()
    if name in aliases:
        if folder := cached_folder(aliases[name]):
            return folder
        raise HubError(f"the checkpoint {name!r} is not on this machine: fetch it with `ast download {name}`")
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return cached_folder(name) or download(name)
    near = difflib.get_close_matches(name, [*aliases, BUILTIN], n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {BUILTIN}, {', '.join(aliases)}"
    raise UsageError(f"no checkpoint folder or name {name!r}; {hint}")


def cached_folder(repo_id: str, revision: str = DEFAULT_REVISION) -> Path | None:
    """Return the folder of a checkpoint that is whole in the hub client's cache, or None. Never uses the network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo_id, CONFIG_NAME, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    names = (WEIGHTS_NAME, PICKLE_NAME, f"{WEIGHTS_NAME}.index.json")
    return folder if any((folder / name).exists() for name in names) else None


def download(repo_id: str, revision: str = DEFAULT_REVISION, output_dir: Path | None = None) -> Path:
    """Fetch a checkpoint and compare every file's size and hash with what the hub states.

    Args:
        repo_id: On the hub.
        revision: Branch, tag or commit.
        output_dir: A folder to put it into; None for the hub client's cache.

    Returns:
        The folder.

    Raises:
        HubError: Offline, no such checkpoint, a network that fails three times, a file that arrives wrong, no space;
            no file that is not whole stays under its name.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise HubError(
            f"{repo_id} is not in the cache and HF_HUB_OFFLINE forbids the network: unset it for one run of "
            f"`ast download {repo_id}`, or copy the folder from another machine and name it with --model"
        )
    siblings = _retry(repo_id, lambda: _file_list(repo_id, revision))
    folder: Path | None = None
    for name in _wanted_files(repo_id, siblings):
        file = _retry(repo_id, lambda name=name: _fetch(repo_id, name, revision, output_dir))
        _verify(repo_id, file, siblings[name])
        folder = file.parent if "/" not in name else folder
    assert folder is not None  # config.json is always among them
    return folder


def _file_list(repo_id: str, revision: str) -> dict[str, Any]:
    """Return the files of a checkpoint with their sizes and hashes, by name."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
    return {sibling.rfilename: sibling for sibling in info.siblings or []}


def _wanted_files(repo_id: str, siblings: dict[str, Any]) -> list[str]:
    """Choose what to fetch: the configuration files, and safetensors, or a pickle only where there are none."""
    if CONFIG_NAME not in siblings:
        raise HubError(f"{repo_id}: has no {CONFIG_NAME}; it is no model checkpoint")
    shards = [name for name in siblings if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    if WEIGHTS_NAME in siblings:
        weights = [WEIGHTS_NAME]
    elif f"{WEIGHTS_NAME}.index.json" in siblings and shards:
        weights = [f"{WEIGHTS_NAME}.index.json", *sorted(shards)]
    elif PICKLE_NAME in siblings:
        weights = [PICKLE_NAME]
    else:
        raise HubError(f"{repo_id}: has neither {WEIGHTS_NAME} nor {PICKLE_NAME}")
    optional = [PREPROCESSOR_NAME] if PREPROCESSOR_NAME in siblings else []
    return [CONFIG_NAME, *optional, *weights]


def _fetch(repo_id: str, name: str, revision: str, output_dir: Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo_id, name, revision=revision, local_dir=output_dir))


def _verify(repo_id: str, file: Path, expected: Any) -> None:
    """Compare a file with the hub's statement; a wrong one is removed, so that the next try fetches it anew."""
    size = file.stat().st_size
    problem = None
    if expected.size is not None and size != expected.size:
        problem = f"{size} bytes instead of {expected.size}"
    elif expected.lfs is not None:
        if _digest(file, hashlib.sha256()) != expected.lfs.sha256:
            problem = "its SHA-256 is not the one the hub states"
    elif (
        expected.blob_id and _digest(file, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)) != expected.blob_id
    ):
        problem = "its Git hash is not the one the hub states"
    if problem:
        for wrong in {file.resolve(), file}:
            wrong.unlink(missing_ok=True)
        raise HubError(f"{repo_id}: {file.name} arrived wrong ({problem}) and was removed; run the download again")


def _digest(file: Path, hasher: Any) -> str:
    with file.open("rb") as opened:
        while block := opened.read(HASH_BLOCK_BYTES):
            hasher.update(block)
    return str(hasher.hexdigest())


def _retry(repo_id: str, action: Any) -> Any:
    """Run a request, again after a passing fault; turn what the hub client raises into one sentence."""
    import time

    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except GatedRepoError as error:
            raise HubError(f"{repo_id}: its owner must grant you access; then set HF_TOKEN") from error
        except RepositoryNotFoundError as error:
            raise HubError(
                f"{repo_id}: no such checkpoint on the hub, or it is private and HF_TOKEN is missing"
            ) from error
        except RevisionNotFoundError as error:
            raise HubError(f"{repo_id}: has no such revision") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if attempt == ATTEMPTS or (status is not None and status < 500 and status != 429):
                raise HubError(f"{repo_id}: the hub answered {status or 'with an error'}; try again later") from error
        except PermissionError as error:
            raise HubError(f"{error.filename}: cannot be written; set HF_HOME to a folder that can") from error
        except (OSError, LocalEntryNotFoundError, ValueError) as error:
            if attempt == ATTEMPTS or getattr(error, "errno", None) in (28, 30, 122):  # no space, read-only, quota
                raise HubError(f"{repo_id}: could not be fetched ({_short(error)}); is there a network?") from error
        except Exception as error:
            if attempt == ATTEMPTS:
                raise HubError(f"{repo_id}: could not be fetched ({_short(error)}); is there a network?") from error
        time.sleep(2.0 ** (attempt - 1))
    raise AssertionError("unreachable")


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
