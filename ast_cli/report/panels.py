"""The parts of a picture and its formats. Standard library only."""

from __future__ import annotations

from typing import Literal

Panel = Literal["waveform", "spectrogram", "timeline"]
PANELS: tuple[Panel, ...] = ("waveform", "spectrogram", "timeline")  # from top to bottom
ALL_PANELS = "all"
PictureFormat = Literal["png", "svg", "pdf"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = ("png", "svg", "pdf")
