"""Exceptions of the library, codes for errors and warnings, and exit codes. Standard library only."""

from __future__ import annotations

from enum import IntEnum, StrEnum

DEBUG_VARIABLE = "AST_DEBUG"  # if set, tracebacks go to standard error, including those of worker processes
MESSAGE_LENGTH = 500  # maximum number of characters quoted from another library's message


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0  # all inputs scored, warnings allowed
    FATAL = 1  # the run is not complete
    USAGE = 2  # the command line is wrong
    SOME_FAILED = 3  # the run is complete, some inputs failed
    NO_INPUTS = 4  # no input matched
    DIFFERENT = 5  # `ast diff --exit-code`: the outputs differ
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


class ErrorCode(StrEnum):
    """Reasons why an input has no scores: a closed list that scripts can rely on."""

    NOT_FOUND = "not_found"
    EMPTY_FILE = "empty_file"
    NO_SAMPLES = "no_samples"
    NOT_AUDIO = "not_audio"
    NO_AUDIO_STREAM = "no_audio_stream"
    UNSUPPORTED_CODEC = "unsupported_codec"
    ENCRYPTED = "encrypted"
    DECODE_ERROR = "decode_error"
    BAD_SAMPLE_RATE = "bad_sample_rate"
    BAD_CHANNELS = "bad_channels"  # too many, a number that changes, or no channel of the requested number
    NON_FINITE = "non_finite"
    NOT_REGULAR = "not_regular"
    PERMISSION = "permission"
    VANISHED = "vanished"
    TIMEOUT = "timeout"
    WORKER_CRASHED = "worker_crashed"
    OUT_OF_MEMORY = "out_of_memory"


class WarningCode(StrEnum):
    """Problems of an input that was scored nevertheless."""

    TOO_SHORT = "too_short"  # fewer samples than one frame: padded with zeros
    TRUNCATED = "truncated"  # the file ends before the length that its header states
    PARTIAL = "partial"  # damage in the middle was skipped
    LENGTH_MISMATCH = "length_mismatch"  # more audio was decoded than the header states
    NON_FINITE_SAMPLES = "non_finite_samples"  # NaN, Inf and samples above 1e15 were replaced by 0


class AstError(Exception):
    """Base class of all errors that this library raises on purpose; the message is one sentence for the user."""

    exit_code = ExitCode.FATAL


class UsageError(AstError, ValueError):
    """An argument or option is invalid."""

    exit_code = ExitCode.USAGE


class NoInputsError(AstError):
    """No file matched the given inputs."""

    exit_code = ExitCode.NO_INPUTS


class AudioError(AstError):
    """An input cannot be read or scored; in a batch, the error becomes part of that input's record.

    Attributes:
        code: Reason for the failure.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def internal_error(path: str, error: Exception) -> AudioError:
    """Return the error for a file whose decoding hit a bug of this program; the file itself may be fine."""
    reason = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
    return AudioError(
        ErrorCode.WORKER_CRASHED,
        f"{path}: decoding stopped with an internal error ({reason}); add --debug for the traceback and report it",
    )


class CheckpointError(AstError):
    """A checkpoint is damaged, malicious, of another architecture, or inconsistent with its configuration."""


class HubError(AstError):
    """A checkpoint is not on this machine and could not be downloaded."""


class DeviceError(AstError):
    """A device, data type or engine is not available on this machine."""


class EngineMissingError(DeviceError):
    """The package of an engine is not installed."""

    exit_code = ExitCode.USAGE


class AstWarning(UserWarning):
    """A problem that does not stop the program; the command line prints it on stderr."""
