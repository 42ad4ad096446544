"""Results of reading a file: its samples and warnings, or the code of its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ast_cli.audio.decode import AudioStream, load_waveform, open_audio
from ast_cli.errors import AudioError


def decoded(audio: str | Path | bytes, **part: Any) -> tuple[NDArray[np.float32], set[str]]:
    """Return the samples and the warnings, and check that the samples are finite."""
    with open_audio(audio, **part) as stream:
        samples = np.concatenate(list(stream))
        assert np.isfinite(samples).all()
        return samples, {str(warning) for warning in stream.warnings}


def error_of(audio: str | Path | bytes) -> str:
    """Return the code of the error that reading raises, and check that its message starts with the path."""
    with pytest.raises(AudioError) as raised:
        load_waveform(audio)
    assert str(raised.value).startswith(f"{'-' if isinstance(audio, bytes) else audio}: ")
    assert len(str(raised.value)) < len(str(audio)) + 700
    return str(raised.value.code)


def error_or_warnings(path: Path) -> tuple[int, set[str]]:
    """Return (samples, warnings), or (0, the error's code)."""
    try:
        samples, warnings = decoded(path)
    except AudioError as error:
        return 0, {str(error.code)}
    return samples.size, warnings


def decoder_name(stream: AudioStream) -> str:
    """Return the name of the decoder in use."""
    return type(getattr(stream._decoder, "chosen", stream._decoder)).__name__
