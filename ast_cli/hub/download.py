"""Fetching a checkpoint from the hub: whole, and every file as the hub states it, or not at all.

The network is used by `download` and by `ast_cli.hub.folders.checkpoint_folder` for an explicit ``org/name`` that is
not yet in the cache, and by nothing else. The cache is the hub client's own, so ``HF_HOME``, ``HF_HUB_OFFLINE``,
``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they always mean.
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
from ast_cli.hub.names import CONFIG_NAME, DEFAULT_REVISION, INDEX_NAME, PICKLE_NAME, PREPROCESSOR_NAME, WEIGHTS_NAME

REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The files of one commit of a checkpoint as the hub states them.

    Attributes:
        repo_id: On the hub.
        revision: What was asked for: a branch, a tag or a commit.
        commit: What that is now, so that all files are of one commit even if the branch moves meanwhile.
        files: Sizes and hashes (the client's ``RepoSibling``) of what is to be fetched, by name, config.json last.
    """

    repo_id: str
    revision: str
    commit: str
    files: dict[str, Any]


def download(
    repo_id: str, revision: str = DEFAULT_REVISION, output_dir: Path | None = None, *, quiet: bool = False
) -> Path:
    """Fetch a checkpoint and compare every file's size and hash with what the hub states.

    A file is under its final name only when it is whole, and a revision points to its files in the cache only when
    all of them are verified: an interrupted update leaves the previous files in use.

    Args:
        repo_id: On the hub.
        revision: Branch, tag or commit.
        output_dir: A folder to put the files into; None for the hub client's cache.
        quiet: Show neither the client's progress bar (which shows on a terminal only) nor its warnings.

    Returns:
        The folder.

    Raises:
        HubError: Offline, no such checkpoint, a network that fails repeatedly, files that arrive wrong, no space.
        UsageError: A revision that cannot be, or a folder that holds other files of the same names.
    """
    from huggingface_hub import constants

    if not REVISION.fullmatch(revision):
        raise UsageError(f"{revision!r} is no revision; name a branch, a tag or a commit")
    if constants.HF_HUB_OFFLINE:
        if output_dir is None and (folder := cached_folder(repo_id, revision)):
            return folder
        raise HubError(f"{repo_id}: HF_HUB_OFFLINE forbids the network, and {missing(repo_id, revision)}")
    with client_output(quiet):
        snapshot = _ask_hub(repo_id, revision)
        return _fetch_to_cache(snapshot) if output_dir is None else _fetch_to_folder(snapshot, output_dir)


def _ask_hub(repo_id: str, revision: str) -> _Snapshot:
    """Ask for the files of a checkpoint with their sizes and hashes, and choose what is needed."""
    from huggingface_hub import HfApi, constants

    def ask(_attempt: int) -> Any:  # the client neither tries this request again nor limits its time by itself
        return HfApi().model_info(
            repo_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )

    info = retry(repo_id, revision, ask, is_transient)
    stated = {sibling.rfilename: sibling for sibling in info.siblings or []}
    files = {name: stated[name] for name in _needed_files(repo_id, list(stated))}
    for name, file in files.items():
        if file.lfs is None and not file.blob_id:
            raise HubError(f"{repo_id}: the hub states no hash of {name}, so it could not be verified")
    return _Snapshot(repo_id, revision, info.sha or revision, files)


def _needed_files(repo_id: str, names: list[str]) -> list[str]:
    """Choose what to fetch: safetensors, or a pickle only where there are none, and the configuration last."""
    if CONFIG_NAME not in names:
        raise HubError(f"{repo_id}: has no {CONFIG_NAME}; it is no model checkpoint")
    shards = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    if WEIGHTS_NAME in names:
        weights = [WEIGHTS_NAME]
    elif INDEX_NAME in names and shards:
        weights = [*shards, INDEX_NAME]
    elif PICKLE_NAME in names:
        weights = [PICKLE_NAME]
    else:
        raise HubError(f"{repo_id}: has neither {WEIGHTS_NAME} nor {PICKLE_NAME}")
    optional = [PREPROCESSOR_NAME] if PREPROCESSOR_NAME in names else []
    return [*weights, *optional, CONFIG_NAME]


def _fetch_to_cache(snapshot: _Snapshot) -> Path:
    """Fetch into the hub client's cache; the revision is pointed at the files once all of them are right."""
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
    """Fetch into a hidden folder inside the given one, then move what is right to its final name, config.json last."""
    try:
        here = _right_files(snapshot, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
            fetched = [_fetch(snapshot, name, Path(staging)) for name in snapshot.files if name not in here]
            for file in fetched:
                os.replace(file, folder / file.name)
    except OSError as error:
        raise HubError(f"{snapshot.repo_id}: {unwritable(error)}") from error
    return folder


def _right_files(snapshot: _Snapshot, folder: Path) -> set[str]:
    """Return which files are there already, refusing to overwrite or to mix with those of another checkpoint."""
    names = {*snapshot.files, PREPROCESSOR_NAME, WEIGHTS_NAME, INDEX_NAME, PICKLE_NAME}
    here = {name for name in names if (folder / name).is_file()}
    for name in sorted(here):
        if name not in snapshot.files or _difference(folder / name, snapshot.files[name]):
            raise UsageError(
                f"{folder / name}: is there already and is not {snapshot.repo_id}'s; "
                "remove it or choose another --output-dir"
            )
    return here


def _fetch(snapshot: _Snapshot, name: str, local_dir: Path | None = None) -> Path:
    """Fetch one file, or find it in the cache, and compare it with what the hub states; again if it arrives wrong."""
    from huggingface_hub import hf_hub_download

    def fetch(attempt: int) -> Path:
        # Into a folder the client would copy the same wrong file from its cache again, were it not forced.
        again = attempt > 1 and local_dir is not None
        file = Path(
            hf_hub_download(snapshot.repo_id, name, revision=snapshot.commit, local_dir=local_dir, force_download=again)
        )
        if difference := _difference(file, snapshot.files[name]):
            for wrong in {file.resolve(), file}:  # the cache's blob and the link to it
                wrong.unlink(missing_ok=True)
            raise WrongFileError(f"{name} arrived wrong ({difference}) and was removed; try again later")
        return file

    return retry(snapshot.repo_id, snapshot.revision, fetch, is_worth_fetching_again)


def _difference(file: Path, stated: Any) -> str | None:
    """Say how a file differs from what the hub states: size, SHA-256 of a large file, Git hash of a small one."""
    size = file.stat().st_size
    if stated.size is not None and size != stated.size:
        return f"{size} bytes instead of {stated.size}"
    with file.open("rb") as opened:
        if stated.lfs is not None:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            return None if digest == stated.lfs.sha256 else "its SHA-256 is not the one the hub states"
        blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest = hashlib.file_digest(opened, lambda: blob).hexdigest()
        return None if digest == stated.blob_id else "its Git hash is not the one the hub states"
