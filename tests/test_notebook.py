from __future__ import annotations

import base64
import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import ErrorCode
from ast_cli.notebook import MAX_EMBEDDED_BYTES
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window

HOSTILE = '"><script>alert(1)</script>\n\x1b[2J\u202egpj\udce9&amp;'
ALLOWED = "div b bdi table caption thead tbody tr th td span details summary audio".split()


class Reader(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.open.append(tag)
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}|"

    def sources(self) -> list[str | None]:
        return [attributes.get("src") for tag, attributes in self.elements if tag == "audio"]


def result(path: str | None = "a.wav", label: str = "Rain", score: float = 0.75, **changes: Any) -> TaggingResult:
    tag = Tag(label, 1, None, score)
    return dataclasses.replace(TaggingResult(path, "m", "sigmoid", 6.0, 16000, 1, (tag,)), **changes)


def test_a_result_is_a_table_with_bars() -> None:
    page = Reader(result()._repr_html_())
    assert "a.wav|" in page.text
    assert "6.00 s · model m|" in page.text
    assert "Rain|0.7500|" in page.text
    (bar,) = (attributes["style"] for tag, attributes in page.elements if tag == "span")
    assert "width:90px" in str(bar)
    assert page.sources() == []  # the file is not there


def test_windows_and_events_are_behind_a_click_and_long_lists_are_cut() -> None:
    windows = tuple(Window(i, i + 1, (Tag(f"L{i}", i, None, 0.5), Tag("x", 0, None, 0.1))) for i in range(30))
    event = Event("Bark", 1, None, 1.0, 2.5, 0.6, 0.8)
    page = Reader(result(windows=windows, events=(event,))._repr_html_())
    assert "30 windows|" in page.text
    assert "1 event|" in page.text
    assert "19.00-20.00|L19|" in page.text
    assert "L20" not in page.text
    assert "and 10 more|" in page.text
    assert "1.00-2.50|Bark|0.6000|" in page.text
    assert "1.00-2.50|Bark|0.6000|" in Reader(event._repr_html_()).text
    assert "0.00-1.00 s|" in Reader(windows[0]._repr_html_()).text
    assert "no label above the threshold" in Reader(Window(0, 1, ())._repr_html_()).text


def test_hostile_names_and_labels_are_text() -> None:
    event = Event(HOSTILE, 1, None, 0.0, 1.0, 0.6, 0.8)
    failed = result(HOSTILE, error=FileError(ErrorCode.NOT_AUDIO, HOSTILE))
    whole = result(
        HOSTILE, HOSTILE, windows=(Window(0, 1, (Tag(HOSTILE, 1, None, 0.5),)),), events=(event,), model=HOSTILE
    )
    for page in (whole._repr_html_(), failed._repr_html_(), event._repr_html_(), whole.windows[0]._repr_html_()):
        assert {tag for tag, _ in Reader(page).elements} <= set(ALLOWED)
        assert page.isprintable()
        page.encode("utf-8")
        assert '"><script>alert(1)</script>\\n\\x1b[2J\\u202egpj\\udce9&amp;' in Reader(page).text


def test_logits_have_no_bars_and_channels_have_tables() -> None:
    assert "<span" not in result(score=-3.5)._repr_html_()
    channels = TaggingResult.from_channels([result(channel=1), result(channel=2, label="Bark")])
    text = Reader(channels._repr_html_()).text
    assert "channel 1|" in text
    assert "channel 2|" in text
    assert "Bark|" in text
    assert "waveform|" in Reader(result(None)._repr_html_()).text


def test_a_small_file_is_in_the_player(tmp_path: Path) -> None:
    file = tmp_path / "a.OGG"
    file.write_bytes(b"OggS content")
    (source,) = Reader(result(str(file))._repr_html_()).sources()
    assert source == f"data:audio/ogg;base64,{base64.b64encode(b'OggS content').decode()}"


def test_a_large_file_is_referenced_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")
    file = tmp_path / 'a #"é.wav'
    file.write_bytes(bytes(MAX_EMBEDDED_BYTES + 1))
    (source,) = Reader(result(str(file))._repr_html_()).sources()
    assert source == "../a%20%23%22%C3%A9.wav"


@pytest.mark.parametrize("name", ["missing.wav", "a.txt", "folder.wav"])
def test_there_is_no_player_for_what_no_browser_plays(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "folder.wav").mkdir()
    assert Reader(result(str(tmp_path / name))._repr_html_()).sources() == []
