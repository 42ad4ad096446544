"""Requests by the hub client: again after faults that may pass, and what failed in one sentence."""

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
CUT_OFF = ("RemoteProtocolError", "ReadError")  # by name: the clients' HTTP libraries differ
NOT_THE_HUB = (ValueError, KeyError, TypeError)  # what the client makes of an answer that is not the hub's


class WrongFileError(Exception):
    """A file arrived whole but is not what the hub states; it has been removed."""


def retry(
    repo_id: str, revision: str, request: Callable[[int], Fetched], is_worth_retrying: Callable[[Exception], bool]
) -> Fetched:
    """Make a request of the hub client, again after a fault that may pass; its exceptions become one sentence."""
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
    """Tell whether a request may succeed a little later: an overloaded hub, or a network that faltered."""
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return not isinstance(error, NOT_THE_HUB) and not _is_of_disk(error)


def is_worth_fetching_again(error: Exception) -> bool:
    """Tell whether to fetch a file again; of most network faults the client from 1.0 on has tried six times before."""
    fault = _behind(error)
    if _is_of_requests(fault):
        return is_transient(fault)
    status = _status(error)
    # The client reports a size that differs from the announced one as a bare OSError.
    is_cut = (type(error) is OSError and error.errno is None) or type(error).__name__ in CUT_OFF
    return isinstance(error, WrongFileError) or is_cut or (status is not None and status >= 500)


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
    if isinstance(error, WrongFileError):
        return str(error)
    if isinstance(error, OSError) and _is_of_disk(error):
        return unwritable(error)
    if isinstance(error, NOT_THE_HUB):
        return "what answers is not the hub: check HF_ENDPOINT, and whether the network asks for a login first"
    return f"the hub cannot be reached ({_short(error)}), and {missing(repo_id, revision)}"


def missing(repo_id: str, revision: str) -> str:
    """Say which files of a checkpoint are not on this machine, and how to bring them without its network."""
    weights = [cached_file(repo_id, name, revision) for name in (WEIGHTS_NAME, PICKLE_NAME)]
    absent = [] if cached_file(repo_id, CONFIG_NAME, revision) else [CONFIG_NAME]
    absent += [] if any(weights) else [WEIGHTS_NAME]
    if not absent:
        return "the copy in the cache stays as it is"
    name = next((alias for alias, known in known_aliases().items() if known == repo_id), repo_id)
    return (
        f"{' and '.join(absent)} must be fetched; where there is a network, run "
        f"`ast download {name} --output-dir FOLDER`, copy FOLDER/{name.rsplit('/')[-1]} here and name it with --model"
    )


def unwritable(error: OSError) -> str:
    """Say what cannot be written, and what to do."""
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
def client_output(quiet: bool) -> Iterator[None]:
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
