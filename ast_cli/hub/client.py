"""Requests by the hub client: retries after transient faults, and error messages of one sentence."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ast_cli.errors import AstError, HubError
from ast_cli.hub.cached import cached_file
from ast_cli.hub.names import CONFIG_NAME, PICKLE_NAME, WEIGHTS_NAME, known_aliases

Fetched = TypeVar("Fetched")

ATTEMPTS = 3
FIRST_WAIT_S = 1.0  # before the second attempt; doubled before each further one
CUT_OFF = ("RemoteProtocolError", "ReadError")  # class names, as the HTTP library depends on the client's version
NOT_THE_HUB = (ValueError, KeyError, TypeError)  # raised by the client if another server answers


class WrongFileError(Exception):
    """A file was downloaded completely but differs from what the hub states; it has been removed."""


def retry(
    repo_id: str, revision: str, request: Callable[[int], Fetched], is_worth_retrying: Callable[[Exception], bool]
) -> Fetched:
    """Call ``request`` with the attempt's number until it succeeds, up to `ATTEMPTS` times.

    Args:
        repo_id: Hub id of the checkpoint, for messages.
        revision: Branch, tag or commit, for messages.
        request: Function that uses the hub client.
        is_worth_retrying: Whether to try again after an exception.

    Raises:
        HubError: If the last attempt fails; the message says why and what to do.
    """
    attempt = 1
    while True:
        try:
            return request(attempt)
        except AstError:
            raise
        except Exception as error:  # the client lets the exceptions of its HTTP and Xet libraries through
            if attempt == ATTEMPTS or not is_worth_retrying(error):
                raise HubError(f"{repo_id}: {_reason(error, repo_id, revision)}") from error
        time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        attempt += 1


def is_transient(error: Exception) -> bool:
    """Return whether a request may succeed a little later: the hub was overloaded or the network was interrupted."""
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return not isinstance(error, NOT_THE_HUB) and not _is_disk_error(error)


def is_worth_fetching_again(error: Exception) -> bool:
    """Return whether to download a file again.

    After most network faults, clients from version 1.0 on have already made six attempts of their own.
    """
    fault = _underlying_error(error)
    if _is_requests_error(fault):
        return is_transient(fault)
    status = _status(error)
    # The client raises a bare OSError if the size differs from the announced one.
    is_cut = (type(error) is OSError and error.errno is None) or type(error).__name__ in CUT_OFF
    return isinstance(error, WrongFileError) or is_cut or (status is not None and status >= 500)


def _underlying_error(error: Exception) -> Exception:
    """Return the network's error if the client only reports "not in the cache either" or "cannot be forced"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    is_vague = isinstance(error, (LocalEntryNotFoundError, ValueError))
    return error.__cause__ if is_vague and isinstance(error.__cause__, Exception) else error


def _is_requests_error(error: BaseException) -> bool:
    """Return whether an exception comes from requests, the HTTP library of clients before 1.0, which retry little."""
    return any(kind.__module__.partition(".")[0] == "requests" for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that caused an exception of the client, or None."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_disk_error(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def _reason(error: Exception, repo_id: str, revision: str) -> str:
    """Return in one sentence why a request failed and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    error = _underlying_error(error)
    if isinstance(error, GatedRepoError):
        return "its owner must grant you access first; then set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "neither a local folder nor a public checkpoint on the hub; set HF_TOKEN if it is private"
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of this checkpoint"
    if (status := _status(error)) is not None:
        return f"the hub answered {status}; {'check HF_TOKEN' if status in (401, 403) else 'try again later'}"
    if isinstance(error, WrongFileError):
        return str(error)
    if isinstance(error, OSError) and _is_disk_error(error):
        return unwritable(error)
    if isinstance(error, NOT_THE_HUB):
        return "the server that answered is not the hub: check HF_ENDPOINT and whether the network requires a login"
    return f"the hub cannot be reached ({_short(error)}), and {missing(repo_id, revision)}"


def missing(repo_id: str, revision: str) -> str:
    """Return which files of a checkpoint are missing on this machine and how to copy them from another one."""
    weights = [cached_file(repo_id, name, revision) for name in (WEIGHTS_NAME, PICKLE_NAME)]
    absent = [] if cached_file(repo_id, CONFIG_NAME, revision) else [CONFIG_NAME]
    absent += [] if any(weights) else [WEIGHTS_NAME]
    if not absent:
        return "the copy in the cache is unchanged"
    name = next((alias for alias, known in known_aliases().items() if known == repo_id), repo_id)
    return (
        f"{' and '.join(absent)} must be downloaded; on a machine with a network, run "
        f"`ast download {name} --output-dir FOLDER`, copy FOLDER/{name.rsplit('/')[-1]} here and pass it with --model"
    )


def unwritable(error: OSError) -> str:
    """Return which file cannot be written, why, and what to do."""
    where = error.filename or "the cache"
    return f"{where}: {error.strerror}; set HF_HOME or --output-dir to a writable folder with enough space"


def _short(error: BaseException) -> str:
    """Return the first line of an exception's message, without the query strings of URLs, which may contain signatures.

    Messages of requests contain the representations of objects; the operating system's message is in a cause of them.
    """
    if _is_requests_error(error):
        while (inner := error.__cause__ or error.__context__) and not _is_requests_error(inner):
            error = inner
    return _without_queries((str(error) or type(error).__name__).splitlines()[0][:200])


def _without_queries(text: str) -> str:
    return re.sub(r"\?\S+", "?...", text)


class _QueryFilter(logging.Filter):
    """Removes the query string from every URL that the client logs: its signature may give access to a private file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message of a record and keep the record."""
        record.msg, record.args = _without_queries(record.getMessage()), None
        return True


@contextmanager
def client_output(quiet: bool) -> Iterator[None]:
    """Show the client's warnings and progress bar on stderr, or hide them if ``quiet``; settings are restored."""
    import huggingface_hub.utils.logging  # installs the log handlers
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
