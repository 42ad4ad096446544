"""Options of a report page, as frozen data. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ast_cli.about import About, flag_of
from ast_cli.errors import UsageError
from ast_cli.tagging.options import DecodeOptions

DEFAULT_EMBED_MB = 64.0


@dataclass(frozen=True, slots=True)
class ReportOptions(DecodeOptions):
    """Options of a report page.

    Attributes:
        embed_mb: Megabytes of audio previews in the page, of all recordings together. Recordings beyond it are played
            from their files, by a path relative to the page.
        results_only: Whether the page has no sound: no player, waveform or spectrogram, and no file is read.
    """

    embed_mb: Annotated[
        float,
        About(
            "Audio previews in the page, in megabytes of all recordings together (an hour takes 11). Recordings "
            "beyond it are played from their files.",
            metavar="MB",
        ),
    ] = DEFAULT_EMBED_MB
    results_only: Annotated[
        bool, About("Leave out players, waveforms and spectrograms: no audio file is read.", flag="--results-only")
    ] = False

    def __post_init__(self) -> None:
        """Validate the options."""
        DecodeOptions.__post_init__(self)
        if not (math.isfinite(self.embed_mb) and self.embed_mb >= 0):
            raise UsageError(f"{flag_of(ReportOptions, 'embed_mb')} must be at least 0 MB, not {self.embed_mb:g}")
