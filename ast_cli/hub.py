"""Which checkpoint: the built-in one, a folder, a known alias or a hub id; and fetching it, verified.

The network is used by `download` and by `checkpoint_folder` for an explicit ``org/name`` that is not yet in the cache,
and by nothing else. The cache is the hub client's own, so ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and
``HF_TOKEN`` mean what they always mean. No torch here.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ast_cli.errors import AstError, HubError, UsageError
from ast_cli.files.cache import file_digest
from ast_cli.files.json_object import read_json_object

Fetched = TypeVar("Fetched")

BUILTIN = "builtin"
DEFAULT_ALIAS = "audioset"
CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
PICKLE_NAME = "pytorch_model.bin"
ONNX_NAME = "model.onnx"  # what `ast export` writes, and OpenVINO's two files
OPENVINO_NAME = "model.xml"
EXPORTED_NAMES = (ONNX_NAME, OPENVINO_NAME, "model.bin")
EXPORTED_SUFFIXES = (".onnx", ".xml")
DEFAULT_REVISION = "main"
ATTEMPTS = 3
FIRST_WAIT_S = 1.0  # before the second attempt; doubled before each further one
CUT_OFF = ("RemoteProtocolError", "ReadError")  # by name: the clients' HTTP libraries differ
NOT_THE_HUB = (ValueError, KeyError, TypeError)  # what the client makes of an answer that is not the hub's
# The hub's own rules for names: ASCII words, no "--" or "..", at most 96 characters.
HUB_ID = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?(?<!\.git)", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


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


class _WrongFileError(Exception):
    """A file arrived whole but is not what the hub states; it has been removed."""


def known_aliases() -> dict[str, str]:
    """Return every alias and the hub id it stands for, the short ones first."""
    full = {alias: checkpoint.repo_id for alias, checkpoint in CHECKPOINTS.items()}
    return {alias: full[name] for alias, name in SHORT_ALIASES.items()} | full


def repo_id_of(name: str) -> str:
    """Return the hub id that an alias stands for, or the hub id itself.

    Raises:
        UsageError: Neither; near aliases are offered.
    """
    aliases = known_aliases()
    if name in aliases:
        return aliases[name]
    if HUB_ID.fullmatch(name):
        return name
    if "://" in name:
        raise UsageError(f"{name!r} is an address; name a checkpoint by its alias or as org/name")
    near = difflib.get_close_matches(name, [*aliases, BUILTIN], n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {BUILTIN}, {', '.join(aliases)}"
    raise UsageError(f"no checkpoint folder or name {name!r}; {hint}")


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

    ``builtin`` and the aliases always mean the checkpoint: a folder of recordings called ``audioset`` must not take
    the place of the default model. A folder of such a name is ``./audioset``.

    Args:
        model: ``builtin``, a folder, an alias, or a hub id such as ``MIT/ast-finetuned-audioset-10-10-0.4593``.

    Raises:
        UsageError: Nothing of that name; near aliases are offered.
        HubError: Known, but not on this machine; the message says how to get it.
    """
    name = os.fspath(model)
    if name == BUILTIN:
        return builtin_folder()
    if name in known_aliases():
        if folder := cached_folder(repo_id_of(name)):
            return folder
        elsewhere = f" (or say ./{name} for the folder)" if Path(name).is_dir() else ""
        raise HubError(f"{name!r} is not on this machine: fetch it with `ast download {name}`{elsewhere}")
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    return cached_folder(repo_id_of(name)) or download(name)


def exported_file(model: str | Path) -> Path | None:
    """Return the file that a runtime is given of a model that ``ast export`` wrote; None for a checkpoint.

    Args:
        model: The folder, unless it holds a checkpoint's weights too, or the file itself.
    """
    name = os.fspath(model)
    if name == BUILTIN or name in known_aliases():
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return path if path.suffix in EXPORTED_SUFFIXES else None
    if not path.is_dir() or _holds_weights(path):
        return None
    return next((path / file for file in (ONNX_NAME, OPENVINO_NAME) if (path / file).is_file()), None)


def describing_folder(exported: Path) -> Path | None:
    """Return the folder that says of an exported model what goes in and comes out; None where the file itself does.

    A file of the name that ``ast export`` gives it in a folder of its own is that folder; its neighbours count.
    """
    folder = exported.parent
    is_the_folders = exported.name in EXPORTED_NAMES and (folder / CONFIG_NAME).is_file() and not _holds_weights(folder)
    return folder if is_the_folders else None


def checkpoint_digest(name: str) -> str:
    """Return the SHA-256 of all files of a checkpoint that its scores depend on, wherever it lies."""
    whole = hashlib.sha256()
    for file in _files_of(name):
        whole.update(file_digest(file))
    return whole.hexdigest()


def _files_of(name: str) -> list[Path]:
    """Return all files of a checkpoint that its scores depend on."""
    exported = exported_file(name)
    if exported is not None and describing_folder(exported) is None:
        weights = exported.with_suffix(".bin")
        return [exported, weights] if exported.suffix == ".xml" and weights.is_file() else [exported]
    path = Path(name).expanduser()
    files = [path] if path.is_file() and exported is None and name != BUILTIN else []
    folder = checkpoint_folder(name)
    fixed = (CONFIG_NAME, PREPROCESSOR_NAME, PICKLE_NAME, *EXPORTED_NAMES)
    files += [folder / file for file in fixed if (folder / file).is_file()]
    return files + sorted(folder.glob("model*.safetensors"))


def cached_folder(repo_id: str, revision: str = DEFAULT_REVISION) -> Path | None:
    """Return the folder of a checkpoint that is whole in the hub client's cache, or None. Never uses the network."""
    config = _cached_file(repo_id, CONFIG_NAME, revision)
    return config.parent if config and _holds_weights(config.parent) else None


def _cached_file(repo_id: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        file = try_to_load_from_cache(repo_id, name, revision=revision)
    except OSError:  # a cache that may not be read holds nothing for us
        return None
    return Path(file) if isinstance(file, str) else None


def _holds_weights(folder: Path) -> bool:
    """Tell whether a folder holds one file of weights, or every shard that its index names."""
    if any((folder / name).is_file() for name in (WEIGHTS_NAME, PICKLE_NAME)):
        return True
    if not (folder / INDEX_NAME).is_file():
        return False
    weight_map = read_json_object(folder / INDEX_NAME).get("weight_map")
    return isinstance(weight_map, dict) and all((folder / str(name)).is_file() for name in weight_map.values())


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
        raise HubError(f"{repo_id}: HF_HUB_OFFLINE forbids the network, and {_missing(repo_id, revision)}")
    with _client_output(quiet):
        snapshot = _ask_hub(repo_id, revision)
        return _fetch_to_cache(snapshot) if output_dir is None else _fetch_to_folder(snapshot, output_dir)


def _missing(repo_id: str, revision: str) -> str:
    """Say which files of a checkpoint are not on this machine, and how to bring them without its network."""
    weights = [_cached_file(repo_id, name, revision) for name in (WEIGHTS_NAME, PICKLE_NAME)]
    absent = [] if _cached_file(repo_id, CONFIG_NAME, revision) else [CONFIG_NAME]
    absent += [] if any(weights) else [WEIGHTS_NAME]
    if not absent:
        return "the copy in the cache stays as it is"
    name = next((alias for alias, known in known_aliases().items() if known == repo_id), repo_id)
    return (
        f"{' and '.join(absent)} must be fetched; where there is a network, run "
        f"`ast download {name} --output-dir FOLDER`, copy FOLDER/{name.rsplit('/')[-1]} here and name it with --model"
    )


def _ask_hub(repo_id: str, revision: str) -> _Snapshot:
    """Ask for the files of a checkpoint with their sizes and hashes, and choose what is needed."""
    from huggingface_hub import HfApi, constants

    def ask(_attempt: int) -> Any:  # the client neither tries this request again nor limits its time by itself
        return HfApi().model_info(
            repo_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )

    info = _retry(repo_id, revision, ask, _is_passing)
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
            reference.parent.mkdir(parents=True, exist_ok=True)
            temporary = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
            temporary.write_text(snapshot.commit)
            os.replace(temporary, reference)
    except OSError as error:
        raise HubError(f"{snapshot.repo_id}: {_unwritable(error)}") from error
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
        raise HubError(f"{snapshot.repo_id}: {_unwritable(error)}") from error
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
            raise _WrongFileError(f"{name} arrived wrong ({difference}) and was removed; try again later")
        return file

    return _retry(snapshot.repo_id, snapshot.revision, fetch, _may_arrive_right)


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


def _retry(
    repo_id: str, revision: str, request: Callable[[int], Fetched], passes: Callable[[Exception], bool]
) -> Fetched:
    """Make a request of the hub client, again after a fault that may pass; its exceptions become one sentence."""
    attempt = 1
    while True:
        try:
            return request(attempt)
        except AstError:
            raise
        except Exception as error:  # the client lets the exceptions of its HTTP and Xet libraries through
            if attempt == ATTEMPTS or not passes(error):
                raise HubError(f"{repo_id}: {_reason(error, repo_id, revision)}") from error
        time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        attempt += 1


def _is_passing(error: Exception) -> bool:
    """Tell whether a request may succeed a little later: an overloaded hub, or a network that faltered."""
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return not isinstance(error, NOT_THE_HUB) and not _is_of_disk(error)


def _may_arrive_right(error: Exception) -> bool:
    """Tell whether to fetch a file again; of most network faults the client from 1.0 on has tried six times before."""
    fault = _behind(error)
    if _is_of_requests(fault):
        return _is_passing(fault)
    status = _status(error)
    # The client reports a size that differs from the announced one as a bare OSError.
    is_cut = (type(error) is OSError and error.errno is None) or type(error).__name__ in CUT_OFF
    return isinstance(error, _WrongFileError) or is_cut or (status is not None and status >= 500)


def _behind(error: Exception) -> Exception:
    """Return what the network said where the client says only "not in the cache either" or "cannot be forced"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    says_less = isinstance(error, (LocalEntryNotFoundError, ValueError))
    return error.__cause__ if says_less and isinstance(error.__cause__, Exception) else error


def _is_of_requests(error: BaseException) -> bool:
    """Tell whether an exception is of requests, the HTTP library of the client before 1.0, which tries little again."""
    return any(kind.__module__.partition(".")[0] == "requests" for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an exception of the client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def _reason(error: Exception, repo_id: str, revision: str) -> str:
    """Say in one sentence why a request failed and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    error = _behind(error)
    if isinstance(error, GatedRepoError):
        return "its owner must grant you access first; then set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "no such folder here and no such checkpoint on the hub, or it is private and HF_TOKEN is not set"
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it"
    if (status := _status(error)) is not None:
        return f"the hub answered {status}; {'check HF_TOKEN' if status in (401, 403) else 'try again later'}"
    if isinstance(error, _WrongFileError):
        return str(error)
    if isinstance(error, OSError) and _is_of_disk(error):
        return _unwritable(error)
    if isinstance(error, NOT_THE_HUB):
        return "what answers is not the hub: check HF_ENDPOINT, and whether the network asks for a login first"
    return f"the hub cannot be reached ({_short(error)}), and {_missing(repo_id, revision)}"


def _unwritable(error: OSError) -> str:
    where = error.filename or "the cache"
    return f"{where}: {error.strerror}; set HF_HOME or --output-dir to a writable folder with enough space"


def _short(error: BaseException) -> str:
    """Return the first line of an exception's text without the queries of addresses, which may be signed.

    The texts of requests hold whole objects; what the operating system said is behind them.
    """
    if _is_of_requests(error):
        while (inner := error.__cause__ or error.__context__) and not _is_of_requests(inner):
            error = inner
    return _without_queries((str(error) or type(error).__name__).splitlines()[0][:200])


def _without_queries(text: str) -> str:
    return re.sub(r"\?\S+", "?...", text)


class _QueryFilter(logging.Filter):
    """Leaves the query out of every address the client logs: it may hold a signature that opens a private file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message of a record; none is dropped."""
        record.msg, record.args = _without_queries(record.getMessage()), None
        return True


@contextmanager
def _client_output(quiet: bool) -> Iterator[None]:
    """Let the client's warnings and its progress bar through to stderr, or hide them; restored at the end."""
    import huggingface_hub.utils.logging  # which makes the handlers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger(huggingface_hub.__name__)
    level, had_bars, query_filter = logger.level, not are_progress_bars_disabled(), _QueryFilter()
    for handler in logger.handlers:
        handler.addFilter(query_filter)
    if quiet:
        logger.setLevel(logging.ERROR)
    if quiet and had_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in logger.handlers:
            handler.removeFilter(query_filter)
        if quiet and had_bars:
            enable_progress_bars()
