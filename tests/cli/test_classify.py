from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ast_cli import Tagger, load_waveform
from ast_cli.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
BUILTIN = ("--model", "builtin")


def test_table_goes_to_stdout_and_the_note_to_stderr(run_ast: Run, write_wav: Write) -> None:
    write_wav("a.wav", 6.0)
    done = run_ast("classify", "a.wav", "--top-k", "2", cwd=write_wav("a.wav", 6.0).parent)
    lines = done.stdout.splitlines()
    assert done.returncode == ExitCode.OK
    assert lines[0] == "a.wav  00:06.00"
    assert len(lines) == 3
    assert done.stderr.startswith("note: using the small built-in model")
    assert "ast download" in done.stderr


def test_quiet_prints_only_results(run_ast: Run, write_wav: Write) -> None:
    done = run_ast("classify", str(write_wav("a.wav")), "--quiet", "--dtype", "fp16")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def test_a_single_file_has_a_summary_only_with_verbose(run_ast: Run, write_wav: Write) -> None:
    path = str(write_wav("a.wav"))
    assert run_ast("classify", path, *BUILTIN).stderr == ""
    done = run_ast("classify", path, *BUILTIN, "-v", "--engine", "torch", "--device", "cpu", "--batch-size", "2")
    summary, engine = done.stderr.splitlines()
    assert summary.startswith("1 input: 1 ok; 0.00 h of audio in ")
    assert engine == "torch engine on cpu in float32; batches of 2 windows (as requested)"
    both = run_ast("classify", path, *BUILTIN, "-v", "-q")
    assert (both.returncode, both.stdout) == (ExitCode.USAGE, "")


def test_an_error_of_a_single_file_is_printed_once_if_the_table_is_not_on_the_terminal(run_ast: Run) -> None:
    done = run_ast("classify", "missing.wav", *BUILTIN)
    assert done.returncode == ExitCode.SOME_FAILED
    assert (done.stdout, done.stderr) == ("missing.wav  error: no such file\n", "error: missing.wav: no such file\n")


def test_error_of_an_option_after_two_dashes_says_to_put_it_before_them(run_ast: Run, write_wav: Write) -> None:
    folder = write_wav("-k.wav").parent
    refused = run_ast("classify", "--", "-k.wav", *BUILTIN, cwd=folder)
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
    assert refused.stderr == (
        "error: --model: no such file; arguments after -- are names of files, so put options before it\n"
    )
    assert run_ast("classify", *BUILTIN, "--", "-k.wav", cwd=folder).returncode == ExitCode.OK


def test_the_journal_is_named_and_lets_a_finished_run_be_resumed(run_ast: Run, write_wav: Write) -> None:
    folder = write_wav("in/a.wav").parent
    write_wav("in/b.wav")
    run = ("classify", ".", *BUILTIN, "-o", "tags.jsonl")
    first = run_ast(*run, cwd=folder)
    assert first.stderr.endswith("; tags.jsonl.ast-journal is kept for --resume and ast merge\n")
    before = (folder / "tags.jsonl").read_bytes()
    second = run_ast(*run, "--resume", cwd=folder)
    assert second.stderr.startswith("2 inputs: 0 ok, 2 done before; ")
    assert (second.returncode, (folder / "tags.jsonl").read_bytes()) == (ExitCode.OK, before)


def test_matches_only_prints_only_matches(run_ast: Run) -> None:
    samples = [str(Path(__file__).parents[2] / "sample_audio" / name) for name in ("speech.flac", "rain.ogg")]
    arguments = ("classify", *samples, *BUILTIN, "--labels", "Speech", "--matches-only")
    done = run_ast(*arguments, "--threshold", "0.5")
    heading, tag = done.stdout.splitlines()
    assert heading.endswith("speech.flac  00:06.38")
    assert tag.endswith("Speech")
    assert done.stderr.startswith("2 inputs: 2 ok (1 with matches); ")
    refused = run_ast(*arguments)
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
    assert refused.stderr.startswith("error: --matches-only needs --threshold, --thresholds or --events")


def test_half_precision_on_a_cpu_works_and_warns(run_ast: Run, write_wav: Write) -> None:
    path = str(write_wav("a.wav"))
    half = run_ast("classify", path, *BUILTIN, "--dtype", "fp16", "--device", "cpu", "--json")
    full = run_ast("classify", path, *BUILTIN, "--json")
    assert half.stderr == "warning: float16 is slow on a CPU; float32 or bfloat16 is faster there\n"
    scores = [{tag["label"]: tag["score"] for tag in json.loads(done.stdout)[0]["tags"]} for done in (half, full)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)  # 11 significant bits


def test_json_is_one_list_with_an_error_record_and_exit_code_3(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    good, empty = write_wav("good.wav"), tmp_path / "empty.wav"
    empty.write_bytes(b"")
    done = run_ast("classify", str(empty), str(good), str(tmp_path / "nope.wav"), *BUILTIN, "--json")
    records = json.loads(done.stdout)
    assert done.returncode == ExitCode.SOME_FAILED
    assert [(record["status"], (record["error"] or {}).get("code")) for record in records] == [
        ("error", "empty_file"), ("ok", None), ("error", "not_found"),
    ]  # fmt: skip
    assert "error: " in done.stderr
    assert "3 inputs: 1 ok, 2 failed (empty_file 1, not_found 1); 0.00 h of audio in " in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_list_and_standard_input_name_inputs(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("clips/b.wav")
    write_wav("clips/sub/a.flac")
    single = write_wav("single.wav")
    listing = tmp_path / "list.txt"
    listing.write_bytes(os.fsencode(single) + b"\0" + b"clips/b.wav\0")
    done = run_ast("classify", "clips", "--files-from", "list.txt", "-0", *BUILTIN, "-f", "jsonl", cwd=tmp_path)
    paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert paths == [os.path.join("clips", "b.wav"), os.path.join("clips", "sub", "a.flac"), str(single)]
    piped = run_ast("classify", "-", *BUILTIN, "-f", "jsonl", stdin=single.read_bytes())
    record = json.loads(piped.stdout)
    assert (record["path"], record["status"], record["duration_s"]) == ("-", "ok", 1.0)
    named = run_ast("classify", "--files-from", "-", *BUILTIN, "-f", "csv", stdin=os.fsencode(single) + b"\n")
    assert {row["path"] for row in csv.DictReader(io.StringIO(named.stdout))} == {str(single)}


def test_timestamps_labels_and_threshold_reach_the_result(run_ast: Run, write_wav: Write) -> None:
    path = str(write_wav("long.wav", 12.0))
    done = run_ast("classify", path, *BUILTIN, "--timestamps", "--labels", "Rain,Waves, surf", "--json")
    (record,) = json.loads(done.stdout)
    assert [(window["start_s"], window["end_s"]) for window in record["windows"]] == [
        (0.0, 5.12), (5.12, 10.24), (6.86, 11.98),
    ]  # fmt: skip
    assert {tag["label"] for tag in record["tags"]} == {"Rain", "Waves, surf"}
    none = run_ast("classify", path, *BUILTIN, "--threshold", "1", "--json")
    assert json.loads(none.stdout)[0]["tags"] == []
    unknown = run_ast("classify", path, *BUILTIN, "--labels", "Helicoptr")
    assert (unknown.returncode, unknown.stdout) == (ExitCode.USAGE, "")
    assert unknown.stderr == "error: the model has no label 'Helicoptr'; similar labels: 'Helicopter'\n"


def test_output_file_is_overwritten_only_with_force(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    path, output = str(write_wav("a.wav")), tmp_path / "tags.json"
    first = run_ast("classify", path, *BUILTIN, "--json", "--output", str(output))
    assert (first.returncode, first.stdout) == (ExitCode.OK, "")
    written = output.read_bytes()
    assert len(json.loads(written)) == 1
    second = run_ast("classify", path, *BUILTIN, "--json", "--output", str(output))
    assert second.returncode == ExitCode.USAGE
    assert second.stderr == f"error: --output {output} exists: add --resume to continue it, or --force to replace it\n"
    assert output.read_bytes() == written
    assert run_ast("classify", path, *BUILTIN, "--json", "-o", str(output), "--force").returncode == ExitCode.OK
    onto_input = run_ast("classify", path, *BUILTIN, "--json", "-o", path, "--force")
    assert (onto_input.returncode, "is one of the inputs" in onto_input.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    ("name", "start"),
    [("tags.jsonl", '{"schema_version"'), ("tags.JSON", "["), ("tags.csv", "path,"), ("tags.txt", "a.wav  00:")],
)
def test_suffix_of_the_output_selects_the_format(run_ast: Run, write_wav: Write, name: str, start: str) -> None:
    folder = write_wav("a.wav").parent
    assert run_ast("classify", "a.wav", *BUILTIN, "--output", name, cwd=folder).returncode == ExitCode.OK
    assert (folder / name).read_text(encoding="utf-8").startswith(start)
    again = run_ast("classify", "a.wav", *BUILTIN, "--output", name, "--format", "csv", "--force", cwd=folder)
    assert again.returncode == ExitCode.OK
    assert (folder / name).read_text(encoding="utf-8").startswith("path,")


@pytest.mark.parametrize("name", ["tags.xml", "tags.xls", "archive/tags.2024"])
def test_an_unknown_suffix_is_an_error_unless_format_is_given(run_ast: Run, write_wav: Write, name: str) -> None:
    folder = write_wav("a.wav").parent
    refused = run_ast("classify", "a.wav", *BUILTIN, "--output", name, cwd=folder)
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
    assert refused.stderr == (
        f"error: --output {name}: {Path(name).suffix} is not a supported format; name a file that ends in "
        ".jsonl, .ndjson, .json, .csv, .wide.csv, .tsv, .dcase.tsv, .srt, .vtt, .rttm, .parquet, .labels.txt, "
        ".selections.txt or .txt (table), or choose with --format\n"
    )
    assert [file.name for file in folder.iterdir()] == ["a.wav"]
    chosen = run_ast("classify", "a.wav", *BUILTIN, "-o", Path(name).name, "--format", "table", cwd=folder)
    assert chosen.returncode == ExitCode.OK


def test_a_name_without_a_suffix_is_a_table(run_ast: Run, write_wav: Write) -> None:
    folder = write_wav("a.wav").parent
    assert run_ast("classify", "a.wav", *BUILTIN, "--output", "tags", cwd=folder).returncode == ExitCode.OK
    assert (folder / "tags").read_text(encoding="utf-8").startswith("a.wav  00:")


def test_killed_run_continues_to_the_same_output_as_an_uninterrupted_one(
    write_wav: Write, run_ast: Run, tmp_path: Path
) -> None:
    clip = write_wav("clips/a.wav", 6.0)
    for i in range(60):
        (tmp_path / "clips" / f"{i:02d}.wav").write_bytes(clip.read_bytes())
    command = ["classify", "clips", *BUILTIN, "-f", "jsonl", "-o", "tags.jsonl", "--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-m", "ast_cli", *command], cwd=tmp_path, stderr=subprocess.DEVNULL)
    output = tmp_path / "tags.jsonl"
    while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.kill()
    process.wait()
    num_before = output.read_bytes().count(b"\n")
    assert 5 <= num_before < 61
    done = run_ast(*command, "--resume", cwd=tmp_path)
    assert done.returncode == ExitCode.OK
    records = [json.loads(line) for line in output.read_text().splitlines()]
    paths = [record["path"] for record in records]
    assert sorted(paths) == sorted({*paths})
    assert len(paths) == 61
    assert "done before" in done.stderr
    assert len({json.dumps(record["tags"]) for record in records}) == 1  # one clip, 61 names
    nothing_left = run_ast(*command, "--resume", cwd=tmp_path)
    assert (nothing_left.returncode, "61 done before" in nothing_left.stderr) == (ExitCode.OK, True)
    assert run_ast(*command, "--resume", "--hop", "1", cwd=tmp_path).returncode == ExitCode.USAGE


@pytest.fixture
def rain_and_dog(tmp_path: Path) -> tuple[Path, list[Path]]:
    """Return a file with rain on the left and a dog on the right, and a mono file of each."""
    sources = [Path(__file__).parents[2] / "sample_audio" / name for name in ("rain.ogg", "dog.wav")]
    waveforms = [load_waveform(source, 44100) for source in sources]
    num_samples = min(waveform.size for waveform in waveforms)
    samples = np.stack([waveform[:num_samples] for waveform in waveforms], axis=1)
    files = [tmp_path / name for name in ("both.wav", "rain.wav", "dog.wav")]
    for file, content in zip(files, (samples, samples[:, 0], samples[:, 1]), strict=True):
        soundfile.write(file, content, 44100, subtype="FLOAT")
    return files[0], files[1:]


def test_channels_are_tagged_as_the_mono_files(run_ast: Run, rain_and_dog: tuple[Path, list[Path]]) -> None:
    both, monos = rain_and_dog
    common = ["-f", "jsonl", "-q", "--timestamps", "--hop", "0.5", "--batch-size", "1", *BUILTIN]
    each = run_ast("classify", both.name, "--channels", "each", *common, cwd=both.parent)
    of_monos = run_ast("classify", *[mono.name for mono in monos], *common, cwd=both.parent)
    assert (each.returncode, of_monos.returncode) == (ExitCode.OK, ExitCode.OK)
    records = [json.loads(line) for line in each.stdout.splitlines()]
    for number, line in enumerate(of_monos.stdout.splitlines(), start=1):
        expected = json.loads(line) | {"path": "both.wav", "channel": number, "num_channels": 2}
        assert records[number - 1] == expected  # the same batches of one window: the same numbers
        alone = run_ast("classify", both.name, "--channels", str(number), *common, cwd=both.parent)
        assert json.loads(alone.stdout) == expected
    assert records[0]["tags"] != records[1]["tags"]


def first_labels(files: list[Path]) -> list[str]:
    """Return the label that the built-in model finds first in each file."""
    tagger = Tagger.from_pretrained("builtin")
    return [tagger.classify(file).tags[0].label for file in files]


def test_each_channel_has_its_heading_and_its_rows(run_ast: Run, rain_and_dog: tuple[Path, list[Path]]) -> None:
    folder = rain_and_dog[0].parent
    rain, dog = first_labels(rain_and_dog[1])
    command = ["classify", "both.wav", "nope.wav", "--channels", "each", "-k", "1", "-q", *BUILTIN]
    table = run_ast(*command, cwd=folder)
    assert table.returncode == ExitCode.SOME_FAILED
    assert [line for line in table.stdout.splitlines() if line and not line.startswith(" ")] == [
        "both.wav [channel 1]  00:04.00", "both.wav [channel 2]  00:04.00", "nope.wav  error: no such file",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(run_ast(*command, "-f", "csv", cwd=folder).stdout)))
    assert [(row["path"], row["label"], row["channel"], row["error_code"]) for row in rows] == [
        ("both.wav", rain, "1", ""), ("both.wav", dog, "2", ""), ("nope.wav", "", "", "not_found"),
    ]  # fmt: skip


def test_file_without_the_requested_channel_is_an_error_record_among_others(
    run_ast: Run, rain_and_dog: tuple[Path, list[Path]]
) -> None:
    done = run_ast(
        "classify", "rain.wav", "both.wav", "--channels", "2", "--json", *BUILTIN, cwd=rain_and_dog[0].parent
    )
    assert done.returncode == ExitCode.SOME_FAILED
    assert [(record["channel"], record["status"]) for record in json.loads(done.stdout)] == [(2, "error"), (2, "ok")]
    assert "error: rain.wav: there is no channel 2 (--channels 2): it has 1 channel\n" in done.stderr
    assert "2 inputs: 1 ok, 1 failed (bad_channels 1)" in done.stderr


def test_killed_run_of_each_channel_continues_with_whole_inputs(write_wav: Write, run_ast: Run, tmp_path: Path) -> None:
    clip = write_wav("clips/a.wav", 6.0, num_channels=2)
    for i in range(40):
        (tmp_path / "clips" / f"{i:02d}.wav").write_bytes(clip.read_bytes())
    command = ["classify", "clips", *BUILTIN, "-f", "jsonl", "-o", "tags.jsonl", "--batch-size", "1"]
    each = [*command, "--channels", "each"]
    process = subprocess.Popen([sys.executable, "-m", "ast_cli", *each], cwd=tmp_path, stderr=subprocess.DEVNULL)
    output = tmp_path / "tags.jsonl"
    while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 6):
        time.sleep(0.01)
    process.kill()
    process.wait()
    output.write_bytes(output.read_bytes() + output.read_bytes().splitlines(keepends=True)[0])  # a channel alone
    other = run_ast(*command, "--channels", "2", "--resume", cwd=tmp_path)
    assert (other.returncode, other.stderr.splitlines()[-1]) == (
        ExitCode.USAGE,
        "error: tags.jsonl was begun with other settings: --channels was each and is now 2; --resume needs the same "
        "settings, --force starts over",
    )
    done = run_ast(*each, "--resume", cwd=tmp_path)
    assert done.returncode == ExitCode.OK
    assert "done before" in done.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    names = [*(f"clips/{i:02d}.wav" for i in range(40)), "clips/a.wav"]
    assert [(record["path"], record["channel"]) for record in records] == [(name, n) for name in names for n in (1, 2)]
    assert len({json.dumps(record["tags"]) for record in records}) == 2


def test_standard_input_cannot_be_resumed(run_ast: Run, tmp_path: Path) -> None:
    done = run_ast("classify", "-", *BUILTIN, "-o", str(tmp_path / "tags.json"), "--json", "--resume", stdin=b"")
    assert (done.returncode, "standard input" in done.stderr) == (ExitCode.USAGE, True)


def test_unordered_run_is_continued_and_contains_the_same_records(
    write_wav: Write, run_ast: Run, tmp_path: Path
) -> None:
    write_wav("clips/0.wav", 12.0)
    for i in range(1, 8):
        write_wav(f"clips/{i}.wav", 1.0)
    command = ["classify", "clips", *BUILTIN, "-f", "jsonl", "-o", "tags.jsonl", "--unordered", "--batch-size", "1"]
    assert run_ast(*command, "--max-errors", "1", cwd=tmp_path).returncode == ExitCode.OK
    write_wav("clips/8.wav", 1.0)
    done = run_ast(*command, "--resume", cwd=tmp_path)
    assert (done.returncode, "8 done before" in done.stderr) == (ExitCode.OK, True)
    records = sorted((tmp_path / "tags.jsonl").read_text().splitlines())
    ordered = run_ast("classify", "clips", *BUILTIN, "-f", "jsonl", "-q", "--batch-size", "1", cwd=tmp_path).stdout
    assert records == sorted(ordered.splitlines())


def test_shards_share_the_inputs_and_merge_into_the_whole(write_wav: Write, run_ast: Run, tmp_path: Path) -> None:
    for i in range(7):
        write_wav(f"clips/{i}.wav", 0.5)
    # one window at a time: in a batch of another size the last digits of scores may be others
    common = ["classify", "clips", *BUILTIN, "-f", "jsonl", "-q", "--batch-size", "1"]
    for i in range(2):
        assert run_ast(*common, "--shard", f"{i}/2", "-o", f"{i}.jsonl", cwd=tmp_path).returncode == ExitCode.OK
    assert run_ast("merge", "0.jsonl", "1.jsonl", "-o", "all.jsonl", cwd=tmp_path).returncode == ExitCode.OK
    whole = run_ast(*common, cwd=tmp_path).stdout
    assert sorted((tmp_path / "all.jsonl").read_text().splitlines()) == sorted(whole.splitlines())
    half = run_ast("merge", "0.jsonl", "-o", "half.jsonl", cwd=tmp_path)
    assert half.returncode == ExitCode.FATAL
    assert not (tmp_path / "half.jsonl").exists()


def test_pattern_without_a_match_gets_a_record_among_others(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("a.wav", 0.5)
    done = run_ast("classify", "a.wav", "nope*.wav", *BUILTIN, "-f", "jsonl", cwd=tmp_path)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["path"], record["status"]) for record in records] == [("a.wav", "ok"), ("nope*.wav", "error")]
    assert done.returncode == ExitCode.SOME_FAILED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_standard_output_is_one_sentence(write_wav: Write) -> None:
    command = f"{sys.executable} -m ast_cli classify {write_wav('a.wav')} --model builtin > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.FATAL
    assert done.stderr == "error: standard output: cannot be written (No space left on device)\n"


def test_run_stops_at_max_errors(run_ast: Run, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.wav").write_bytes(b"no audio")
    done = run_ast("classify", ".", *BUILTIN, "-f", "jsonl", "--max-errors", "2", cwd=tmp_path)
    assert done.returncode == ExitCode.FATAL
    assert len(done.stdout.splitlines()) == 2
    assert "error: stopped after 2 failed inputs, as requested" in done.stderr
    assert run_ast("classify", ".", *BUILTIN, "--fail-fast", cwd=tmp_path).returncode == ExitCode.FATAL


def test_live_raw_samples_are_streamed_as_records(run_ast: Run) -> None:
    raw = bytes(2 * 16000 * 6)  # 6 s of digital silence, 16 bits
    done = run_ast("classify", "-", "--raw-rate", "16000", "--timestamps", "-f", "jsonl", *BUILTIN, stdin=raw)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["type"] for record in records] == ["window", "window", "file"]
    assert records[0]["path"] == "-"
    assert "windows" not in records[2]
    assert records[2]["duration_s"] == 6.0


def test_live_channels_are_tagged_by_themselves(run_ast: Run, rain_and_dog: tuple[Path, list[Path]]) -> None:
    raw = load_waveform(rain_and_dog[0], 44100, channels="each").T.astype("<f4").tobytes()
    common = ["classify", "-", "--raw-rate", "44100", "--raw-format", "f32le", "--raw-channels", "2", "-f", "jsonl"]
    each = run_ast(*common, "--channels", "each", "-k", "1", *BUILTIN, stdin=raw)
    records = [json.loads(line) for line in each.stdout.splitlines()]
    rain, dog = first_labels(rain_and_dog[1])
    assert [(record["channel"], record["tags"][0]["label"]) for record in records] == [(1, rain), (2, dog)]
    second = run_ast(*common, "--channels", "2", "-k", "1", *BUILTIN, stdin=raw)
    assert json.loads(second.stdout) == records[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing/*.wav"], ExitCode.NO_INPUTS, "error: no audio file found in nothing/*.wav"),
        (["x.wav", "--model", "audioset"], ExitCode.FATAL, "ast download audioset"),
        (["x.wav", "--model", "audiosett"], ExitCode.USAGE, "audioset"),
        (["x.wav", "--device", "tpu"], ExitCode.USAGE, "device must be auto, cpu, cuda, cuda:N or mps, not 'tpu'"),
        (["x.wav", "--json", "--format", "csv"], ExitCode.USAGE, "contradict"),
        (["x.wav", "--json", "--format", "table"], ExitCode.USAGE, "contradict"),
        (["x.wav", "--hop", "50", *BUILTIN], ExitCode.USAGE, "hop must be from 0.01 s to the model's window of 5.12 s"),
        (["x.wav", "--labels", "Bark", "--exclude-labels", "Bark", *BUILTIN], ExitCode.USAGE, "no label is left"),
        (["x.wav", "--stream"], ExitCode.USAGE, "add --format jsonl"),
        (["x.wav", "--resume"], ExitCode.USAGE, "--resume needs --output"),
        (["x.wav", "--raw-channels", "2"], ExitCode.USAGE, "--raw-format and --raw-channels describe raw samples"),
        (["-", "--raw-rate", "16000"], ExitCode.USAGE, "--raw-rate writes windows and events as JSON Lines: add --fo"),
        (["x.wav", "--raw-rate", "16000"], ExitCode.USAGE, "the only input must be -"),
        (["x.wav", "--stream"], ExitCode.USAGE, "--stream writes windows and events as JSON Lines: add --format jsonl"),
        (["x.wav", "--shard", "2/2"], ExitCode.USAGE, "shard"),
        (["x.wav", "--raw-rate", "16000", "-f", "jsonl"], ExitCode.USAGE, "raw samples are read from standard input"),
        (["-", "--raw-rate", "16000", "-f", "jsonl", "--shard", "0/2"], ExitCode.USAGE, "leave out --shard"),
        (["x.wav", "--channels", "left"], ExitCode.USAGE, "must be mix, each, or a channel's number from 1 to 64, not"),
        (["x.wav", "--channels", "0"], ExitCode.USAGE, "must be mix, each, or a channel's number from 1 to 64, not 0"),
        (
            ["-", "--raw-rate", "16000", "--raw-channels", "2", "--channels", "3", "-f", "jsonl"],
            ExitCode.USAGE,
            "--channels 3 names a channel that --raw-channels 2 does not have",
        ),
        (["-0", "x.wav"], ExitCode.USAGE, "-0 needs --files-from"),
        (["--files-from", "nope.txt"], ExitCode.USAGE, "--files-from nope.txt: cannot be read"),
        (["-", "--files-from", "-"], ExitCode.USAGE, "cannot be both"),
    ],
)
def test_each_usage_error_is_one_sentence_with_its_exit_code(
    run_ast: Run, tmp_path: Path, arguments: list[str], code: ExitCode, message: str
) -> None:
    done = run_ast("classify", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    (error,) = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert error.startswith("error: ")
    assert message in error


def test_missing_cuda_is_an_error_instead_of_a_silent_fallback_to_the_cpu(run_ast: Run, write_wav: Write) -> None:
    done = run_ast("classify", str(write_wav("a.wav")), *BUILTIN, "--device", "cuda:77")
    assert done.returncode == ExitCode.FATAL
    assert done.stderr.startswith("error: device 'cuda:77' ")


def test_url_is_not_a_local_file(run_ast: Run) -> None:
    done = run_ast("classify", "https://example.org/x.wav", *BUILTIN, "--json")
    (record,) = json.loads(done.stdout)
    assert (done.returncode, record["error"]["code"]) == (ExitCode.SOME_FAILED, "not_found")
    assert "not a local file" in record["error"]["message"]


def test_model_is_chosen_by_environment_variable(run_ast: Run, write_wav: Write) -> None:
    path = str(write_wav("a.wav"))
    chosen = run_ast("classify", path, AST_MODEL="builtin")
    assert (chosen.returncode, chosen.stderr) == (ExitCode.OK, "")  # no note: somebody did choose
    assert "is not on this machine" in run_ast("classify", path, AST_MODEL="fast").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_signal_ends_the_run_with_its_exit_code_and_complete_lines(
    write_wav: Write, tmp_path: Path, signum: signal.Signals, code: ExitCode
) -> None:
    clip = write_wav("clip.wav", 20.0)
    for i in range(400):
        os.link(clip, tmp_path / f"{i:03d}.wav")
    process = subprocess.Popen(
        [sys.executable, "-m", "ast_cli", "classify", str(tmp_path), *BUILTIN, "-f", "jsonl", "--batch-size", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signum)
    started = time.monotonic()
    rest, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == code
    assert "Traceback" not in errors
    assert all(json.loads(line)["status"] == "ok" for line in [first, *rest.splitlines()])


def test_a_shard_without_inputs_says_so(write_wav: Write, run_ast: Run, tmp_path: Path) -> None:
    write_wav("a.wav")
    runs = [run_ast("classify", "a.wav", "--shard", f"{i}/2", "--model", "builtin", cwd=tmp_path) for i in range(2)]
    empty, full = sorted(runs, key=lambda done: len(done.stdout))
    assert (empty.returncode, empty.stdout) == (ExitCode.OK, "")
    assert empty.stderr in ("shard 0/2 contains none of the inputs\n", "shard 1/2 contains none of the inputs\n")
    assert full.stdout.startswith("a.wav")


def test_a_folder_gets_a_file_for_each_input_and_format(run_ast: Run, write_wav: Write) -> None:
    folder = write_wav("in/a/x.wav").parent.parent.parent
    write_wav("in/x.wav")
    (folder / "in" / "bad.wav").write_bytes(b"no audio")
    command = ("classify", "in", *BUILTIN, "--output-dir", "out", "--format", "jsonl,raven")
    done = run_ast(*command, cwd=folder)
    assert (done.returncode, done.stdout) == (ExitCode.SOME_FAILED, ""), done.stderr
    assert "bad.wav: not an audio file" in done.stderr
    assert "2 ok, 1 failed (not_audio 1)" in done.stderr
    assert ".ast-journal is kept for --resume" in done.stderr
    files = sorted(file.relative_to(folder / "out").as_posix() for file in (folder / "out").rglob("*.*"))
    assert files == [
        ".ast-journal", "a/x.wav.jsonl", "a/x.wav.selections.txt", "x.wav.jsonl", "x.wav.selections.txt",
    ]  # fmt: skip
    (record,) = map(json.loads, (folder / "out/a/x.wav.jsonl").read_text().splitlines())
    assert (Path(record["path"]), len(record["tags"])) == (Path("in/a/x.wav"), 5)
    (folder / "in" / "bad.wav").unlink()
    again = run_ast(*command, "--resume", cwd=folder)
    assert again.returncode == ExitCode.OK
    assert "0 ok, 2 done before" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "jsonl,raven"], "--format jsonl,raven are several formats: name a folder for them with --outp"),
        (["--format", "srt"], "srt has no place for names, so a file describes one recording, and there are 2 inputs"),
        (["-o", "x.labels.txt"], "audacity has no place for names, so a file describes one recording, and there are"),
        (["-o", "x.jsonl", "--output-dir", "out"], "--output names one file and --output-dir a folder of files"),
        (["--output-dir", "out", "--stream"], "--output-dir has files of whole recordings"),
        (["--format", "raven,xml", "--output-dir", "out"], "--format must be one of table, json, jsonl, csv, tsv"),
        (["--format", "parquet"], "parquet is binary: name a file to write it to with --output FILE.parquet"),
        (["--format", "wide", "--events"], "wide has no place for events: leave out --events, or add a format"),
        (["--output-dir", "a.wav"], "--output-dir a.wav is a file: name a folder"),
    ],
)
def test_formats_that_do_not_fit_the_output_are_refused(
    run_ast: Run, write_wav: Write, arguments: list[str], message: str
) -> None:
    folder = write_wav("a.wav").parent
    write_wav("b.wav")
    refused = run_ast("classify", "a.wav", "b.wav", *BUILTIN, *arguments, cwd=folder)
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
    assert refused.stderr.startswith(f"error: {message}")
    assert sorted(file.name for file in folder.iterdir()) == ["a.wav", "b.wav"]
