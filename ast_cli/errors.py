"""What can go wrong, and the exit code it ends in. Standard library only."""

from __future__ import annotations

from enum import IntEnum, StrEnum

DEBUG_VARIABLE = "AST_DEBUG"  # set: traces of errors on standard error, those of worker processes included
MESSAGE_LENGTH = 500  # characters of another library's own words in a message


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0  # all inputs scored, warnings allowed
    FATAL = 1  # the run is not complete
    USAGE = 2  # the command line is wrong
    SOME_FAILED = 3  # the run is complete, some inputs failed
    NO_INPUTS = 4  # nothing matched
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


class ErrorCode(StrEnum):
    """Why one input has no scores: a closed list that scripts can rely on."""

    NOT_FOUND = "not_found"
    EMPTY_FILE = "empty_file"
    NO_SAMPLES = "no_samples"
    NOT_AUDIO = "not_audio"
    NO_AUDIO_STREAM = "no_audio_stream"
    UNSUPPORTED_CODEC = "unsupported_codec"
    ENCRYPTED = "encrypted"
    DECODE_ERROR = "decode_error"
    BAD_SAMPLE_RATE = "bad_sample_rate"
    BAD_CHANNELS = "bad_channels"
    NON_FINITE = "non_finite"
    NOT_REGULAR = "not_regular"
    PERMISSION = "permission"
    VANISHED = "vanished"
    TIMEOUT = "timeout"
    WORKER_CRASHED = "worker_crashed"
    OUT_OF_MEMORY = "out_of_memory"


class WarningCode(StrEnum):
    """What was odd about an input that was scored all the same."""

    TOO_SHORT = "too_short"  # fewer samples than one frame: padded with zeros
    TRUNCATED = "truncated"  # the file ends before the length it claims
    PARTIAL = "partial"  # damage in the middle was skipped
    LENGTH_MISMATCH = "length_mismatch"  # more was decoded than the file claims
    NON_FINITE_SAMPLES = "non_finite_samples"  # NaN, Inf or absurd samples were replaced by 0


class AstError(Exception):
    """Base of all errors this library raises on purpose; its text is one sentence for the user."""

    exit_code = ExitCode.FATAL


class UsageError(AstError, ValueError):
    """An argument or option that cannot be."""

    exit_code = ExitCode.USAGE


class NoInputsError(AstError):
    """Nothing matched what was named."""

    exit_code = ExitCode.NO_INPUTS


class AudioError(AstError):
    """One input that cannot be read or scored; in a batch it becomes that input's record.

    Attributes:
        code: Which of the closed list of reasons.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def internal_error(path: str, error: Exception) -> AudioError:
    """Return the error of a file whose decoding ended in a bug of this program, which says nothing about the file."""
    reason = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
    return AudioError(
        ErrorCode.WORKER_CRASHED,
        f"{path}: an internal error ended its decoding ({reason}); add --debug for the trace, and please report it",
    )


class CheckpointError(AstError):
    """A checkpoint that is damaged, foreign, hostile or at odds with its configuration."""


class HubError(AstError):
    """A checkpoint that is not on this machine and could not be fetched."""


class DeviceError(AstError):
    """A device, data type or engine that this machine does not offer."""


class EngineMissingError(DeviceError):
    """An engine whose package is not installed."""

    exit_code = ExitCode.USAGE


class AstWarning(UserWarning):
    """Something a user should know that stops nothing; the command line prints it on stderr."""
