"""Which decoder reads a file, and which one goes on where the other cannot.

libsndfile goes first: where it reads a file rightly it is the faster one, but for Opus. FFmpeg reads what it does
not open or misreads, and what lies behind the damage at which libsndfile stops.
"""

from __future__ import annotations

from collections.abc import Iterator

from ast_cli.audio.decoders.ffmpeg import PyAVDecoder
from ast_cli.audio.decoders.interface import DATA_ERRORS, Block, Decoder, own_words
from ast_cli.audio.decoders.libsndfile import SoundFileDecoder
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError, ErrorCode, WarningCode

MP3_DECODERS_DIFFER_SAMPLES = 2304  # by at most two frames, in what they drop at both ends
UNREACHABLE = {ErrorCode.VANISHED, ErrorCode.PERMISSION}  # for a second decoder too


def open_decoder(source: Source) -> Decoder:
    """Open with libsndfile where that reads the file rightly and at least as fast, else with FFmpeg.

    Raises:
        AudioError: Neither can.
    """
    sound: SoundFileDecoder | None = None
    try:
        sound = SoundFileDecoder(source)
    except MemoryError:
        raise
    except (AudioError, *DATA_ERRORS):  # FFmpeg has the last word
        pass
    if sound is None:
        return PyAVDecoder(source)
    if sound.is_credible() and not sound.is_slower:
        return _WithRest(sound)
    try:
        decoder = PyAVDecoder(source)
    except AudioError:
        return _WithRest(sound)  # its length was the truth after all
    decoder.header_duration_s = (
        decoder.header_duration_s or sound.header_duration_s
    )  # which more than is claimed will be compared with
    decoder.warnings |= sound.warnings
    return _OrElse(decoder, _WithRest(sound))


class _Forwarding:
    """A decoder that forwards to another.

    Attributes:
        chosen: The one that is at work.
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


class _OrElse(_Forwarding):
    """FFmpeg's decoder, in whose place libsndfile's steps where FFmpeg finds nothing that it can decode."""

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


class _WithRest(_Forwarding):
    """libsndfile's decoder; on damage FFmpeg goes on where that stopped."""

    def __init__(self, sound: SoundFileDecoder) -> None:
        super().__init__(sound)
        self._sound = sound

    def blocks(self) -> Iterator[Block]:
        sound = self._sound
        yield from sound.blocks()
        if not sound.stopped_early:
            return
        num_rest = 0
        for rate, block in self._rest():
            num_rest += len(block)
            yield rate, block
        if sound.error is not None and sound.num_read + num_rest == 0:
            raise AudioError(
                ErrorCode.DECODE_ERROR, f"{sound.source.name}: cannot be decoded ({own_words(sound.error)})"
            )
        self._judge(num_rest)

    def _rest(self) -> Iterator[Block]:
        """Yield what FFmpeg decodes beyond the samples that libsndfile has read."""
        num_before = self._sound.position
        if self._sound.file.format == "MP3":
            num_before += MP3_DECODERS_DIFFER_SAMPLES
        try:
            other = PyAVDecoder(self._sound.source)
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

    def _judge(self, num_rest: int) -> None:
        """Say what was lost, where FFmpeg has not said it."""
        if self.warnings:
            return
        if self._sound.file.format == "FLAC":  # FFmpeg would have seen a gap in its numbered frames: the end is missing
            self.warnings.add(WarningCode.TRUNCATED)
        elif num_rest:
            self.warnings.add(WarningCode.PARTIAL)
        elif self._sound.error is not None:
            self.warnings.add(WarningCode.TRUNCATED)
