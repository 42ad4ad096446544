from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.overview import Overview, OverviewBuilder
from ast_cli.report.lanes import Lane, Span
from ast_cli.report.panels import PANELS, PICTURE_FORMATS, Panel
from ast_cli.report.picture import SCORE_COLORS, WAVEFORM_COLOR, Picture, characters_without_font, draw_picture

LABELS = (
    "Rain",
    "Dömestic änimals, pets " * 9,
    "<script>alert(1)</script>",
    "$x_1$ \\frac",
    "a\nb\x1b[2J",
    "\udce9",
    "дождь",
)


def overview(duration_s: float = 4.0) -> Overview:
    builder = OverviewBuilder(KaldiBank())
    builder.add(np.sin(np.arange(round(16_000 * duration_s)) / 3, dtype=np.float32))
    return builder.overview(0.0, duration_s)


def picture(panels: Sequence[Panel] = PANELS, labels: Sequence[str] = LABELS, title: str = "a/b.wav") -> Picture:
    lanes = [Lane(label, i, (Span(0, 2, 0.9), Span(2, 4, 0.1))) for i, label in enumerate(labels)]
    return Picture(title, "0:04 · model m", 0.0, 4.0, panels, overview(), lanes)


def pixels(png: bytes) -> NDArray[np.float32]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"))[..., :3]


def is_color(image: NDArray[np.float32], color: str | tuple[float, ...]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(image - to_rgb(color)) < 0.01).all(axis=-1))


def test_a_png_is_1200_pixels_wide_with_its_panels_aligned_in_time() -> None:
    image = pixels(draw_picture(picture(), "png"))
    assert image.shape[1] == 1200
    assert is_color(image, "white")[[0, -1]].all()  # a light ground to the edges
    wave = is_color(image, WAVEFORM_COLOR)
    dark = is_color(image, matplotlib.colormaps[SCORE_COLORS](0.9)[:3])
    left = wave.any(axis=0).argmax()
    assert abs(int(dark.any(axis=0).argmax()) - int(left)) <= 1
    right = 1200 - wave.any(axis=0)[::-1].argmax()
    blocks = np.flatnonzero(dark[: dark.shape[0] - 40].any(axis=0))  # without the scale at the bottom
    assert blocks.max() == pytest.approx((left + right) / 2, abs=3)  # the first half of the time axis


@pytest.mark.parametrize("panels", [("waveform",), ("spectrogram",), ("timeline",), ("spectrogram", "timeline")])
def test_each_panel_can_be_drawn_alone(panels: Sequence[Panel]) -> None:
    image = pixels(draw_picture(picture(panels), "png"))
    has_wave = is_color(image, WAVEFORM_COLOR).sum() > 1000
    has_lanes = is_color(image, matplotlib.colormaps[SCORE_COLORS](0.9)[:3]).sum() > 1000
    assert (has_wave, has_lanes) == ("waveform" in panels, "timeline" in panels)


def svg_texts(content: bytes) -> list[str]:
    root = ElementTree.fromstring(content)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_an_svg_has_names_and_units_as_text_and_nothing_of_a_name_is_markup() -> None:
    content = draw_picture(picture(title="<b>$1$ \n.wav"), "svg")
    texts = svg_texts(content)
    assert {"<b>$1$ \\n.wav", "time (s)", "frequency (Hz, mel scale)", "level (dB, loudest 0)"} <= set(texts)
    assert {"Rain", "<script>alert(1)</script>", "$x_1$ \\frac", "a\\nb\\x1b[2J", "\\udce9", "дождь", "0.90"} <= set(
        texts
    )
    (cut,) = (text for text in texts if text.startswith("Dömestic"))
    assert cut.endswith("…")
    assert b"<script" not in content


def test_a_picture_is_the_same_each_time_whatever_style_is_set() -> None:
    for format_name in PICTURE_FORMATS:
        first = draw_picture(picture(PANELS, LABELS[:2]), format_name)
        with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30, "axes.grid": True}):
            assert draw_picture(picture(PANELS, LABELS[:2]), format_name) == first
            assert matplotlib.rcParams["font.size"] == 30
    assert first.startswith(b"%PDF")


def test_a_timeline_without_labels_says_so() -> None:
    texts = svg_texts(draw_picture(picture(("timeline",), ()), "svg"))
    assert "no label above the threshold" in texts


def test_characters_that_no_font_has_are_named_and_give_no_warnings() -> None:
    unknown = "\U000e0100\u0378x"  # the second is assigned to nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_picture(picture(("timeline",), [unknown]), "png")
    assert "\u0378" in characters_without_font(unknown)
    assert characters_without_font("Rain дождь") == ""


def test_thousands_of_windows_are_joined_to_blocks_that_keep_the_highest_score() -> None:
    spans = tuple(Span(5.0 * i, 5.0 * i + 5, 0.9 if i == 5000 else 0.2) for i in range(17_280))  # a day
    day = Picture("day.wav", "24 h", 0.0, 86_400.0, ("timeline",), None, [Lane("Rain", 0, spans)])
    content = draw_picture(day, "svg")
    assert len(content) < 600_000
    assert matplotlib.colors.to_hex(matplotlib.colormaps[SCORE_COLORS](0.9)).encode() in content
    assert {"0:00:00", "24:00:00", "time (h:min:s)"} <= set(svg_texts(content))
