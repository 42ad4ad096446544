from __future__ import annotations

import glob
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import ErrorCode, UsageError
from ast_cli.tagging.inputs import Input, list_inputs, merged, read_file_list
from ast_cli.tagging.options import WindowOptions

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file names and links")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def relative(folder: Path, *paths: str, **options: Any) -> list[str]:
    return [os.path.relpath(found.path, folder) for found in list_inputs(paths, **options)]


def test_folder_is_walked_by_extension_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a.MP3", "notes.txt", "sub/c.flac", "sub/d.jpg", "z.opus")
    assert relative(tmp_path, str(tmp_path)) == ["a.MP3", "b.wav", os.path.join("sub", "c.flac"), "z.opus"]


def test_hidden_files_and_folders_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "._a.wav", ".DS_Store", ".trash/b.wav", "sub/._c.wav", "sub/c.wav")
    assert relative(tmp_path, str(tmp_path)) == ["a.wav", os.path.join("sub", "c.wav")]
    named = [str(tmp_path / "._a.wav"), str(tmp_path / ".trash")]
    assert relative(tmp_path, *named) == ["._a.wav", os.path.join(".trash", "b.wav")]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["*.flac"], "a.wav b.wav drafts/d.wav old/deep/f.wav"),
        (["drafts"], "a.wav b.wav old/deep/e.flac old/deep/f.wav"),
        (["drafts/", "b.*"], "a.wav old/deep/e.flac old/deep/f.wav"),
        (["old/*.wav"], "a.wav b.wav drafts/d.wav old/deep/e.flac"),
        (["deep/f.wav"], "a.wav b.wav drafts/d.wav old/deep/e.flac"),
        (["*.WAV", "eep"], "a.wav b.wav drafts/d.wav old/deep/e.flac old/deep/f.wav"),
    ],
)
@POSIX
def test_exclude_patterns_leave_out_files_and_folders(tmp_path: Path, exclude: list[str], left: str) -> None:
    touch(tmp_path, "a.wav", "b.wav", "drafts/d.wav", "old/deep/e.flac", "old/deep/f.wav")
    assert relative(tmp_path, str(tmp_path), exclude=exclude) == left.split()
    by_pattern = relative(tmp_path, str(tmp_path / "**" / "*"), exclude=exclude)
    assert by_pattern == left.split()


def test_explicitly_named_paths_are_never_excluded(tmp_path: Path) -> None:
    touch(tmp_path, "drafts/d.wav", "a.wav")
    named = [str(tmp_path / "drafts"), str(tmp_path / "a.wav")]
    assert relative(tmp_path, *named, exclude=["drafts", "a.wav"]) == [os.path.join("drafts", "d.wav"), "a.wav"]
    (unmatched,) = list_inputs([str(tmp_path / "*.wav")], exclude=["a.wav"])
    assert unmatched.is_pattern


@pytest.mark.parametrize("pattern", ["", "/"])
def test_empty_exclude_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="--exclude is empty"):
        list(list_inputs(["x.wav"], exclude=[pattern]))


def test_explicitly_named_file_needs_no_audio_extension(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    assert relative(tmp_path, str(tmp_path / "notes.txt")) == ["notes.txt"]


@pytest.mark.parametrize(
    "pattern",
    [
        *("**/*.wav", "a/**", "**/b/*.wav", "*/**/*.wav", "**/b/**/*.wav", "a/**/c.wav", "**/.h/*", "[ab]/**/*"),
        *("*.wav", "?.wav", "*/*.wav", ".*/*", "*/.h/*.wav", "a/b/[[]1].wav", "[!a].wav", "a**/x.wav", "*/../x.wav"),
        *("*//x.wav", "./**/../*.wav", "x.wav/*", "x.wav/**/*"),
    ],
)
def test_pattern_matches_the_same_files_as_recursive_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    touch(tmp_path, "x.wav", "a/x.wav", "a/b/c.wav", "a/b/[1].wav", "b/b/y.txt", "b/y.wav", ".h/z.wav", "a/.h/z.wav")
    monkeypatch.chdir(tmp_path)
    files = {path.replace("//", "/") for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    for start in ("", f"{tmp_path}{os.sep}"):
        found = [item.path.removeprefix(start) for item in list_inputs([start + pattern]) if not item.is_pattern]
        assert sorted(map(os.path.realpath, found)) == sorted({os.path.realpath(path) for path in files})
        assert set(found) <= files
        assert found == sorted(found)


@POSIX
@pytest.mark.timeout(20)
def test_search_of_a_pattern_ends_where_links_form_a_cycle(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "sub/b.wav")
    for name in ("link", "other", "sub/up"):
        (tmp_path / name).symlink_to(tmp_path)
    assert relative(tmp_path, str(tmp_path / "**" / "*.wav")) == ["a.wav", "sub/b.wav"]


@POSIX
@pytest.mark.parametrize("pattern", ["**/*.wav", "*/*.wav", "s*/[ab].wav"])
def test_unreadable_folder_below_a_pattern_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    touch(tmp_path, "sea/a.wav", "sub/b.wav")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if os.path.basename(path) == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    good, bad = list_inputs([str(tmp_path / pattern)])
    assert (good.path, good.error) == (str(tmp_path / "sea" / "a.wav"), None)
    assert bad.error is not None
    assert (bad.path, bad.error.code) == (str(tmp_path / "sub"), ErrorCode.PERMISSION)


@POSIX
def test_list_with_backslashes_is_understood_if_no_file_has_these_names(tmp_path: Path) -> None:
    touch(tmp_path, "a\\b.wav", "a/b.wav", "sub/c.wav", "sub/deep/d.wav")
    listed = [f"{tmp_path}\\{name}" for name in ("sub\\c.wav", "sub\\deep", "sub\\gone.wav")]
    found = list_inputs([str(tmp_path / "a\\b.wav"), *listed], literal=True)
    assert [(os.path.relpath(item.path, tmp_path), item.listed) for item in found] == [
        ("a\\b.wav", True),  # a file whose name contains a backslash comes first
        ("sub/c.wav", True),
        ("sub/deep/d.wav", True),
        (os.path.relpath(listed[2], tmp_path), False),
    ]
    assert [item.listed for item in list_inputs(listed[:1])] == [False]  # arguments are not translated


def test_pattern_is_expanded_when_the_shell_did_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "c.mp3")
    assert relative(tmp_path, str(tmp_path / "*.wav")) == ["a.wav", "b.wav"]
    (unmatched,) = list_inputs([str(tmp_path / "*.ogg")])
    assert unmatched.is_pattern
    assert unmatched.error is not None
    assert unmatched.error.code == ErrorCode.NOT_FOUND
    assert list(list_inputs(["*.wav"], literal=True)) == [Input("*.wav")]


def test_existing_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "song [live].wav", "song l.wav")
    assert relative(tmp_path, str(tmp_path / "song [live].wav")) == ["song [live].wav"]


def test_repeated_and_overlapping_arguments_give_one_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "sub/b.wav")
    found = relative(
        tmp_path, str(tmp_path / "sub"), str(tmp_path), str(tmp_path / "a.wav"), str(tmp_path / "sub" / ".." / "a.wav")
    )
    assert found == [os.path.join("sub", "b.wav"), "a.wav"]


@POSIX
def test_links_to_one_file_are_one_input_and_hard_links_are_two(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "c.wav")
    assert relative(tmp_path, str(tmp_path)) == ["a.wav", "c.wav"]


def test_parts_of_one_file_are_separate_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    path, first, second = str(tmp_path / "a.wav"), WindowOptions(duration_s=1.0), WindowOptions(start_s=1.0)
    named = [Input(path, part=first), Input(path, part=second), Input(path, part=WindowOptions(duration_s=1.0))]
    assert list(merged(named)) == named[:2]


@POSIX
def test_search_of_a_folder_with_a_cycle_ends(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.wav")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert relative(tmp_path, str(tmp_path)) == [os.path.join("sub", "a.wav")]


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "locked/a.wav", "b.wav")
    (tmp_path / "locked").chmod(0)
    try:
        found = list(list_inputs([str(tmp_path)]))
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [item.error.code if item.error else None for item in found] == [None, ErrorCode.PERMISSION]


def test_missing_path_stays_an_input_so_that_it_gets_a_record(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.wav")
    assert list(list_inputs([missing, "-", "-"])) == [Input(missing), Input("-")]


@POSIX
def test_names_that_are_not_utf8_are_kept_exactly(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        with open(raw, "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (found,) = list_inputs([str(tmp_path)])
    assert os.fsencode(found.path) == raw


def test_file_list_is_split_at_lines_or_at_nul() -> None:
    assert read_file_list(b"a.wav\nb c.wav\r\n\n-x.wav\n") == ["a.wav", "b c.wav", "-x.wav"]
    assert read_file_list(b"a\nb.wav\0c.wav\0", nul_separated=True) == ["a\nb.wav", "c.wav"]
    with pytest.raises(UsageError, match="-0"):
        read_file_list(b"a.wav\0b.wav")


@POSIX
def test_broken_links_and_links_to_themselves_are_inputs_and_do_not_end_the_search(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav")
    for name, target in {"a.wav": "a.wav", "c.wav": "nowhere", "d": "d", "e.wav": "b.wav/x"}.items():
        (tmp_path / name).symlink_to(target)
    assert relative(tmp_path, str(tmp_path)) == ["a.wav", "b.wav", "c.wav", "e.wav"]


@POSIX
def test_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(12)]  # 12! paths through all of them
    for name in names:
        touch(tmp_path, f"{name}/a.wav")
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert len(list(list_inputs([str(tmp_path)]))) == 12
