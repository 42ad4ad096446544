"""Choice of the decoder for a file, and of the decoder that takes over if the first one fails.

libsndfile comes first: it is the faster decoder for the files that it reads correctly, except for Opus. FFmpeg decodes
the files that libsndfile does not open or misreads, and the rest of a file if libsndfile stops at damage.
"""

from __future__ import annotations

from collections.abc import Iterator

from ast_cli.audio.decoders.ffmpeg import PyAVDecoder
from ast_cli.audio.decoders.interface import DATA_ERRORS, Block, Decoder, short_message
from ast_cli.audio.decoders.libsndfile import SoundFileDecoder
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError, ErrorCode, WarningCode

MP3_DECODERS_DIFFER_SAMPLES = 2304  # the decoders drop different numbers of samples at both ends, by at most two frames
UNREACHABLE = {ErrorCode.VANISHED, ErrorCode.PERMISSION}  # errors that a second decoder meets too


def open_decoder(source: Source, *, mixes_channels: bool = True) -> Decoder:
    """Open a file with libsndfile if that reads it correctly and at least as fast as FFmpeg, else with FFmpeg.

    Args:
        source: The file.
        mixes_channels: Whether the order of its channels does not count. Else it is WAV's with either decoder.

    Raises:
        AudioError: If neither decoder can open the file.
    """
    soundfile: SoundFileDecoder | None = None
    try:
        soundfile = SoundFileDecoder(source)
    except MemoryError:
        raise
    except (AudioError, *DATA_ERRORS):  # FFmpeg then gives the error, if any
        pass
    if soundfile is None:
        return PyAVDecoder(source)
    prefers_ffmpeg = soundfile.is_slower or (not mixes_channels and soundfile.has_own_channel_order)
    if soundfile.is_credible() and not prefers_ffmpeg:
        return _WithContinuation(soundfile)
    try:
        decoder = PyAVDecoder(source)
    except AudioError:
        return _WithContinuation(soundfile)  # libsndfile's length was correct after all
    # Without a stated length, more audio than libsndfile's header states would give no warning.
    decoder.header_duration_s = decoder.header_duration_s or soundfile.header_duration_s
    decoder.warnings |= soundfile.warnings
    return _WithFallback(decoder, _WithContinuation(soundfile))


class _Forwarding:
    """A decoder that forwards to another decoder.

    Attributes:
        chosen: Decoder in use.
    """

    def __init__(self, chosen: Decoder) -> None:
        self.chosen = chosen

    @property
    def sampling_rate(self) -> int:
        return self.chosen.sampling_rate

    @property
    def num_channels(self) -> int:
        return self.chosen.num_channels

    @property
    def header_duration_s(self) -> float | None:
        return self.chosen.header_duration_s

    @property
    def tolerance_s(self) -> float:
        return self.chosen.tolerance_s

    @property
    def warnings(self) -> set[WarningCode]:
        return self.chosen.warnings

    def seek(self, start_s: int) -> int:
        return self.chosen.seek(start_s)

    def close(self) -> None:
        self.chosen.close()


class _WithFallback(_Forwarding):
    """FFmpeg's decoder, replaced by libsndfile's if FFmpeg cannot decode anything."""

    def __init__(self, first: PyAVDecoder, second: Decoder) -> None:
        super().__init__(first)
        self._second = second

    def blocks(self) -> Iterator[Block]:
        first = None
        try:
            for first in self.chosen.blocks():
                yield first
        except AudioError as error:
            if first is not None or error.code != ErrorCode.DECODE_ERROR:
                raise
            self.chosen.close()
            self.chosen = self._second
            yield from self._second.blocks()

    def close(self) -> None:
        super().close()
        self._second.close()


class _WithContinuation(_Forwarding):
    """libsndfile's decoder; if it stops at damage, FFmpeg decodes the rest of the file."""

    def __init__(self, soundfile: SoundFileDecoder) -> None:
        super().__init__(soundfile)
        self._soundfile = soundfile

    def blocks(self) -> Iterator[Block]:
        soundfile = self._soundfile
        yield from soundfile.blocks()
        if not soundfile.stopped_early:
            return
        num_rest = 0
        for rate, block in self._rest():
            num_rest += len(block)
            yield rate, block
        if soundfile.error is not None and soundfile.num_read + num_rest == 0:
            raise AudioError(
                ErrorCode.DECODE_ERROR, f"{soundfile.source.name}: cannot be decoded ({short_message(soundfile.error)})"
            )
        self._add_warning(num_rest)

    def _rest(self) -> Iterator[Block]:
        """Yield the samples that FFmpeg decodes after those that libsndfile has read."""
        num_before = self._soundfile.position
        if self._soundfile.file.format == "MP3":
            num_before += MP3_DECODERS_DIFFER_SAMPLES
        try:
            other = PyAVDecoder(self._soundfile.source)
        except AudioError as error:
            if error.code in UNREACHABLE:
                raise
            return
        try:
            for rate, block in other.blocks():
                if num_before < len(block):
                    yield rate, block[num_before:]
                num_before = max(0, num_before - len(block))
        except AudioError as error:
            if error.code in UNREACHABLE:
                raise
            return
        finally:
            self.warnings.update(other.warnings)
            other.close()

    def _add_warning(self, num_rest: int) -> None:
        """Add a warning about the lost audio unless FFmpeg has added one."""
        if self.warnings:
            return
        if self._soundfile.file.format == "FLAC":
            # The end is missing: FFmpeg would have noticed a gap in the numbered frames.
            self.warnings.add(WarningCode.TRUNCATED)
        elif num_rest:
            self.warnings.add(WarningCode.PARTIAL)
        elif self._soundfile.error is not None:
            self.warnings.add(WarningCode.TRUNCATED)
