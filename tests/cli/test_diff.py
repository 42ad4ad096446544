from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.errors import ErrorCode, ExitCode
from ast_cli.results import Event, FileError, Tag, TaggingResult

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def result(path: str, *events: tuple[float, float], channel: int | None = None, **scores: float) -> TaggingResult:
    tags = tuple(Tag(label, 0, None, score) for label, score in scores.items())
    found = tuple(Event("Rain\x1b", 0, None, start_s, end_s, 0.6, 0.7) for start_s, end_s in events)
    return TaggingResult(path, "m", "sigmoid", 10.0, 16000, 1, tags, None, found, channel=channel)


def failed(path: str) -> TaggingResult:
    return TaggingResult(path, "m", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, f"{path}: no audio"))


OLD = [result("same.wav", Rain=0.5), result("a\n.wav", (0, 5), Rain=0.75, Bark=0.5), failed("b.wav"), failed("c.wav")]
NEW = [
    result("same.wav", Rain=0.501),
    result("a\n.wav", Rain=0.25, Music=0.625),
    result("b.wav"),
    result("n.wav", channel=2),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, results in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(each.to_dict())}\n" for each in results))
    return tmp_path


def test_the_table_names_what_changed(run_ast: Run, folder: Path) -> None:
    done = run_ast("diff", "old.jsonl", "new.jsonl", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "a\\n.wav\n"
        "  +  0.6250            Music\n"
        "     0.7500 ->  0.2500  Rain\n"
        "  -  0.5000            Bark\n"
        "  events of Rain\\x1b: 00:00.00 - 00:05.00 -> none\n"
        "b.wav  not_audio -> ok\n"
        "c.wav  only in the first: not_audio\n"
        "n.wav [channel 2]  only in the second\n"
        "3 recordings in both: 1 the same, 1 with other labels or events, 1 with another status; 1 only in the first, "
        "1 only in the second\n"
    )


def test_json_has_every_difference_and_the_counts(run_ast: Run, folder: Path) -> None:
    lines = run_ast("diff", "old.jsonl", "-", "-f", "jsonl", cwd=folder, stdin=(folder / "new.jsonl").read_bytes())
    *differences, summary = map(json.loads, lines.stdout.splitlines())
    assert [(each["path"], each["difference"]) for each in differences] == [
        ("a\n.wav", "labels"),
        ("b.wav", "status"),
        ("c.wav", "only_in_old"),
        ("n.wav", "only_in_new"),
    ]
    assert differences[0]["labels"][1] == {"label": "Rain", "change": "changed", "old_score": 0.75, "new_score": 0.25}
    assert differences[0]["events"] == [{"label": "Rain\x1b", "old_events": [[0, 5]], "new_events": []}]
    assert differences[3]["channel"] == 2
    counts = {"num_compared": 3, "num_only_in_old": 1, "num_only_in_new": 1, "num_status": 1, "num_labels": 1}
    assert summary == {"schema_version": 1, "type": "difference_summary", **counts}
    document = json.loads(run_ast("diff", "old.jsonl", "new.jsonl", "-f", "json", cwd=folder).stdout)
    assert document == {"schema_version": 1, "type": "differences", "differences": differences, **counts}
    empty = json.loads(run_ast("diff", "old.jsonl", "old.jsonl", "-f", "json", cwd=folder).stdout)
    assert (empty["differences"], empty["num_compared"]) == ([], 4)


def test_the_exit_code_tells_whether_anything_differs_on_request(run_ast: Run, folder: Path) -> None:
    assert run_ast("diff", "old.jsonl", "new.jsonl", "--exit-code", cwd=folder).returncode == ExitCode.DIFFERENT == 5
    assert run_ast("diff", "old.jsonl", "old.jsonl", "--exit-code", cwd=folder).returncode == 0


def test_paths_that_never_match_are_noted(run_ast: Run, folder: Path) -> None:
    (folder / "empty.jsonl").write_text("")
    done = run_ast("diff", "old.jsonl", "empty.jsonl", cwd=folder)
    assert (done.returncode, done.stderr.startswith("note: no recording is in both")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["old.jsonl", "none.jsonl"], 2, "none.jsonl: no such file"),
        (["old.jsonl", "new.jsonl", "--tolerance", "-1"], 2, "--tolerance must be at least 0, not -1"),
        (["-", "-"], 2, "standard input can be read once"),
        (["old.jsonl", "twice.jsonl"], 1, "same.wav occurs twice"),
    ],
)
def test_errors_are_one_sentence(run_ast: Run, folder: Path, arguments: list[str], code: int, message: str) -> None:
    (folder / "twice.jsonl").write_text(2 * (folder / "new.jsonl").read_text())
    done = run_ast("diff", *arguments, cwd=folder)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
