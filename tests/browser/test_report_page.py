"""The report page in a browser: clicks, keys, playing, filters, downloads, sizes, hostile names, accessibility."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ast_cli.report.json_lines import json_line
from ast_cli.report_page.answers import read_answers
from ast_cli.report_page.options import ReportOptions
from ast_cli.report_page.page import write_report
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
AXE = Path(__file__).parents[2] / ".venv" / "axe-core" / "axe.min.js"
RATE = 16000
DOG, RAIN = ("Dog", 3, "/m/0bt9lr"), ("Rain", 1, "/m/06mb1")
OpenPage = Callable[..., Any]
PHONE, TABLET = {"width": 390, "height": 844}, {"width": 820, "height": 1180}


def written(folder: Path, results: list[TaggingResult], name: str = "page.html", **arguments: Any) -> Path:
    file = folder / "tags.jsonl"
    file.write_text("".join(json_line(each) + "\n" for each in results), encoding="ascii")
    options = arguments.pop("options", ReportOptions(num_workers=0))
    write_report(file, folder / name, options, title="tags.jsonl", **arguments)
    return folder / name


def recording(folder: Path, name: str = "dog, then rain.wav") -> TaggingResult:
    """Write six seconds with a tone from 1 to 3 s and noise from 4 to 6 s, and return its result."""
    time_s = np.arange(6 * RATE) / RATE
    rng = np.random.default_rng(0)
    samples = np.where((time_s >= 1) & (time_s < 3), 0.5 * np.sin(2 * np.pi * 800 * time_s), 0)
    samples = np.where(time_s >= 4, 0.2 * rng.standard_normal(time_s.size), samples)
    soundfile.write(folder / name, samples.astype(np.float32), RATE)
    windows = tuple(
        Window(float(s), s + 1.0, (Tag(*DOG, 0.9 if s in (1, 2) else 0.05), Tag(*RAIN, 0.8 if s > 3 else 0.2)))
        for s in range(6)
    )
    events = (Event(*DOG, 1.0, 3.0, 0.9, 0.9), Event(*RAIN, 4.0, 6.0, 0.6, 0.8))
    tags = (Tag(*RAIN, 0.4), Tag(*DOG, 0.35))
    return TaggingResult(
        str(folder / name), "builtin", "sigmoid", 6.0, RATE, 1, tags=tags, windows=windows, events=events
    )


def plain(path: str, *tags: Tag, **fields: Any) -> TaggingResult:
    return TaggingResult(path, "builtin", "sigmoid", **{"duration_s": 6.0, "tags": tags, **fields})


def three(folder: Path) -> list[TaggingResult]:
    failed = plain("broken.wav", duration_s=None, error=FileError("not_audio", "broken.wav: not an audio file"))  # type: ignore[arg-type]
    gone = plain("gone.wav", Tag(*RAIN, 0.7), warnings=("truncated",))
    return [recording(folder), failed, gone]


def texts(page: Any, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def labels_in_table(page: Any) -> list[str]:
    return texts(page, "#rows tbody tr[aria-rowindex] td:nth-child(2)")


def lane_colors(page: Any, lane: int, times_s: list[float]) -> list[list[int]]:
    """Return the colors of a lane of the canvas at some times."""
    return page.evaluate(
        """([lane, times]) => { const c = document.getElementById('lanes-canvas');
        const b = document.getElementById('lanes'),
        s = document.getElementById("spectrogram"), ratio = c.width / b.clientWidth,
        left = b.clientWidth - s.clientWidth,
        tall = left ? 24 : 38, duration = 6;
        const copy = document.createElement('canvas'); copy.width = c.width; copy.height = c.height;
        const pixels = copy.getContext('2d', {willReadFrequently: true}); pixels.drawImage(c, 0, 0);
        return times.map(t => [...pixels.getImageData((left + t / duration * s.clientWidth) * ratio,
        (lane * tall + (left ? tall / 2 : 26)) * ratio, 1, 1).data].slice(0, 3)); }""",
        [lane, times_s],
    )


def brightness(color: list[int]) -> int:
    return sum(color)


def wait_until(page: Any, condition: Callable[[], bool]) -> None:
    """Wait for a condition; Playwright's own waiting evaluates text in the page, which the policy refuses."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within a minute"
        page.wait_for_timeout(50)


def is_playing(page: Any) -> bool:
    return page.get_attribute("#play", "aria-label") == "Pause"


def position_s(page: Any) -> float:
    minutes, seconds = page.inner_text("#now").split(":")
    return 60 * int(minutes) + float(seconds)


def test_the_index_lists_searches_filters_and_sorts(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, three(tmp_path)))
    rows = "#index-rows tbody tr[aria-rowindex] a"
    assert page.inner_text("h1#title") == "tags.jsonl"
    assert "3 recordings" in page.inner_text("#facts")
    assert "1 failed" in page.inner_text("#facts")
    assert "1 in this page" in page.inner_text("#audio-facts")
    assert len(texts(page, rows)) == 3
    assert "not_audio: broken.wav: not an audio file" in page.inner_text("#index-rows tbody")
    page.fill("#search", "GONE")
    assert texts(page, rows) == ["gone.wav"]
    page.fill("#search", "")
    page.select_option("#state", "error")
    assert texts(page, rows) == ["broken.wav"]
    page.select_option("#state", "")
    page.click("#totals button:has-text('Dog')")
    assert len(texts(page, rows)) == 1
    page.click("#totals button:has-text('Dog')")
    page.click("#index-rows [data-sort=name]")
    assert texts(page, rows)[0].endswith("dog, then rain.wav")  # its whole path begins with a slash
    page.click("#index-rows [data-sort=name]")
    assert texts(page, rows)[0] == "gone.wav"
    page.locator("#index-threshold").fill("0.8")
    assert len(texts(page, rows)) == 1
    with page.expect_download() as download:
        page.click("#index-csv")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith(",,6,Dog,0.9,")


def test_a_click_on_a_lane_plays_from_there_and_the_cursor_moves(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, three(tmp_path)))
    page.click("#index-rows a:has-text('dog, then rain')")
    page.wait_for_selector("#recording:not([hidden])")
    box, picture = page.locator("#lanes").bounding_box(), page.locator("#spectrogram").bounding_box()
    x = picture["x"] - box["x"] + picture["width"] * 2 / 6
    page.wait_for_timeout(500)
    page.locator("#lanes").click(position={"x": x, "y": 12})
    wait_until(page, lambda: is_playing(page))
    wait_until(page, lambda: position_s(page) > 2.3)
    assert 2.2 < position_s(page) < 6.1
    page.keyboard.press(" ")
    wait_until(page, lambda: not is_playing(page))
    stopped = position_s(page)
    page.wait_for_timeout(300)
    assert position_s(page) == stopped
    cursor = page.locator("#cursor").bounding_box()
    assert cursor["x"] - picture["x"] == pytest.approx(stopped / 6 * picture["width"], abs=picture["width"] * 0.02)


def test_lanes_show_the_scores_at_their_times_and_the_slider_changes_lanes_and_table(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(written(tmp_path, [recording(tmp_path)]))
    page.wait_for_timeout(500)
    assert labels_in_table(page) == ["Dog", "Rain"]
    dog = [brightness(color) for color in lane_colors(page, 0, [0.5, 1.5, 2.5, 4.5])]
    rain = [brightness(color) for color in lane_colors(page, 1, [1.5, 4.5])]
    assert max(dog[1:3]) < min(dog[0], dog[3]) - 150  # dark is a high score on the light page
    assert rain[1] < rain[0] - 100
    page.locator("#threshold").fill("0.7")
    assert labels_in_table(page) == ["Dog"]
    assert page.inner_text("#count") == "1 of 2 events"
    page.locator("#threshold").fill("0")
    page.select_option("#kind", "window")
    assert len(labels_in_table(page)) == 12
    page.fill("#filter", "rai")
    assert set(labels_in_table(page)) == {"Rain"}
    page.wait_for_timeout(200)
    alone = [brightness(color) for color in lane_colors(page, 0, [1.5, 4.5])]
    assert alone[1] < alone[0] - 100


def test_zooming_keeps_the_time_scale_of_all_pictures(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, [recording(tmp_path)]))
    page.wait_for_timeout(500)
    for _ in range(4):
        page.click("#zoom-in")
    page.keyboard.press("k")  # the first row: scrolls to it
    page.wait_for_timeout(300)
    inner = page.evaluate("""() => { const host = [...document.querySelectorAll('#wave *')].find(n => n.shadowRoot);
        const s = host.shadowRoot.querySelector('.scroll'); return [s.scrollWidth / s.clientWidth, s.scrollLeft]; }""")
    assert inner[0] == pytest.approx(1.6**4, rel=0.02)
    page.click("#zoom-fit")
    page.wait_for_timeout(300)
    assert max(brightness(color) for color in lane_colors(page, 0, [1.5, 2.5])) < 450


def test_keys_answer_and_the_answers_come_back(open_page: OpenPage, tmp_path: Path) -> None:
    results = [recording(tmp_path)]
    page = open_page(written(tmp_path, results))
    page.keyboard.press("j")
    page.keyboard.press("a")  # and on to the next
    page.keyboard.press("r")
    pressed = "#rows .judge button[aria-pressed=true]"
    assert texts(page, pressed) == ["✓", "✗"]
    assert page.inner_text("#save-answers") == "Download 2 answers"
    with page.expect_download() as download:
        page.click("#save-answers")
    file = tmp_path / "answers.jsonl"
    download.value.save_as(file)
    answers = read_answers(file)
    assert [(item.label, item.start_s, item.end_s, answer["answer"]) for item, answer in answers.items()] == [
        ("Dog", 1.0, 3.0, "accept"),
        ("Rain", 4.0, 6.0, "reject"),
    ]
    again = open_page(written(tmp_path, results, "again.html", answers=answers))
    assert texts(again, pressed) == ["✓", "✗"]
    again.select_option("#answered", "reject")
    assert labels_in_table(again) == ["Rain"]
    again.click("#rows .no")
    assert again.inner_text("#save-answers") == "Download 1 answer"


def test_downloads_are_what_is_shown(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, [recording(tmp_path)]))
    page.fill("#filter", "dog")
    with page.expect_download() as download:
        page.click("#audacity")
    assert Path(download.value.path()).read_text(encoding="utf-8") == "1.000000\t3.000000\tDog 0.900\n"
    assert download.value.suggested_filename == "dog_ then rain.wav.txt"
    with page.expect_download() as download:
        page.click("#csv")
    path = tmp_path / "dog, then rain.wav"
    assert Path(download.value.path()).read_text(encoding="utf-8") == (
        f'path,channel,start_s,end_s,label,label_id,mid,score,type,answer\n"{path}",,1.000,3.000,Dog,3,/m/0bt9lr,0.9,event,\n'
    )


def test_audio_beside_the_page_is_played_and_a_missing_file_is_said(open_page: OpenPage, tmp_path: Path) -> None:
    results = [recording(tmp_path, "a #1 ü.wav"), recording(tmp_path, "b.wav")]
    page = open_page(written(tmp_path, results, options=ReportOptions(num_workers=0, embed_mb=0)), "#1")
    assert page.inner_text("#audio-note") == "Audio: played from its file"
    page.click("#play")
    wait_until(page, lambda: position_s(page) > 0.3)
    page.keyboard.press(" ")


@pytest.mark.parametrize("viewport", [PHONE, TABLET, {"width": 1600, "height": 1000}])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, tmp_path: Path, viewport: dict[str, int]) -> None:
    page = open_page(written(tmp_path, three(tmp_path)), viewport=viewport)
    for where in ("", "#1", "#2"):
        page.evaluate(f"location.hash = '{where}'")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.evaluate("location.hash = '#1'")
    page.wait_for_timeout(300)
    page.locator("#rows .yes").first.click()
    assert page.locator("#rows .yes").first.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}])
def test_axe_finds_no_violations(open_page: OpenPage, tmp_path: Path, scheme: str, viewport: dict[str, int]) -> None:
    assert AXE.is_file(), "make browser-test installs axe-core"
    page = open_page(written(tmp_path, three(tmp_path)), viewport=viewport, color_scheme=scheme)
    for where in ("", "#1", "#2"):
        page.evaluate(f"location.hash = '{where}'")
        page.wait_for_timeout(400)
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
        assert [(each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"]) for each in found] == []


def test_no_recordings_is_said_and_one_is_opened(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, []))
    assert page.inner_text("#facts") == "There are no recordings in these results."
    page = open_page(written(tmp_path, [plain("gone.wav", Tag(*RAIN, 0.7))], "one.html"))
    assert page.inner_text("#name") == "gone.wav"
    assert "could not be read when this page was made" in page.inner_text("#problem")
    assert page.is_disabled("#play")
    assert labels_in_table(page) == ["Rain"]


def test_hostile_names_are_text(open_page: OpenPage, tmp_path: Path) -> None:
    evil = "<img src=x onerror=document.title='owned'></script><script>document.title='owned'</script>"
    names = [f"{evil}.wav", "line\nbreak.wav", b"bytes\xff.wav".decode("utf-8", "surrogateescape"), "\u202efdp.wav"]
    tags = (Tag(evil, 0, evil, 0.9),)
    results = [TaggingResult(name, evil, "sigmoid", duration_s=6.0, tags=tags) for name in names]
    page = open_page(written(tmp_path, results))
    shown = texts(page, "#index-rows tbody tr[aria-rowindex] a")
    assert shown == [f"{evil}.wav", "line\\u000abreak.wav", "bytes\ufffd.wav", "\\u202efdp.wav"]
    for number in range(1, 5):
        page.evaluate(f"location.hash = '#{number}'")
        page.wait_for_timeout(200)
        assert labels_in_table(page) == [evil]
        page.keyboard.press("j")
        page.keyboard.press("a")
    assert page.locator("img, main script").count() == 0
    assert page.title() != "owned"
    with page.expect_download() as download:
        page.click("#save-answers")
    download.value.save_as(tmp_path / "answers.jsonl")
    assert {item.path for item in read_answers(tmp_path / "answers.jsonl")} == set(names)


def test_ten_thousand_recordings_are_drawn_as_needed(
    open_page: OpenPage, tmp_path: Path, record_property: Callable[[str, float], None]
) -> None:
    rng = np.random.default_rng(0)
    labels = [(f"Label {n}", n, None) for n in range(60)]
    results = [
        plain(f"site {n % 37}/{n:05d}.wav", *(Tag(*labels[k], float(rng.random())) for k in rng.choice(60, 5, False)))
        for n in range(10_000)
    ]
    page = open_page(written(tmp_path, results, options=ReportOptions(num_workers=0, results_only=True)))
    assert page.inner_text("#index-count") == "10,000 recordings"
    assert page.locator("#index-rows tbody tr").count() < 80
    paint_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    keystroke_ms = page.evaluate(
        """() => { const s = document.getElementById('search'); s.value = '099'; const t = performance.now();
        s.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - t; }"""
    )
    record_property("first paint, ms", paint_ms)
    record_property("keystroke, ms", keystroke_ms)
    assert set(texts(page, "#index-rows tbody tr[aria-rowindex] a")) <= {
        f"site {n % 37}/{n:05d}.wav" for n in range(10_000)
    }
    num_found = sum("099" in f"site {n % 37}/{n:05d}.wav" for n in range(10_000))
    assert page.inner_text("#index-count") == f"{num_found} of 10,000 recordings"
    page.fill("#search", "")
    page.evaluate("document.getElementById('index-rows').scrollTop = 1e9")
    page.wait_for_timeout(300)
    assert texts(page, "#index-rows tbody tr[aria-rowindex] a")[-1] == "site 9/09999.wav"
    page.click("text=site 9/09999.wav")
    assert page.inner_text("#name") == "site 9/09999.wav"
