"""Report what is installed, and check its results against stored values; the library behind ``ast doctor``.

torch is imported only inside functions, so that an installation with a missing or broken torch gets a report, too.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ast_cli import __version__
from ast_cli.audio.decoders.ffmpeg import PyAVDecoder
from ast_cli.audio.decoders.interface import Decoder
from ast_cli.audio.decoders.libsndfile import SoundFileDecoder
from ast_cli.audio.fbank.blocks import fbanks_of
from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends import extractor_class
from ast_cli.audio.source import Source
from ast_cli.engine.choice import is_installed, load_engine
from ast_cli.engine.options import EXTRAS, EngineOptions
from ast_cli.errors import AstError
from ast_cli.hub.cached import cached_folder
from ast_cli.hub.folders import builtin_folder
from ast_cli.hub.names import BUILTIN, known_aliases

REFERENCE = Path(__file__).parent / "assets" / "selfcheck.safetensors"
CLIPS = Path(__file__).parent / "assets" / "selfcheck_clips.safetensors"  # written by tests/make_selfcheck_reference.py
# Input features of each front end but AST's, whose filter bank is compared by itself, of the first samples of the
# waveform of `REFERENCE`, computed in float64.
FEATURES = Path(__file__).parent / "assets" / "selfcheck_front_ends.safetensors"
FEATURE_SAMPLES = 2000
DECODERS: dict[str, Callable[[Source], Decoder]] = {"libsndfile": SoundFileDecoder, "FFmpeg": PyAVDecoder}
# Tolerances of samples in [-1, 1], compared with those decoded when the clip was made. Lossless formats differ by the
# rounding to 16 bits. Lossy decoders compute in another order, or in integers, on other processors and versions.
DECODING_TOLERANCE = {"lossless": 2.0**-14, "lossy": 1e-2}
# Tolerances of natural-log energies, compared with those of torchaudio. A bin with less than 1e-7 of the largest energy
# of its frame contains only rounding noise, which differs between devices and between torch and NumPy.
FBANK_TOLERANCE = 5e-4
FBANK_NOISE_TOLERANCE = 1e-2
FBANK_NOISE_RATIO = 1e-7
FEATURES_TOLERANCE = 1e-4  # of normalized features in float32
# Tolerances of the logits of the built-in model, which span about 14, compared with those of transformers in float32.
# Half precision keeps 8 (bfloat16) or 11 (float16) significant bits through 6 layers.
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
        what: Quantity that was compared: ``decoding``, ``fbank``, ``features``, ``logits``, or ``import``.
        engine: Implementation that computed the result; for features the front end first.
        device: Device that computed the result.
        dtype: Data type of the computation.
        difference: Largest absolute difference; None if there is no result.
        tolerance: Largest difference that is accepted.
        message: Reason why there is no result.
        container: File format of a decoded clip, with the codec if the format has several.
    """

    what: str
    engine: str
    device: str
    dtype: str
    difference: float | None
    tolerance: float
    message: str = ""
    container: str = ""

    @property
    def is_right(self) -> bool:
        """Whether there is a result and its difference is within the tolerance."""
        return self.difference is not None and self.difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "is_right": self.is_right}


def versions() -> dict[str, str | None]:
    """Return the versions of everything that the results depend on; None for packages that are not installed."""
    found: dict[str, str | None] = {"ast": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def decoders() -> dict[str, str]:
    """Return the versions of the decoding libraries inside soundfile and PyAV."""
    libavcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return {"libsndfile": str(soundfile.__libsndfile_version__), "FFmpeg": f"libavcodec {libavcodec}"}


def caches() -> dict[str, str]:
    """Return the folder of downloaded checkpoints, and whether downloads are disabled."""
    from huggingface_hub import constants

    return {"hub": constants.HF_HUB_CACHE, "offline": "yes (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "no"}


def devices() -> dict[str, str]:
    """Return the devices that can run a model, with a description of each."""
    cpu = f"{platform.machine()}, {os.cpu_count()} logical cores"
    if torch_failure() is not None:
        return {"cpu": cpu}
    import torch

    found = {"cpu": f"{cpu}, torch uses {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def torch_failure() -> str | None:
    """Return the reason why torch cannot be imported, or None if it can."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a shared library of the wheel is missing
        return str(error).splitlines()[0]
    return None


def models() -> dict[str, str | None]:
    """Return the known checkpoints and their folders; None for those not downloaded."""
    found: dict[str, str | None] = {BUILTIN: str(builtin_folder())}
    for alias, repo_id in known_aliases().items():
        folder = cached_folder(repo_id)
        found[alias] = str(folder) if folder else None
    return found


def run_checks() -> Iterator[Check]:
    """Compare decoded samples, fbank, features and logits with the stored values, by all that computes them."""
    yield from check_decoders()
    reference = load_file(REFERENCE)
    fbank, builtin_fbank, logits = reference["fbank"], reference["builtin_fbank"], reference["logits"]
    yield _check_fbank("numpy", "cpu", reference["waveform"], fbank)
    yield from _check_front_ends("numpy", "cpu", reference["waveform"])
    for engine in EXTRAS:
        if is_installed(engine):
            yield _check_logits(engine, EngineOptions(engine, "cpu"), builtin_fbank, logits)  # type: ignore[arg-type]
    failure = torch_failure()
    if failure is not None:
        yield Check("import", "torch", "cpu", "", None, 0.0, failure)
        return
    names = list(devices())
    for device in names:
        yield _check_fbank("native", device, reference["waveform"], fbank)
        yield from _check_front_ends("native", device, reference["waveform"])
    yield _check_fbank("torchaudio", "cpu", reference["waveform"], fbank)
    for device in names:
        for dtype in LOGITS_TOLERANCE:
            for attention in ("sdpa", "eager"):
                options = EngineOptions("torch", device, dtype, attention)
                yield _check_logits(f"torch {attention}", options, builtin_fbank, logits)


def check_decoders() -> Iterator[Check]:
    """Decode a tiny clip of every file format with each decoder that supports it, and compare the samples."""
    clips = load_file(CLIPS)
    for name, expected in clips.items():
        if not name.startswith("clip/"):
            decoder, kind, container = name.split("/")
            content = clips[f"clip/{container}"].tobytes()
            yield _check_decoder(decoder, container, content, expected, DECODING_TOLERANCE[kind])


def _check_decoder(name: str, container: str, content: bytes, expected: NDArray[np.int16], tolerance: float) -> Check:
    """Compare the samples that one decoder returns for one clip."""
    difference, message = None, ""
    try:
        decoded = decoded_clip(name, content)
        if decoded.shape == expected.shape:
            difference = float(np.abs(decoded - expected / np.float32(2**15)).max())
        else:
            message = f"{len(decoded)} samples instead of {len(expected)}"
    except Exception as error:  # any exception is a result of the check
        message = (str(error) or type(error).__name__).splitlines()[0]
    return Check("decoding", name, "cpu", "float32", difference, tolerance, message, container)


def decoded_clip(decoder: str, content: bytes) -> NDArray[np.float32]:
    """Return the mono samples of one clip, decoded by one of `DECODERS`.

    Raises:
        AudioError: If the clip cannot be decoded.
    """
    opened = DECODERS[decoder](Source("clip", content))
    try:
        return np.concatenate([samples[:, 0] for _, samples in opened.blocks()])
    finally:
        opened.close()


def _check_fbank(backend: FbankBackend, device: str, waveform: NDArray[Any], expected: NDArray[Any]) -> Check:
    """Compare the output of one filter bank with that of torchaudio."""
    try:
        computed = _fbank_on(device, waveform) if device != "cpu" else fbanks_of([waveform], KaldiBank(), backend)[0]
    except (AstError, RuntimeError) as error:
        return Check("fbank", backend, device, "float32", None, FBANK_TOLERANCE, str(error).splitlines()[0])
    is_noise = expected < expected.max(axis=1, keepdims=True) + np.log(FBANK_NOISE_RATIO)
    if device == "cpu" and backend != "numpy":
        is_noise[:] = False
    difference = np.abs(computed - expected)
    scaled = np.where(is_noise, difference * (FBANK_TOLERANCE / FBANK_NOISE_TOLERANCE), difference)
    return Check("fbank", backend, device, "float32", float(scaled.max()), FBANK_TOLERANCE)


def _fbank_on(device: str, waveform: NDArray[Any]) -> NDArray[Any]:
    """Compute our filter bank on a device."""
    import torch

    from ast_cli.audio.fbank.torch_fbank import log_mel_fbank

    fbank: NDArray[Any] = log_mel_fbank(torch.from_numpy(waveform)[None].to(device), KaldiBank())[0].cpu().numpy()
    return fbank


def _check_front_ends(backend: FbankBackend, device: str, waveform: NDArray[Any]) -> Iterator[Check]:
    """Compare the features of each front end with those computed in float64."""
    for kind, expected in load_file(FEATURES).items():
        family = extractor_class(kind)
        engine, difference, message = f"{family.title} {backend}", None, ""
        try:
            extractor = family.from_dict({"feature_extractor_type": kind}, fbank_backend=backend)
            computed = _features_on(device, extractor, waveform[:FEATURE_SAMPLES])[: len(expected)]
            difference = float(np.abs(computed - expected).max())
        except (AstError, RuntimeError) as error:
            message = str(error).splitlines()[0]
        yield Check("features", engine, device, "float32", difference, FEATURES_TOLERANCE, message)


def _features_on(device: str, extractor: FeatureExtractor, waveform: NDArray[Any]) -> NDArray[Any]:
    """Compute the features of a short recording in NumPy, or in torch on a device."""
    if extractor.fbank_backend == "numpy":
        (window,) = extractor.windows([waveform], extractor.longest_hop_frames)
        in_numpy: NDArray[Any] = extractor.input_values([window.content])[0]
        return in_numpy
    import torch

    (window,) = extractor.waveform_windows([waveform], extractor.longest_hop_frames)
    samples = torch.from_numpy(window.content)[None].to(device)
    features: NDArray[Any] = extractor.input_values(list(extractor.fbank(samples)))[0].cpu().numpy()
    return features


def _check_logits(name: str, options: EngineOptions, fbank: NDArray[Any], expected: NDArray[Any]) -> Check:
    """Compare the logits of the built-in model with those of transformers."""
    dtype = "float32" if options.dtype == "auto" else options.dtype
    tolerance = LOGITS_TOLERANCE[dtype]
    try:
        engine = load_engine(BUILTIN, options)
        extractor = FeatureExtractor.from_pretrained(BUILTIN, fbank_backend="numpy")
        logits = engine.logits(extractor.input_values([fbank]))[0]
    except (AstError, RuntimeError) as error:
        return Check("logits", name, options.device, dtype, None, tolerance, str(error).splitlines()[0])
    return Check("logits", name, options.device, dtype, float(np.abs(logits - expected).max()), tolerance)
