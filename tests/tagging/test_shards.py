from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import STDIN, Input, RealPaths
from ast_cli.tagging.run.shards import format_shard, in_shard, parse_shard


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("2/8", (2, 8)), ("07/08", (7, 8))])
def test_shard_is_parsed(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard
    assert parse_shard(str(format_shard(shard))) == shard


@pytest.mark.parametrize("text", ["", "2", "2/", "/8", "-1/8", "2/8/9", "2 / 8", "a/b", "1.0/8", "²/8", "2/8\n"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--shard must be I/N, such as 0/8"):
        parse_shard(text)


def test_shards_are_counted_from_0() -> None:
    with pytest.raises(
        UsageError, match=r"^--shard 8/8 does not exist: shards are counted from 0, the last one is 7/8$"
    ):
        parse_shard("8/8")
    with pytest.raises(UsageError, match=r"^--shard 0/0: the number of shards must be at least 1$"):
        parse_shard("0/0")


def test_every_input_is_in_exactly_one_shard_and_shards_have_similar_sizes() -> None:
    inputs = [Input(f"/nowhere/{number}.wav") for number in range(4000)]
    shards = [[in_shard(item, (index, 4)) for item in inputs] for index in range(4)]
    assert all(sum(column) == 1 for column in zip(*shards, strict=True))
    # 1000 expected; five standard deviations of a binomial with p = 1/4 are 137
    assert all(abs(sum(row) - 1000) < 137 for row in shards)


def test_split_is_the_same_in_another_process_and_in_every_release() -> None:
    # SHA-256 of b"/nowhere/0.wav" and so on, by hashlib's definition; another split would lose files of running jobs.
    expected = [index for index in range(30) if in_shard(Input(f"/nowhere/{index}.wav"), (1, 3))]
    program = (
        "from ast_cli.tagging.run.shards import in_shard; from ast_cli.tagging.inputs import Input;"
        "print([i for i in range(30) if in_shard(Input(f'/nowhere/{i}.wav'), (1, 3))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(expected) == "[1, 7, 11, 16, 19, 22, 23, 25, 27, 29]"


def test_file_is_identified_by_its_real_path_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "y.wav").symlink_to("a/x.wav")
    monkeypatch.chdir(tmp_path)
    real_path, expected = RealPaths(), str((tmp_path / "a" / "x.wav").resolve())
    names = ["a/x.wav", "link/x.wav", "y.wav", "./a/../link/x.wav", str(tmp_path / "a" / "x.wav")]
    assert [real_path(Input(name)) for name in names] == [expected] * 5
    assert real_path(Input("link")) == str((tmp_path / "a").resolve())
    assert real_path(Input("gone.wav")) == str(tmp_path.resolve() / "gone.wav")
    assert real_path(Input(STDIN)) == STDIN
    assert {in_shard(Input(name), (0, 7)) for name in names} == {in_shard(Input(expected), (0, 7))}


def test_name_that_is_not_utf8_is_in_exactly_one_shard() -> None:
    item = Input("/nowhere/\udcff.wav")
    assert sum(in_shard(item, (index, 5)) for index in range(5)) == 1
