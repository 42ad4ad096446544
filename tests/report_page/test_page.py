"""The page as a file: its data, its policy, what it says about audio, and hostile names in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import AstError
from ast_cli.report.json_lines import json_line
from ast_cli.report_page.answers import Item
from ast_cli.report_page.document import SCRIPTS, STYLE, asset
from ast_cli.report_page.options import ReportOptions
from ast_cli.report_page.page import ReportSummary, relative_address, write_report
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window
from ast_cli.tagging.decode.pool import DecodePool

ASSETS = Path(__file__).parents[2] / "ast_cli" / "report_page"
MAX_CODE_BYTES = 120_000
IN_PROCESS = ReportOptions(num_workers=0)


def result(path: str | None, **fields: Any) -> TaggingResult:
    tags = (Tag("Dog", 3, "/m/0bt9lr", 0.75), Tag("Rain", 1, None, 0.25))
    given = {"model": "builtin", "activation": "sigmoid", "duration_s": 1.0, "tags": tags, **fields}
    return TaggingResult(path, **given)


def made(
    tmp_path: Path, results: list[TaggingResult], options: ReportOptions = IN_PROCESS, **arguments: Any
) -> tuple[str, dict[str, Any], list[dict[str, Any]], ReportSummary]:
    file = tmp_path / "tags.jsonl"
    file.write_text("".join(json_line(each) + "\n" for each in results), encoding="ascii")
    summary = write_report(file, tmp_path / "page.html", options, **arguments)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, flags=re.DOTALL)
    data = {name: json.loads(text) for name, text in blocks}
    return html, data["data"], [data[f"r{number}"] for number in range(len(data) - 1)], summary


def test_code_and_styles_are_small_and_the_minified_program_is_that_of_its_source() -> None:
    assert sum((ASSETS / name).stat().st_size for name in (*SCRIPTS, STYLE)) <= MAX_CODE_BYTES
    digest = hashlib.sha256((ASSETS / "page.js").read_bytes()).hexdigest()
    assert f"sha256 {digest}" in asset("page.min.js").splitlines()[0], "run `make page`"


def test_wavesurfer_is_the_one_from_npm() -> None:
    folder = ASSETS / "wavesurfer"
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    html, *_ = made(tmp_path, [result("gone.wav")])
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert directives.pop("script-src") == " ".join(f"'sha256-{digest}'" for digest in hashes)
    (nonce,) = re.findall(r'<style nonce="(.*?)">', html)
    assert directives.pop("style-src") == f"'nonce-{nonce}'"
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html.split('<script type="application/json"')[0])


def test_the_page_has_what_the_results_have(tmp_path: Path, write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav")
    windows = (Window(0.0, 1.0, (Tag("Dog", 3, "/m/0bt9lr", 0.75), Tag("Rain", 1, None, 0.5))),)
    events = (Event("Dog", 3, "/m/0bt9lr", 0.25, 0.75, 0.7, 0.8),)
    _, data, (details,), summary = made(tmp_path, [result(str(path), windows=windows, events=events)])
    assert data["facts"]["labels"] == [["Dog", 3, "/m/0bt9lr"], ["Rain", 1, None]]
    assert data["rows"] == [{"path": str(path), "duration": 1.0, "labels": [0, 0.8, 1, 0.5], "audio": "embedded"}]
    assert details["windows"] == {"label": [0, 1], "start": [0.0, 0.0], "end": [1.0, 1.0], "score": [0.75, 0.5]}
    assert details["events"] == {"label": [0], "start": [0.25], "end": [0.75], "score": [0.7], "max": [0.8]}
    assert base64.b64decode(details["preview"]).startswith(b"\x1a\x45\xdf\xa3")  # WebM
    assert details["spectrogram"][0]["columns"] == 98
    assert summary.num_embedded == 1
    assert summary.num_bytes == (tmp_path / "page.html").stat().st_size


def test_audio_beyond_the_limit_is_played_from_its_file(tmp_path: Path, write_wav: Callable[..., Path]) -> None:
    paths = [write_wav(f"part {n}#.wav") for n in range(3)]
    options = ReportOptions(num_workers=0, embed_mb=0.005)
    html, data, details, summary = made(tmp_path, [result(str(path)) for path in paths], options)
    assert [row["audio"] for row in data["rows"]] == ["embedded", "linked", "linked"]
    assert [each.get("link") for each in details] == [None, "part%201%23.wav", "part%202%23.wav"]
    assert (summary.num_embedded, summary.num_linked) == (1, 2)
    assert "media-src blob: 'self' file:;" in html


def test_one_worker_decodes_all_recordings(
    tmp_path: Path, write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[DecodePool] = []
    start = DecodePool._start_worker
    monkeypatch.setattr(DecodePool, "_start_worker", lambda pool: (started.append(pool), start(pool))[1])
    two = str(write_wav("two.wav", num_channels=2))
    results = [result(str(write_wav(f"{n}.wav"))) for n in range(3)] + [result("gone.wav"), result(None)]
    results += [result(two, channel=2), result(str(write_wav("last.wav")))]
    _, data, details, _ = made(tmp_path, results, ReportOptions(num_workers=1))
    assert len(started) == 1
    assert [row.get("audio", "none") for row in data["rows"]] == ["embedded"] * 3 + ["none"] * 2 + ["embedded"] * 2
    assert ["problem" in each for each in details] == [False] * 3 + [True] * 2 + [False] * 2


@pytest.mark.parametrize("path", ["gone.wav", "-", None, "nul\0.wav"])
def test_the_page_says_why_there_is_no_audio(tmp_path: Path, path: str | None) -> None:
    _, data, (details,), summary = made(tmp_path, [result(path)])
    assert "audio" in details["problem"]
    assert "preview" not in details
    assert data["facts"]["unread"] == summary.num_unread == 1
    assert details["tags"]["label"] == [0, 1]


def test_results_only_reads_no_audio(tmp_path: Path, write_wav: Callable[..., Path]) -> None:
    options = ReportOptions(num_workers=0, results_only=True)
    _, data, (details,), summary = made(tmp_path, [result(str(write_wav("a.wav")))], options)
    assert not {"preview", "link", "peaks", "spectrogram", "problem"} & set(details)
    assert (summary.num_unread, data["facts"]["sound"]) == (0, False)


def test_errors_are_rows_and_channels_are_read_together(tmp_path: Path, write_wav: Callable[..., Path]) -> None:
    path = str(write_wav("two.wav", num_channels=2))
    error = FileError("not_audio", "x.wav: not an audio file")  # type: ignore[arg-type]
    results = [result("x.wav", error=error, tags=(), duration_s=None), result(path, channel=1), result(path, channel=2)]
    _, data, details, summary = made(tmp_path, results)
    assert data["rows"][0]["error"] == ["not_audio", "x.wav: not an audio file"]
    assert [row.get("channel") for row in data["rows"]] == [None, 1, 2]
    assert details[1]["peaks"] != details[2]["peaks"]
    assert (summary.num_records, summary.num_failed, summary.num_embedded) == (3, 1, 2)


def test_an_empty_file_makes_an_empty_page(tmp_path: Path) -> None:
    _, data, details, summary = made(tmp_path, [])
    assert (data["rows"], details, summary.num_records) == ([], [], 0)


def test_names_and_labels_never_become_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--"
    records = [
        result(f"{evil}.wav", model=evil, warnings=(evil,)),
        result("line\nbreak\u2028.wav", tags=(Tag(evil, 0, evil, 0.5),)),
        result(b"bytes\xff.wav".decode("utf-8", "surrogateescape")),
    ]
    html, data, _, _ = made(tmp_path, records, title=evil)
    assert evil not in html
    assert "<script>alert" not in html
    assert data["rows"][0]["path"] == f"{evil}.wav"
    assert data["rows"][1]["path"] == "line\nbreak\u2028.wav"
    assert base64.b64decode(data["rows"][2]["path_b64"]) == b"bytes\xff.wav"
    assert html.count("<script") == 1 + len(SCRIPTS) + len(records)


@pytest.mark.parametrize(
    "wrong",
    [{"tags": [{"label": ["x"], "label_id": 0, "mid": None, "score": 0.5}]}, {"path": 7}, {"channel": 0}]
    + [{"tags": [{"label": "x", "label_id": 0, "mid": None, "score": score}]} for score in ("high", float("inf"))],
)
def test_a_value_that_no_record_has_is_one_clear_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = tmp_path / "tags.jsonl"
    file.write_text(json.dumps({**result("a.wav").to_dict(), **wrong}) + "\n", encoding="ascii")
    with pytest.raises(AstError, match="its record has a value that ast classify does not write"):
        write_report(file, tmp_path / "page.html", IN_PROCESS)
    assert not (tmp_path / "page.html").exists()


def test_answers_come_with_the_page_and_those_to_nothing_are_counted(tmp_path: Path) -> None:
    events = (Event("Dog", 3, None, 0.25, 0.75, 0.7, 0.8),)
    known = Item("a.wav", None, "event", "Dog", 0.25, 0.75)
    unknown = Item("a.wav", None, "event", "Dog", 0.5, 0.75)
    answers = {item: {"answer": "reject", "label": item.label} for item in (known, unknown)}
    _, data, _, summary = made(tmp_path, [result("a.wav", events=events)], answers=answers)
    assert data["answers"] == list(answers.values())
    assert (summary.num_answers, summary.num_unmatched_answers) == (1, 1)


def test_addresses_are_relative_to_the_page_for_names_of_any_bytes(tmp_path: Path) -> None:
    folder = str(tmp_path / "pages")
    assert relative_address(str(tmp_path / "a b" / "c?.wav"), folder) == "../a%20b/c%3F.wav"
    name = b"x\xff:1.wav".decode("utf-8", "surrogateescape")
    assert relative_address(str(tmp_path / "pages" / name), folder) == "x%FF%3A1.wav"
