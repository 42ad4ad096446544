"""Pictures of one recording, as PNG, SVG or PDF: waveform, log-mel spectrogram, and lanes of labels, aligned in time.

They need no display. Pictures are 1200 pixels wide, on a light ground. Both color scales become darker step by step, so
that they can be told apart by color-blind readers and in print.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.overview import Overview
from ast_cli.report.lanes import Lane, axis_unit, time_ticks
from ast_cli.report.panels import Panel, PictureFormat
from ast_cli.report.text import label_text, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
WIDTH_INCHES = 8.0  # 1200 pixels
POINTS, TITLE_POINTS = 8.0, 10.0
LINE_INCHES = 0.17  # height of a line of text
PANEL_INCHES: dict[Panel, float] = {"waveform": 0.9, "spectrogram": 2.2, "timeline": 0.0}  # lanes add to the last
LANE_INCHES = 0.23
GAP_INCHES = 0.12  # between two panels
MARGIN_INCHES = 0.12
TOP_INCHES, BOTTOM_INCHES = 0.52, 0.5  # for title and time axis
RIGHT_INCHES = 0.85  # for the scale of the levels and the highest scores
MIN_LEFT_INCHES, MAX_LEFT_INCHES = 0.8, 2.6  # for the labels
RAMP_INCHES = 0.75  # width of the scale of the scores
TICK_INCHES = 0.75  # room for a tick of the time axis

LEVEL_COLORS, SCORE_COLORS = "magma_r", "Blues"
WAVEFORM_COLOR, TEXT_COLOR, FAINT_COLOR, LINE_COLOR = "#3b4f7d", "#202020", "#606060", "#d8d8d8"
LEVEL_RANGE_DB = 80.0  # below the loudest point of a recording
DB_PER_NEPER = 10 / np.log(10)  # energies: 10 dB is a factor of 10
FREQUENCY_TICKS_HZ = (100, 300, 1000, 2000, 4000, 8000, 16_000, 24_000)
MAX_SPANS = 1000  # of a lane; more are joined to columns, which no eye can tell apart
MIN_SCORE = 0.01  # lower scores are as good as white
MISSING = "no label above the threshold"
FIRST_FONT = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture shows.

    Attributes:
        title: First line: the name of the recording.
        subtitle: Second line.
        start_s: Start of the time axis, in seconds.
        end_s: End of the time axis.
        panels: Panels from top to bottom.
        overview: Waveform and spectrogram; None if only lanes are shown.
        lanes: Labels over time, from top to bottom.
    """

    title: str
    subtitle: str
    start_s: float
    end_s: float
    panels: Sequence[Panel]
    overview: Overview | None = None
    lanes: Sequence[Lane] = ()


def draw_picture(picture: Picture, format_name: PictureFormat) -> bytes:
    """Draw a recording.

    Args:
        picture: What to draw.
        format_name: Format of the file.

    Returns:
        The content of the file, the same for the same picture.
    """
    import matplotlib

    # Whatever style a notebook or a matplotlibrc sets, the picture is the same. Text stays text in SVG and PDF.
    own: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "ast", "pdf.fonttype": 42, "font.size": POINTS}
    own |= {"text.color": TEXT_COLOR, "axes.edgecolor": FAINT_COLOR, "axes.labelcolor": TEXT_COLOR}
    own |= {"xtick.color": FAINT_COLOR, "ytick.color": FAINT_COLOR, "axes.linewidth": 0.6}
    own |= {"xtick.labelcolor": TEXT_COLOR, "ytick.labelcolor": TEXT_COLOR}
    texts = [picture.title, picture.subtitle, *(label_text(lane.label) for lane in picture.lanes)]
    with matplotlib.rc_context(), _quiet_fonts():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(own | {"font.family": list(fonts_for("".join(texts)))})
        figure = _figure(picture)
        content = io.BytesIO()
        metadata: dict[str, Any] = {"Title": printable(picture.title)}
        metadata |= {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format_name, {})
        figure.savefig(content, format=format_name, dpi=DPI, metadata=metadata)
    return content.getvalue()


def _figure(picture: Picture) -> Figure:
    from matplotlib.figure import Figure

    heights = [_height(panel, picture) for panel in picture.panels]
    height = TOP_INCHES + sum(heights) + GAP_INCHES * (len(heights) - 1) + BOTTOM_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height), facecolor="white")
    fit = functools.partial(_fitting, figure)
    lane_names = [fit(label_text(lane.label), POINTS, MAX_LEFT_INCHES - 0.2) for lane in picture.lanes]
    widths = [_text_inches(figure, name, POINTS) + 0.2 for name in lane_names if "timeline" in picture.panels]
    left = max(MIN_LEFT_INCHES, *widths) if widths else MIN_LEFT_INCHES
    width = WIDTH_INCHES - left - RIGHT_INCHES
    top = TOP_INCHES
    for panel, panel_height in zip(picture.panels, heights, strict=True):
        box = (left / WIDTH_INCHES, 1 - (top + panel_height) / height, width / WIDTH_INCHES, panel_height / height)
        axes = figure.add_axes(box)
        axes.set_xlim(picture.start_s, picture.end_s)
        if panel == "waveform" and picture.overview is not None:
            _draw_waveform(axes, picture.overview)
        elif panel == "spectrogram" and picture.overview is not None:
            _draw_spectrogram(figure, axes, picture.overview, box, height)
        elif panel == "timeline":
            _draw_lanes(figure, axes, picture, lane_names, height)
        _draw_times(axes, picture, max(2, int(width / TICK_INCHES)), is_last=panel == picture.panels[-1])
        top += panel_height + GAP_INCHES
    room = WIDTH_INCHES - 2 * MARGIN_INCHES
    title = fit(printable(picture.title), TITLE_POINTS, room, keeps_end=True)
    place = MARGIN_INCHES / WIDTH_INCHES
    figure.text(place, 1 - 0.25 / height, title, fontsize=TITLE_POINTS, weight="bold", parse_math=False)
    subtitle = fit(printable(picture.subtitle), POINTS, room)
    figure.text(place, 1 - 0.43 / height, subtitle, fontsize=POINTS, color=FAINT_COLOR, parse_math=False)
    return figure


def _height(panel: Panel, picture: Picture) -> float:
    """Return the height of a panel, in inches."""
    return PANEL_INCHES[panel] + (LANE_INCHES * max(1, len(picture.lanes)) if panel == "timeline" else 0.0)


def _draw_times(axes: Axes, picture: Picture, max_ticks: int, *, is_last: bool) -> None:
    """Draw the time axis, with its texts below the last panel alone."""
    ticks = time_ticks(picture.start_s, picture.end_s, max_ticks)
    axes.set_xticks([time_s for time_s, _ in ticks], [text if is_last else "" for _, text in ticks])
    axes.tick_params(axis="x", length=3 if is_last else 0)
    axes.spines[["top", "right"]].set_visible(False)
    if is_last:
        axes.set_xlabel(f"time ({axis_unit(picture.end_s)})")


def _draw_waveform(axes: Axes, overview: Overview) -> None:
    """Draw the range of the samples in each column."""
    times = overview.start_s + np.arange(len(overview.lowest) + 1) * overview.envelope_column_s
    times[-1] = max(overview.start_s + overview.duration_s, times[-2])
    low, high = (np.append(values, values[-1]) for values in (overview.lowest, overview.highest))
    axes.fill_between(
        times, low, high, step="post", color=WAVEFORM_COLOR, linewidth=0.4, edgecolor=WAVEFORM_COLOR, rasterized=True
    )
    limit = float(max(np.abs(low).max(), np.abs(high).max(), 1e-4)) * 1.05
    axes.set_ylim(-limit, limit)
    tick = _round_down(limit)
    axes.set_yticks([-tick, 0, tick], [f"\N{MINUS SIGN}{tick:g}", "0", f"{tick:g}"])
    axes.set_ylabel("amplitude\n(full scale 1)", fontsize=POINTS - 1)


def _round_down(value: float) -> float:
    """Return the largest number of the form 1, 2 or 5 times a power of ten that is at most a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(factor for factor in (1, 2, 5) if factor * power <= value * (1 + 1e-9)) * power)


def _draw_spectrogram(
    figure: Figure, axes: Axes, overview: Overview, box: tuple[float, float, float, float], height: float
) -> None:
    """Draw levels below the loudest point, in dB, and their scale at the right."""
    levels = (overview.log_energies.T - overview.log_energies.max()) * DB_PER_NEPER  # (num_mel_bins, num_columns)
    num_bins, num_columns = levels.shape
    end_s = overview.start_s + num_columns * overview.column_s
    image = axes.imshow(
        _at_most(levels, 2 * DPI * int(WIDTH_INCHES)),
        cmap=LEVEL_COLORS,
        vmin=-LEVEL_RANGE_DB,
        vmax=0,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(overview.start_s, end_s, -0.5, num_bins - 0.5),
    )
    x_limits = axes.get_xlim()
    axes.set_xlim(x_limits)
    ticks = [hz for hz in FREQUENCY_TICKS_HZ if hz <= overview.config.sampling_rate / 2]
    texts = [f"{hz / 1000:g}k" if hz >= 1000 else str(hz) for hz in ticks]
    axes.set_yticks([overview.bin_of(hz) for hz in ticks], texts)
    axes.set_ylim(-0.5, max(num_bins - 0.5, overview.bin_of(ticks[-1])))
    axes.set_ylabel("frequency (Hz, mel scale)")
    left = box[0] + box[2] + 0.1 / WIDTH_INCHES
    scale = figure.add_axes((left, box[1], 0.1 / WIDTH_INCHES, box[3]))
    bar = figure.colorbar(image, cax=scale, ticks=[-80, -60, -40, -20, 0])
    bar.outline.set_visible(False)
    bar.set_label("level (dB, loudest 0)", labelpad=2)


def _at_most(levels: NDArray[np.floating], num_columns: int) -> NDArray[np.floating]:
    """Return the levels with at most some number of columns, the highest of each group."""
    step = -(-levels.shape[1] // num_columns)
    if step == 1:
        return levels
    missing = -levels.shape[1] % step
    padded = np.pad(levels, ((0, 0), (0, missing)), mode="edge")
    highest: NDArray[np.floating] = padded.reshape(levels.shape[0], -1, step).max(axis=2)
    return highest


def _draw_lanes(figure: Figure, axes: Axes, picture: Picture, names: Sequence[str], height: float) -> None:
    """Draw each lane with its label at the left and its highest score at the right."""
    import matplotlib
    from matplotlib.colors import Normalize

    colors, scale = matplotlib.colormaps[SCORE_COLORS], Normalize(0, 1)
    num_lanes = max(1, len(picture.lanes))
    axes.set_ylim(num_lanes, 0)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    for number, lane in enumerate(picture.lanes):
        places, faces = _blocks(lane, picture)
        axes.broken_barh(places, (number + 0.1, 0.8), facecolors=colors(scale(faces)), linewidth=0)
        best = f"{lane.best:.2f}"
        axes.annotate(best, (1, number + 0.5), (5, 0), ("axes fraction", "data"), "offset points", va="center")
        axes.axhline(number, color=LINE_COLOR, linewidth=0.5)
    if not picture.lanes:
        axes.text(0.5, 0.5, MISSING, transform=axes.transAxes, ha="center", va="center", color=FAINT_COLOR)
        return
    right = WIDTH_INCHES - MARGIN_INCHES
    place = ((right - RAMP_INCHES) / WIDTH_INCHES, 0.1 / height, RAMP_INCHES / WIDTH_INCHES, 0.1 / height)
    x = (right - RAMP_INCHES - 0.08) / WIDTH_INCHES
    figure.text(
        x, 0.1 / height, "number: highest score; color: 0 to 1", ha="right", fontsize=POINTS - 1, color=FAINT_COLOR
    )
    ramp = figure.add_axes(place)
    ramp.imshow(np.linspace(0, 1, 64)[None], cmap=SCORE_COLORS, vmin=0, vmax=1, aspect="auto")
    ramp.set_xticks([])
    ramp.set_yticks([])
    ramp.spines[:].set_color(LINE_COLOR)


def _blocks(lane: Lane, picture: Picture) -> tuple[list[tuple[float, float]], list[float]]:
    """Return start and length of each block of a lane, and the scores."""
    spans = [(span.start_s, span.end_s - span.start_s, span.score) for span in lane.spans if span.score >= MIN_SCORE]
    if len(spans) > MAX_SPANS:
        column_s = (picture.end_s - picture.start_s) / MAX_SPANS
        columns = lane.columns(picture.start_s, picture.end_s, MAX_SPANS)
        spans = [
            (picture.start_s + column * column_s, column_s, score)
            for column, score in enumerate(columns)
            if score is not None and score >= MIN_SCORE
        ]
    return [(start_s, length_s) for start_s, length_s, _ in spans], [score for _, _, score in spans]


def _text_inches(figure: Figure, text: str, points: float, weight: str = "normal") -> float:
    """Return the width of a text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    canvas: Any = FigureCanvasAgg(figure)
    width, _, _ = canvas.get_renderer().get_text_width_height_descent(
        text, FontProperties(size=points, weight=weight), False
    )
    return float(width) / figure.dpi


def _fitting(figure: Figure, text: str, points: float, inches: float, *, keeps_end: bool = False) -> str:
    """Return a text that is cut to a width, with an ellipsis; the end of a path is kept."""
    width_of: Callable[[str], float] = functools.partial(_text_inches, figure, points=points, weight="bold")
    if width_of(text) <= inches:
        return text
    low, high = 0, len(text)  # characters that fit, and that do not
    while high - low > 1:
        middle = (low + high) // 2
        if width_of(_cut(text, middle, keeps_end)) <= inches:
            low = middle
        else:
            high = middle
    return _cut(text, low, keeps_end)


def _cut(text: str, length: int, keeps_end: bool) -> str:
    return f"…{text[len(text) - length :]}" if keeps_end else f"{text[:length].rstrip()}…"


@contextlib.contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Keep matplotlib from reporting what fonts lack: letters in bold, and characters."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def fonts_for(text: str) -> tuple[str, ...]:
    """Return the families of fonts for the characters of a text: the first one, then installed ones with the rest."""
    return _fonts("".join(sorted(set(printable(text)))))[0]


def characters_without_font(text: str) -> str:
    """Return the characters of a text that no installed font has; they are drawn as boxes in a PNG."""
    return _fonts("".join(sorted(set(printable(text)))))[1]


@functools.lru_cache(maxsize=256)
def _fonts(characters: str) -> tuple[tuple[str, ...], str]:
    """Return the families of fonts that have some characters, and the characters that none has.

    Matplotlib's own list of fonts is a cache that lacks those installed since; the system is asked instead.
    """
    from matplotlib import font_manager

    families = [FIRST_FONT]
    missing = set(characters)
    missing -= _found(missing, str(font_manager.findfont(FIRST_FONT)))
    for file in sorted(font_manager.findSystemFonts()) if missing else ():
        found = _found(missing, file)
        if found:
            font_manager.fontManager.addfont(file)
            families.append(font_manager.FontProperties(fname=file).get_name())
            missing -= found
        if not missing:
            break
    return tuple(families), "".join(sorted(missing))


def _found(characters: Collection[str], file: str) -> set[str]:
    """Return those characters that a font has; none if it cannot be read or has no outlines, as some with emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return {each for each in characters if font.scalable and font.get_char_index(ord(each))}
    except (OSError, RuntimeError, ValueError):
        return set()
