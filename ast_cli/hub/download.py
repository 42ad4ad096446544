"""Verified downloads from the hub: a checkpoint is complete, with every file as the hub states it, or not visible.

Only `download` uses the network, and `ast_cli.hub.folders.checkpoint_folder` for an explicit ``org/name`` that is not
yet in the cache. The cache is the hub client's own, so ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and
``HF_TOKEN`` have their usual meaning.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.errors import HubError, UsageError
from ast_cli.files.atomic import replacing
from ast_cli.hub.cached import cached_folder
from ast_cli.hub.client import (
    WrongFileError,
    client_output,
    is_transient,
    is_worth_fetching_again,
    missing,
    retry,
    unwritable,
)
from ast_cli.hub.names import (
    CONFIG_NAME,
    DEFAULT_REVISION,
    INDEX_NAME,
    LABELS_NAME,
    PICKLE_NAME,
    PREPROCESSOR_NAME,
    README_NAME,
    THRESHOLDS_NAME,
    WEIGHTS_NAME,
)

REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The files of a checkpoint at one commit, as listed by the hub.

    Attributes:
        repo_id: Hub id of the checkpoint.
        revision: Requested branch, tag or commit.
        commit: Commit of the revision; all files are downloaded from it even if the branch moves in the meantime.
        files: Sizes and hashes (the client's ``RepoSibling``) of the files to download, by name, config.json last.
    """

    repo_id: str
    revision: str
    commit: str
    files: dict[str, Any]


def download(
    repo_id: str, revision: str = DEFAULT_REVISION, output_dir: Path | None = None, *, quiet: bool = False
) -> Path:
    """Download a checkpoint and verify the size and hash of every file.

    A file gets its final name only when it is complete, and a revision in the cache refers to the new files only when
    all of them are verified, so an interrupted update leaves the previous files in use.

    Args:
        repo_id: Hub id of the checkpoint.
        revision: Branch, tag or commit.
        output_dir: Folder for the files; None for the hub client's cache.
        quiet: Whether to hide the client's warnings and its progress bar, which otherwise appears on a terminal.

    Returns:
        Folder with the files.

    Raises:
        HubError: If the machine is offline, the checkpoint does not exist, the network fails repeatedly, a file is
            wrong repeatedly, or the disk is full.
        UsageError: If the revision is not a valid name, or the folder contains other files of the same names.
    """
    from huggingface_hub import constants

    if not REVISION.fullmatch(revision):
        raise UsageError(f"{revision!r} is not a valid revision; use a branch, a tag or a commit")
    if constants.HF_HUB_OFFLINE:
        if output_dir is None and (folder := cached_folder(repo_id, revision)):
            return folder
        raise HubError(f"{repo_id}: HF_HUB_OFFLINE is set, and {missing(repo_id, revision)}")
    with client_output(quiet):
        snapshot = _list_files(repo_id, revision)
        return _fetch_to_cache(snapshot) if output_dir is None else _fetch_to_folder(snapshot, output_dir)


def _list_files(repo_id: str, revision: str) -> _Snapshot:
    """Request the list of a checkpoint's files with sizes and hashes, and select those to download."""
    from huggingface_hub import HfApi, constants

    def request(_attempt: int) -> Any:  # for this request, the client has neither retries nor a default timeout
        return HfApi().model_info(
            repo_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )

    info = retry(repo_id, revision, request, is_transient)
    stated = {sibling.rfilename: sibling for sibling in info.siblings or []}
    files = {name: stated[name] for name in _needed_files(repo_id, list(stated))}
    for name, file in files.items():
        if file.lfs is None and not file.blob_id:
            raise HubError(f"{repo_id}: the hub states no hash of {name}, so the file cannot be verified")
    return _Snapshot(repo_id, revision, info.sha or revision, files)


def _needed_files(repo_id: str, names: list[str]) -> list[str]:
    """Select the files to download: safetensors, or a pickle only if there are none, and the configuration last."""
    if CONFIG_NAME not in names:
        raise HubError(f"{repo_id}: has no {CONFIG_NAME}, so it is not a model checkpoint")
    shards = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    if WEIGHTS_NAME in names:
        weights = [WEIGHTS_NAME]
    elif INDEX_NAME in names and shards:
        weights = [*shards, INDEX_NAME]
    elif PICKLE_NAME in names:
        weights = [PICKLE_NAME]
    else:
        raise HubError(f"{repo_id}: has neither {WEIGHTS_NAME} nor {PICKLE_NAME}")
    optional = [name for name in (PREPROCESSOR_NAME, THRESHOLDS_NAME, LABELS_NAME, README_NAME) if name in names]
    return [*weights, *optional, CONFIG_NAME]


def _fetch_to_cache(snapshot: _Snapshot) -> Path:
    """Download into the hub client's cache, and update the revision's reference when all files are verified."""
    folder = [_fetch(snapshot, name) for name in snapshot.files][-1].parent
    reference = folder.parent.parent / "refs" / snapshot.revision  # the client's documented layout
    try:
        known = reference.read_text() if reference.is_file() else None
        if snapshot.commit not in (snapshot.revision, known):
            with replacing(reference, is_shared=True) as stream:
                stream.write(snapshot.commit.encode())
    except OSError as error:
        raise HubError(f"{snapshot.repo_id}: {unwritable(error)}") from error
    return folder


def _fetch_to_folder(snapshot: _Snapshot, folder: Path) -> Path:
    """Download into a hidden folder inside the given one, then move the verified files out of it, config.json last."""
    try:
        here = _existing_files(snapshot, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
            fetched = [_fetch(snapshot, name, Path(staging)) for name in snapshot.files if name not in here]
            for file in fetched:
                os.replace(file, folder / file.name)
    except OSError as error:
        raise HubError(f"{snapshot.repo_id}: {unwritable(error)}") from error
    return folder


def _existing_files(snapshot: _Snapshot, folder: Path) -> set[str]:
    """Return the names of the checkpoint's files that the folder already contains.

    Raises:
        UsageError: If the folder contains a file of another checkpoint, which must be neither overwritten nor mixed in.
    """
    names = {*snapshot.files, PREPROCESSOR_NAME, WEIGHTS_NAME, INDEX_NAME, PICKLE_NAME}
    here = {name for name in names if (folder / name).is_file()}
    for name in sorted(here):
        if name not in snapshot.files or _difference(folder / name, snapshot.files[name]):
            raise UsageError(
                f"{folder / name}: already exists and does not belong to {snapshot.repo_id}; "
                "remove it or choose another --output-dir"
            )
    return here


def _fetch(snapshot: _Snapshot, name: str, local_dir: Path | None = None) -> Path:
    """Download one file, or find it in the cache, and verify it; retry if it is wrong."""
    from huggingface_hub import hf_hub_download

    def fetch(attempt: int) -> Path:
        # With local_dir, the client would copy the same wrong file from its cache again unless it is forced.
        again = attempt > 1 and local_dir is not None
        file = Path(
            hf_hub_download(snapshot.repo_id, name, revision=snapshot.commit, local_dir=local_dir, force_download=again)
        )
        if difference := _difference(file, snapshot.files[name]):
            for wrong in {file.resolve(), file}:  # the cache's blob and the link to it
                wrong.unlink(missing_ok=True)
            raise WrongFileError(f"the downloaded {name} was wrong ({difference}) and was removed; try again later")
        return file

    return retry(snapshot.repo_id, snapshot.revision, fetch, is_worth_fetching_again)


def _difference(file: Path, stated: Any) -> str | None:
    """Return how a file differs from what the hub states, or None if it is equal.

    Compares the size, and the SHA-256 of a large file (LFS) or the Git hash of a small one.
    """
    size = file.stat().st_size
    if stated.size is not None and size != stated.size:
        return f"{size} bytes instead of {stated.size}"
    with file.open("rb") as opened:
        if stated.lfs is not None:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            return None if digest == stated.lfs.sha256 else "its SHA-256 differs from the hub's"
        blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest = hashlib.file_digest(opened, lambda: blob).hexdigest()
        return None if digest == stated.blob_id else "its Git hash differs from the hub's"
