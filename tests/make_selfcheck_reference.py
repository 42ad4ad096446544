"""Write the files of ast_cli/assets that `ast doctor` compares this machine's numbers with.

Run it when the built-in model changes: ``python tests/make_selfcheck_reference.py``. The fbank is the real torchaudio's
(tests/fixtures). The logits are those of the reference implementation (transformers, float32, eager) for the built-in
model, whose fbank may have another number of bins, and comes from our backend without torch.

With ``--front-ends`` it writes the features of the other front ends, each computed in float64 by the tests' own code.

With ``--clips`` it writes the clips of every container and codec instead: a rising tone of 0.1 s, encoded by libsndfile
or FFmpeg, and what each decoder makes of it. Lossless clips are compared with the tone itself before they are kept.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import ASTForAudioClassification

from ast_cli import ASTFeatureExtractor
from ast_cli.audio.fbank.blocks import fbanks_of
from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.hub.folders import builtin_folder
from ast_cli.selfcheck import CLIPS, FEATURE_SAMPLES, FEATURES, REFERENCE, decoded_clip

sys.path.insert(0, str(Path(__file__).parent / "audio"))
from audio_files import RATE, write_by_ffmpeg, write_sound
from birdset_reference import plain_input
from maest_reference import maest_fbank

FIXTURE = Path(__file__).parent / "fixtures" / "fbank_reference.safetensors"
CLIP = "noise_1s"
TONE_S = 0.1
LARGEST_ROUNDING = 2.0**-7  # some of FFmpeg's lossless encoders take 8 bits first
TONE_HZ = (300.0, 3000.0)  # at its beginning and its end

BOTH = ("libsndfile", "FFmpeg")
# By name: which decoders read it, whether it is lossless, and how it is written: a container and subtype of libsndfile,
# or a codec and container of FFmpeg.
BY_LIBSNDFILE: dict[str, tuple[str, str, str | None]] = {
    "wav": ("lossless", "WAV", "PCM_16"),
    "wav 24 bits": ("lossless", "WAV", "PCM_24"),
    "wav float": ("lossless", "WAV", "FLOAT"),
    "wav mu-law": ("lossy", "WAV", "ULAW"),
    "rf64": ("lossless", "RF64", "PCM_16"),
    "w64": ("lossless", "W64", "PCM_16"),
    "aiff": ("lossless", "AIFF", "PCM_16"),
    "au": ("lossless", "AU", "PCM_16"),
    "caf": ("lossless", "CAF", "PCM_16"),
    "flac": ("lossless", "FLAC", "PCM_16"),
    "mp3": ("lossy", "MP3", None),
    "ogg vorbis": ("lossy", "OGG", "VORBIS"),
    "ogg opus": ("lossy", "OGG", "OPUS"),
}
BY_FFMPEG: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "m4a aac": ("lossy", "aac", "ipod", {}),
    "m4a alac": ("lossless", "alac", "ipod", {}),
    "aac": ("lossy", "aac", "adts", {}),
    "wma": ("lossy", "wmav2", "asf", {"rate": 44_100, "bit_rate": 64_000}),
    "webm opus": ("lossy", "libopus", "webm", {"rate": 48_000}),
    "mkv flac": ("lossless", "flac", "matroska", {}),
    "mp4 video": ("lossy", "aac", "mp4", {"video": True}),
    "mov video": ("lossless", "pcm_s16le", "mov", {"video": True}),
    "avi video": ("lossy", "libmp3lame", "avi", {"video": True}),
    "mpeg-ts": ("lossy", "mp2", "mpegts", {}),
    "ac3": ("lossy", "ac3", "ac3", {"rate": 48_000}),
    "wavpack": ("lossless", "wavpack", "wv", {}),
    "tta": ("lossless", "tta", "tta", {}),
    "amr": ("lossy", "libopencore_amrnb", "amr", {"rate": 8_000}),
}


def main() -> None:
    if "--clips" in sys.argv:
        write_clips()
    elif "--front-ends" in sys.argv:
        write_features()
    else:
        write_reference()


def write_clips() -> None:
    arrays: dict[str, NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip"
        for name, (kind, container, subtype) in BY_LIBSNDFILE.items():
            rate = 48_000 if subtype == "OPUS" else RATE
            write_sound(file, tone(rate), rate, container, subtype)
            arrays |= clip_arrays(name, kind, file.read_bytes(), BOTH)
        for name, (kind, codec, container, options) in BY_FFMPEG.items():
            rate = options.get("rate", RATE)
            write_by_ffmpeg(file, tone(rate), codec=codec, container=container, **options)
            arrays |= clip_arrays(name, kind, file.read_bytes(), ("FFmpeg",))
    save(arrays, CLIPS)


def tone(rate: int) -> NDArray[np.float64]:
    """Return a tone that rises steadily, peak 0.5, shape (num_samples,)."""
    time = np.arange(round(TONE_S * rate)) / rate
    low, high = TONE_HZ
    samples: NDArray[np.float64] = 0.5 * np.sin(2 * np.pi * (low + (high - low) * time / (2 * TONE_S)) * time)
    return samples


def clip_arrays(name: str, kind: str, content: bytes, decoders: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return one clip's bytes, and the samples that each decoder finds in it."""
    arrays: dict[str, NDArray[Any]] = {f"clip/{name}": np.frombuffer(content, np.uint8)}
    for decoder in decoders:
        decoded = decoded_clip(decoder, content)
        if kind == "lossless":
            assert np.abs(decoded - tone(RATE)).max() < LARGEST_ROUNDING, name
        arrays[f"{decoder}/{kind}/{name}"] = np.round(decoded * 2**15).astype(np.int16)
    return arrays


def maest_features(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return MAEST's features of a waveform, and one frame of padding."""
    padded = np.pad(maest_fbank(waveform), ((0, 1), (0, 0)))
    return (padded - 2.06755686098554) / (2 * 1.268292820667291)


def birdset_features(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the first frames of BirdSet's features of a clip that begins with a waveform."""
    return plain_input(waveform)[:BIRDSET_FRAMES]


# By the front end's name in preprocessor_config.json.
FRONT_ENDS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float64]]] = {
    "BirdSetFeatureExtractor": birdset_features,
    "MAESTFeatureExtractor": maest_features,
}
BIRDSET_FRAMES = 9  # those with sound, and one without


def write_features() -> None:
    waveform = load_file(REFERENCE)["waveform"][:FEATURE_SAMPLES]
    save({name: features(waveform).astype(np.float32) for name, features in FRONT_ENDS.items()}, FEATURES)


def write_reference() -> None:
    golden = load_file(FIXTURE)
    waveform, fbank = golden[f"waveform/{CLIP}"], golden[f"kaldi_fbank/{CLIP}"]
    extractor = ASTFeatureExtractor.from_pretrained(builtin_folder())
    config = FbankConfig(num_mel_bins=extractor.num_mel_bins)
    builtin_fbank = fbanks_of([waveform], config, "numpy")[0]
    input_values = torch.from_numpy(extractor.input_values([builtin_fbank]))
    model = ASTForAudioClassification.from_pretrained(
        builtin_folder(), attn_implementation="eager", dtype=torch.float32
    )
    with torch.inference_mode():
        logits = model(input_values).logits[0].numpy()
    arrays = {"waveform": waveform, "fbank": fbank, "builtin_fbank": builtin_fbank}
    arrays["logits"] = np.ascontiguousarray(logits)
    save(arrays, REFERENCE, clip=CLIP, model="builtin")


def save(arrays: dict[str, NDArray[Any]], file: Path, **metadata: str) -> None:
    file.unlink(missing_ok=True)
    save_file(arrays, file, metadata=metadata)
    file.chmod(0o644)  # the library makes files that only their owner may read


if __name__ == "__main__":
    main()
