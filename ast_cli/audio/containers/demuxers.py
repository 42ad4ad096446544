"""Selection of FFmpeg's demuxers: by the file's content if possible, else by the extension of its name."""

from __future__ import annotations

import os
from functools import cache

import av

from ast_cli.audio.source import Source, is_other_content

TEXT_BYTES = 4096  # enough to distinguish text from audio

# FFmpeg selects the demuxer by content. These demuxers open other files, interpret text as media or as a score to be
# synthesized (sbg), or read images.
REFUSED_DEMUXERS = {
    *("concat", "dash", "hls", "imf", "webm_dash_manifest", "sdp", "rtsp", "rtp", "sap", "lavfi", "vobsub", "image2"),
    *("image2pipe", "apng", "gif", "ico", "mjpeg", "mjpeg_2000", "mpjpeg", "fits", "tty", "bin", "xbin", "adf", "idf"),
    *("aqtitle", "ass", "jacosub", "lrc", "mcc", "microdvd", "mpl2", "mpsub", "pjs", "rcwt", "realtext", "sami", "scc"),
    *("srt", "stl", "subviewer", "subviewer1", "sup", "tedcaptions", "vplayer", "webvtt", "ffmetadata", "data", "sbg"),
    *("alsa", "fbdev", "kmsgrab", "oss", "video4linux2,v4l2", "x11grab", "rawvideo", "dvbsub", "dvbtxt"),
    *("alias_pix", "brender_pix", "jpegxl_anim", "txd"),
}

# Telephone speech, for which FFmpeg would assume 44.1 kHz.
HEADERLESS_RATES = {".al": 8000, ".ul": 8000}  # Hz
# GSM files are recognized by their content; selected by name, the demuxer would decode any bytes as speech.
IGNORED_EXTENSIONS = (".gsm",)
VOX_EXTENSION = ".vox"  # Dialogic ADPCM at 8 kHz, which libsndfile reads by name

# First bytes of formats that are not audio.
OTHER_MAGIC = (
    *(b"%PDF", b"%!PS", b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
    *(
        b"\xff\xd8\xff",
        b"\x89PNG",
        b"GIF8",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\x7fELF",
        b"MZ",
        b"SQLite",
        b"\xd0\xcf\x11\xe0",
    ),
)


@cache
def allowed_demuxers() -> str:
    """Return the value of FFmpeg's ``format_whitelist``: all demuxers of this build except `REFUSED_DEMUXERS`."""
    names = sorted(av.formats_available)
    return ",".join(name for name in names if name not in REFUSED_DEMUXERS and not name.endswith("_pipe"))


def extension_of(source: Source) -> str:
    """Return the extension of a file's name in lower case; empty for bytes in memory."""
    return "" if source.data is not None else os.path.splitext(source.name)[1].lower()


def may_be_headerless(source: Source) -> bool:
    """Return whether a file may consist of samples without a header: neither text nor another known format."""
    head = source.head(TEXT_BYTES)
    return not (head.startswith(OTHER_MAGIC) or is_other_content(head) or is_text(head))


def choosing_extension(source: Source) -> str:
    """Return the extension by which to select a demuxer if the content did not, or an empty string.

    Some formats have no header (G.722, A-law, SBC, plain PCM), and the header of others may be damaged.
    """
    extension = extension_of(source)
    if extension in IGNORED_EXTENSIONS or not extension.isascii() or not may_be_headerless(source):
        return ""
    return extension


def is_text(head: bytes) -> bool:
    """Return whether bytes are readable text: UTF-8 without control characters."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a character is cut off at the end
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)
