"""Unpacks packages of a distribution, finds every sound in them, and keeps varied pieces at 16 kHz.

    python models/builtin/gather.py CORPUS

``CORPUS/packages`` holds the .deb files and Python wheels. For each of them, ``CORPUS/pieces/NAME.npz`` gets the pieces
(int16, mono) with the names of the files they come from, and ``CORPUS/copyright/NAME`` the package's copyright file, on
which ``sources.tsv`` rests. A package that was gathered before is not gathered again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import multiprocessing
import random
import re
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import soundfile
import soxr

SAMPLING_RATE = 16_000
SOUND = set(".wav .ogg .oga .opus .flac .mp3 .m4a .g722 .au .aif .aiff .gsm .spx .wv .voc .sds".split())
ZIP = set(".zip .pk3 .pk4 .pod .ocs .love .jar .kit .h2drumkit".split())
WITH_SOUND_INSIDE = set(".rcc .cat .dat .pak .bin .bnk .vis .1c .clu .wad .vsr .ocg .ocd .obm".split())
MAX_FILE, MAX_ARCHIVE, MAX_STREAM = 120_000_000, 400_000_000, 20_000_000  # bytes
MAX_DECODED_S, SHORTEST_S = 600.0, 0.15
MAX_PACKAGE_S = {"asterisk-core": 900.0, "music": 2400.0, "": 2700.0}  # by a part of the package's name
AUDIBLE = 1e-4  # of full scale


def decode(data: bytes, name: str) -> np.ndarray | None:
    """Return the samples of a file's bytes at 16 kHz, one channel, float32; None where nothing decodes them."""
    try:
        if name.lower().endswith(".g722"):
            return decode_with_av(data, "g722")
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        samples = samples[: int(MAX_DECODED_S * rate)].mean(1)
        return cast(np.ndarray, soxr.resample(samples, rate, SAMPLING_RATE)).astype(np.float32)
    except Exception:  # whatever a decoder says of the random bytes that a search through archives finds
        try:
            return decode_with_av(data, None)
        except Exception:
            return None


def decode_with_av(data: bytes, file_format: str | None) -> np.ndarray:
    with av.open(io.BytesIO(data), format=file_format) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLING_RATE)
        parts: list[np.ndarray] = []
        num_samples = 0
        for frame in container.decode(container.streams.audio[0]):
            for resampled in resampler.resample(frame):
                parts.append(resampled.to_ndarray()[0])
                num_samples += parts[-1].size
            if num_samples > MAX_DECODED_S * SAMPLING_RATE:
                break
    return np.concatenate(parts)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Return the samples without silence before and after; empty where nothing is audible."""
    audible = np.flatnonzero(np.abs(samples) > AUDIBLE)
    if audible.size == 0:
        return samples[:0]
    return samples[max(0, audible[0] - SAMPLING_RATE // 10) : audible[-1] + SAMPLING_RATE // 4]


def pieces(samples: np.ndarray) -> list[np.ndarray]:
    """Return the whole of a short recording, three or four pieces of a long one."""
    duration_s = samples.size / SAMPLING_RATE
    if duration_s <= 20:
        return [samples]
    number, piece_s = (3, 15) if duration_s <= 60 else (4, 12)
    starts_s = np.linspace(0.02 * duration_s, max(0.02 * duration_s, duration_s - piece_s - 0.5), number)
    return [samples[int(s * SAMPLING_RATE) : int((s + piece_s) * SAMPLING_RATE)] for s in starts_s]


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of all that may be sound, in files and inside archives (``archive!name``)."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        name, suffix, size = str(path.relative_to(folder)), path.suffix.lower(), path.stat().st_size
        try:
            if suffix in SOUND and size < MAX_FILE:
                yield name, path.read_bytes()
            elif suffix in ZIP or (size > 100_000 and zipfile.is_zipfile(path)):
                with zipfile.ZipFile(path) as archive:
                    for member in archive.infolist():
                        if Path(member.filename).suffix.lower() in SOUND and member.file_size < MAX_FILE:
                            yield f"{name}!{member.filename}", archive.read(member)
            elif suffix in WITH_SOUND_INSIDE and 20_000 < size < MAX_ARCHIVE:
                data = path.read_bytes()
                inside = {b"qres": qt_resources, b"IWAD": doom_sounds, b"PWAD": doom_sounds}.get(data[:4], streams)
                yield from ((f"{name}!{member}", sound) for member, sound in inside(data))
        except (OSError, zipfile.BadZipFile, RuntimeError, struct.error, zlib.error, IndexError):
            continue


def qt_resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the sounds of a Qt resource file: a tree of names, and the data after their lengths."""
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    entry_size = 14 if version == 1 else 22

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * entry_size
        name_offset, flags = struct.unpack_from(">IH", data, at)
        (length,) = struct.unpack_from(">H", data, names + name_offset)
        start = names + name_offset + 6
        name = data[start : start + 2 * length].decode("utf-16-be") if index else ""
        path = f"{folder}/{name}".lstrip("/")
        if flags & 2:
            count, first = struct.unpack_from(">II", data, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif Path(name).suffix.lower() in SOUND:
            (offset,) = struct.unpack_from(">I", data, at + 10)
            (size,) = struct.unpack_from(">I", data, contents + offset)
            sound = data[contents + offset + 4 : contents + offset + 4 + size]
            if flags & 1:
                sound = zlib.decompress(sound[4:])
            if not flags & 4:  # Zstandard
                yield path, sound

    yield from walk(0, "")


def doom_sounds(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the sounds of a Doom game's archive: unsigned bytes after a header, or Ogg streams."""
    count, directory = struct.unpack_from("<ii", data, 4)
    for index in range(count):
        offset, size, raw_name = struct.unpack_from("<ii8s", data, directory + 16 * index)
        name = raw_name.rstrip(b"\0").decode("latin1")
        if data[offset : offset + 4] == b"OggS":
            yield f"{name}.ogg", data[offset : offset + size]
        elif name.startswith("DS") and size > 60:
            kind, rate, num_samples = struct.unpack_from("<HHI", data, offset)
            if kind == 3 and 4000 < rate < 50_000:
                samples = np.frombuffer(data, np.uint8, num_samples - 32, offset + 24)
                file = io.BytesIO()
                soundfile.write(file, (samples.astype(np.float32) - 128) / 128, rate, format="WAV")
                yield f"{name}.wav", file.getvalue()


def streams(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the WAV and Ogg streams in any file, by their position in it."""
    for match in re.finditer(rb"RIFF....WAVE", data, re.DOTALL):
        (size,) = struct.unpack_from("<I", data, match.start() + 4)
        if 300 < size < 50_000_000:
            yield f"{match.start()}.wav", data[match.start() : match.start() + size + 8]
    starts = [match.start() for match in re.finditer(rb"OggS\x00\x02", data)]
    for start, end in itertools.pairwise([*starts, len(data)]):
        yield f"{start}.ogg", data[start : min(end, start + MAX_STREAM)]


def unpack(package: Path, folder: Path) -> None:
    if package.suffix == ".deb":
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True, stderr=subprocess.DEVNULL)
    else:
        with zipfile.ZipFile(package) as wheel:
            wheel.extractall(folder)


def package_name(package: Path) -> str:
    """Return the name that ``sources.tsv`` calls a package by; Python's have ``pypi-`` before it."""
    if package.suffix == ".deb":
        return package.name.split("_")[0]
    return "pypi-" + package.name.split("-")[0]


def gather(job: tuple[Path, Path]) -> tuple[str, float]:
    """Write the pieces and the copyright file of one package; return its name and its seconds of sound."""
    package, corpus = job
    name = package_name(package)
    output = corpus / "pieces" / f"{name}.npz"
    if output.exists():
        return name, -1.0
    folder = Path(tempfile.mkdtemp(dir=corpus))
    try:
        unpack(package, folder)
        for copyright_file in folder.glob("usr/share/doc/*/copyright"):
            if copyright_file.is_file():  # a link leads to another package
                target = corpus / "copyright" / name
                target.write_bytes(copyright_file.read_bytes())
        (corpus / "listing" / name).write_text("".join(f"{p.relative_to(folder)}\n" for p in folder.rglob("*")))
        names, arrays, seconds = kept_pieces(name, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    part = output.with_suffix(".part")
    with open(part, "wb") as file:
        lengths = np.array([array.size for array in arrays], np.int64)
        samples = np.concatenate(arrays) if arrays else np.zeros(0, np.int16)
        np.savez(file, names=np.array(names, str), lengths=lengths, samples=samples)
    part.replace(output)
    return name, seconds


def kept_pieces(name: str, folder: Path) -> tuple[list[str], list[np.ndarray], float]:
    """Return names, samples (int16) and seconds of the pieces of an unpacked package that are kept, none twice."""
    maximum_s = next(seconds for part, seconds in MAX_PACKAGE_S.items() if part in name)
    found = list(files(folder))
    random.Random(name).shuffle(found)
    seen: set[bytes] = set()
    names: list[str] = []
    arrays: list[np.ndarray] = []
    seconds = 0.0
    for path, data in found:
        digest = hashlib.sha256(data).digest()
        if seconds > maximum_s or digest in seen:
            continue
        seen.add(digest)
        samples = decode(data, path)
        if samples is None or not np.isfinite(samples).all():
            continue
        for number, untrimmed in enumerate(pieces(samples)):
            piece = trimmed(untrimmed)
            if piece.size < SHORTEST_S * SAMPLING_RATE:
                continue
            rounded = np.round(piece / max(1.0, np.abs(piece).max()) * 32767).astype(np.int16)
            digest = hashlib.sha256((rounded // 64).tobytes()).digest()
            if digest not in seen:
                seen.add(digest)
                names.append(f"{path}#{number}")
                arrays.append(rounded)
                seconds += piece.size / SAMPLING_RATE
    return names, arrays, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    for part in ("pieces", "copyright", "listing"):
        (options.corpus / part).mkdir(parents=True, exist_ok=True)
    packages = [p for p in (options.corpus / "packages").iterdir() if p.suffix in (".deb", ".whl")]
    packages.sort(key=lambda package: package.stat().st_size)
    with multiprocessing.Pool(options.processes, maxtasksperchild=8) as pool:
        for name, seconds in pool.imap_unordered(gather, [(package, options.corpus) for package in packages]):
            if seconds >= 0:
                print(f"{name}: {seconds / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
