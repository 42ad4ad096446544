from __future__ import annotations

import io
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli import Tagger
from ast_cli.cli.progress import RunProgress
from ast_cli.cli.terminal import cells, shortened, terminal_width, wrapped
from ast_cli.results import TaggingResult
from ast_cli.tagging.run.tally import Tally

SAMPLES = Path(__file__).parents[2] / "sample_audio"
TERMINALS = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
SUMMARY = "4 inputs: 3 ok, 1 failed (not_audio 1); 0.03 h of audio in 0.3 s, 443.4 x real time, real-time factor 0.002"


@pytest.mark.parametrize("width", [20, 40, 79, 80, 200])
def test_a_line_is_broken_between_words_and_loses_none(width: int) -> None:
    lines = wrapped(SUMMARY, width).split("\n")
    assert max(map(len, lines)) <= width
    assert " ".join(line.strip() for line in lines) == SUMMARY


def test_a_line_that_fits_and_one_for_no_terminal_stay_as_they_are() -> None:
    assert wrapped("two  spaces", 11) == "two  spaces"
    assert wrapped(SUMMARY, None) == SUMMARY
    assert wrapped("one two\nthree four", 10) == "one two\nthree four"


def test_a_word_wider_than_the_terminal_stays_whole() -> None:
    path = "/" + "x" * 30
    assert wrapped(f"error: {path}: no such file", 20) == f"error:\n  {path}:\n  no such file"


def test_wide_and_combining_characters_count_as_the_terminal_shows_them() -> None:
    assert (cells("abc"), cells("\u96e8"), cells("e\u0301")) == (3, 2, 1)
    assert shortened("\u96e8" * 10, 9) == "..." + "\u96e8" * 3
    assert shortened("a/long/path.wav", 11) == "...path.wav"
    assert shortened("path.wav", 8) == "path.wav"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_progress_fits_the_terminal_and_keeps_its_figures(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunProgress, "elapsed_s", 1500.0)
    shown = RunProgress(Tally(4000))
    shown.tally.add(TaggingResult(f"recordings/{'x' * 100}.wav", "m", "softmax", 1800.0, 16000, 1))
    lines = shown.text(width).split("\n")
    assert max(map(len, lines)) <= width
    assert "x.wav" in lines[-1]
    for figure in (
        "1 of 4000 inputs,",
        "0.50 of about 2000 h of audio,",
        "1.2 x real time,",
        "1666 h 15 min left,",
        "0 failed",
    ):
        assert any(figure in line for line in lines)


def test_a_stream_that_is_not_a_terminal_has_no_width() -> None:
    assert terminal_width(io.StringIO()) is None


def run_on_terminal(arguments: list[str], folder: Path, columns: int, term: str, *, results: bool) -> tuple[int, str]:
    """Run the command on a terminal, with or without its results; return its code and what it prints there."""
    import fcntl
    import subprocess
    import termios

    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    run = subprocess.Popen(
        [sys.executable, "-m", "ast_cli", *arguments],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=terminal if results else subprocess.DEVNULL, stderr=terminal,
        env=os.environ | {"TERM": term},
    )  # fmt: skip
    os.close(terminal)
    printed = b""
    try:
        while block := os.read(reader, 65536):
            printed += block
    except OSError:  # the end of a terminal
        pass
    os.close(reader)
    return run.wait(), printed.decode()


def screen(printed: str) -> list[str]:
    """Return the lines that a terminal shows after the control sequences that rich writes."""
    lines, row, column = [""], 0, 0
    for control, digits, letter, character in re.findall(r"(\x1b\[\??(\d*)[\d;]*([A-Za-z]))|(.)", printed, re.DOTALL):
        if control and letter == "A":
            row -= int(digits or 1)
        elif control and letter == "K":
            lines[row] = "" if digits == "2" else lines[row][:column]
        elif character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif not control:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return lines


@TERMINALS
@pytest.mark.parametrize("columns", [50, 80, 140])
def test_no_line_of_a_result_is_erased_by_the_progress(tmp_path: Path, columns: int) -> None:
    samples = [str(SAMPLES / name) for name in ("telephone.wav", "rain.ogg", "missing.wav", "dog.wav")]
    arguments = ["classify", *samples, "--model", "builtin", "--top-k", "2"]
    code, printed = run_on_terminal(arguments, tmp_path, columns, "xterm", results=True)
    assert code == 3
    shown = [line.rstrip() for line in screen(printed)]
    assert "\x1b[1A" in printed or columns == 140  # the progress had several lines
    tagger = Tagger.from_pretrained("builtin")
    labels = [
        tag.label for sample in samples if "missing" not in sample for tag in tagger.classify(sample, top_k=2).tags
    ]
    for label in labels:
        assert any(line.endswith(label) for line in shown), "\n".join(shown)
    assert any("missing.wav  error: no such file" in line for line in shown) or columns < 80


@TERMINALS
def test_messages_of_a_run_fit_the_terminal(write_wav: Callable[..., Path], tmp_path: Path) -> None:
    write_wav("a.wav")
    arguments = ["classify", "a.wav", "missing.wav", "-o", "tags.jsonl", "-v"]
    code, text = run_on_terminal(arguments, tmp_path, 50, "dumb", results=False)
    assert code == 3
    assert "error: missing.wav: no such file" in text
    assert "2 inputs: 1 ok, 1 failed (not_found 1);" in text
    assert max(map(len, text.splitlines())) <= 50
