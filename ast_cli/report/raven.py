"""Selection tables of Raven: a row for each label, with tabs between the cells.

Raven reads a list of sound files as one: times run on over the files, in the order of the rows. ``Begin Path`` and
``File Offset (s)`` say where a selection is in its file. Raven knows no quoting, so a tab or a line end in a name is
escaped.
"""

from __future__ import annotations

from typing import TextIO

from ast_cli.report.spans import spans_of, unquoted
from ast_cli.results import SCORE_DECIMALS, SECONDS_DECIMALS, TaggingResult, path_fields

COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin Path", "File Offset (s)", "Label", "Score"),  # the last two are our own
)
VIEW = "Spectrogram 1"


class RavenWriter:
    """Writes a header, then a selection for each event, for each tag of a window, or for each tag of a recording.

    Selections are numbered from 1, and have the whole band of the recording. The mix of all channels is channel 1.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._num_written = 0
        self._file_start_s = 0.0  # length of all recordings before the next one
        stream.write("\t".join(COLUMNS) + "\n")

    def write(self, result: TaggingResult) -> None:
        """Write the selections of one recording; later ones begin after its end."""
        path = unquoted(path_fields(result.path)["path"] or "")
        for span in spans_of(result):
            times = (f"{self._file_start_s + time_s:.6f}" for time_s in (span.start_s, span.end_s))
            place = (VIEW, str(span.channel or 1), *times, "0.0", f"{(result.sampling_rate or 0) / 2:.1f}")
            for tag in span.tags:
                self._num_written += 1
                score = f"{tag.score:.{SCORE_DECIMALS}f}"
                cells = (str(self._num_written), *place, path, f"{span.start_s:.6f}", unquoted(tag.label), score)
                self.stream.write("\t".join(cells) + "\n")
        # Rounded as in JSON, so that a run that is continued from its journal writes the same times.
        self._file_start_s += round(result.duration_s or 0.0, SECONDS_DECIMALS)
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: a selection table has no end mark."""
