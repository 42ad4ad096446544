"""What this installation consists of, and whether its numbers are right: the library behind ``ast doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from safetensors.numpy import load_file

from ast_cli import __version__, hub
from ast_cli.audio.fbank import FBANK_BACKENDS
from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.mel_bank import FbankConfig
from ast_cli.engine.torch_engine import TorchEngine
from ast_cli.errors import AstError
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS

REFERENCE = Path(__file__).parent / "assets" / "selfcheck.safetensors"
# Natural-log energies against torchaudio's. Where a bin holds less than 1e-7 of its frame's largest energy it is
# rounding noise, and another device, or NumPy, rounds otherwise.
FBANK_TOLERANCE = 5e-4
FBANK_NOISE_TOLERANCE = 1e-2
FBANK_NOISE_RATIO = 1e-7
# Logits of the built-in model against the reference implementation's in float32; they span about 8. Half precision
# keeps 8 (bfloat16) or 11 (float16) significant bits through 6 layers.
LOGITS_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}
PACKAGES = (
    "torch",
    "torchaudio",
    "numpy",
    "soundfile",
    "soxr",
    "av",
    "safetensors",
    "huggingface_hub",
    "typer",
    "rich",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with a stored reference value.

    Attributes:
        what: ``fbank`` or ``logits``.
        engine: Which implementation computed it.
        device: Where.
        dtype: In which data type.
        difference: Largest absolute difference; None if it could not be computed.
        tolerance: How large it may be.
        message: Why it could not be computed.
    """

    what: str
    engine: str
    device: str
    dtype: str
    difference: float | None
    tolerance: float
    message: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the number was computed and lies within the tolerance."""
        return self.difference is not None and self.difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "is_right": self.is_right}


def versions() -> dict[str, str | None]:
    """Return the versions of everything the numbers depend on; None for what is not installed."""
    found: dict[str, str | None] = {"ast": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def decoders() -> dict[str, str]:
    """Return the decoding libraries inside soundfile and PyAV."""
    libavcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return {"libsndfile": str(soundfile.__libsndfile_version__), "FFmpeg": f"libavcodec {libavcodec}"}


def caches() -> dict[str, str]:
    """Return where fetched checkpoints are kept, and whether fetching is forbidden."""
    from huggingface_hub import constants

    return {"hub": constants.HF_HUB_CACHE, "offline": "yes (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "no"}


def devices() -> dict[str, str]:
    """Return the devices a model can run on and what they are."""
    found = {
        "cpu": f"{platform.machine()}, {os.cpu_count()} logical cores, torch uses {torch.get_num_threads()} threads"
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def models() -> dict[str, str | None]:
    """Return the known checkpoints and their folders, None for those not fetched."""
    found: dict[str, str | None] = {hub.BUILTIN: str(hub.builtin_folder())}
    for alias, repo_id in hub.known_aliases().items():
        folder = hub.cached_folder(repo_id)
        found[alias] = str(folder) if folder else None
    return found


def run_checks() -> Iterator[Check]:
    """Compare fbank and logits with the stored values, by engine, device and data type."""
    reference = load_file(REFERENCE)
    names = [name for name in devices() if name != "mps"] + (["mps"] if "mps" in devices() else [])
    for backend in FBANK_BACKENDS:
        for device in names if backend == "native" else ["cpu"]:
            yield _check_fbank(backend, device, reference["waveform"], reference["fbank"])
    for device in names:
        for dtype in LOGITS_TOLERANCE:
            for attention in ATTN_IMPLEMENTATIONS:
                yield _check_logits(attention, device, dtype, reference["fbank"], reference["logits"])


def _check_fbank(backend: str, device: str, waveform: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> Check:
    """Compare one filter bank with torchaudio's output."""
    try:
        batch = torch.from_numpy(waveform)[None].to(device)
        computed = FBANK_BACKENDS[backend](batch, FbankConfig())[0].cpu().numpy()
    except (AstError, RuntimeError) as error:
        return Check("fbank", backend, device, "float32", None, FBANK_TOLERANCE, str(error).splitlines()[0])
    is_noise = expected < expected.max(axis=1, keepdims=True) + np.log(FBANK_NOISE_RATIO)
    if device == "cpu" and backend != "numpy":
        is_noise[:] = False
    difference = np.abs(computed - expected)
    scaled = np.where(is_noise, difference * (FBANK_TOLERANCE / FBANK_NOISE_TOLERANCE), difference)
    return Check("fbank", backend, device, "float32", float(scaled.max()), FBANK_TOLERANCE)


def _check_logits(
    attention: str, device: str, dtype: str, fbank: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> Check:
    """Compare the built-in model's logits with the reference implementation's."""
    name, tolerance = f"torch {attention}", LOGITS_TOLERANCE[dtype]
    try:
        engine = TorchEngine.load(hub.BUILTIN, device=device, dtype=dtype, attn_implementation=attention)
        extractor = ASTFeatureExtractor.from_pretrained(hub.BUILTIN)
        logits = engine.logits(extractor.input_values([fbank]))[0]
    except (AstError, RuntimeError) as error:
        return Check("logits", name, device, dtype, None, tolerance, str(error).splitlines()[0])
    return Check("logits", name, device, dtype, float(np.abs(logits - expected).max()), tolerance)
