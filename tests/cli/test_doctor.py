from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import typer

from ast_cli import selfcheck
from ast_cli.audio.front_ends import extractor_class, maest
from ast_cli.cli.doctor import doctor
from ast_cli.errors import ExitCode
from ast_cli.hub.names import AST_EXTRACTOR, FEATURE_EXTRACTORS

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_doctor_passes_all_checks(run_ast: Run) -> None:
    done = run_ast("doctor")
    assert done.returncode == ExitCode.OK, done.stdout
    for heading in ("versions:", "decoders:", "devices:", "caches:", "models:", "default model: builtin", "checks:"):
        assert heading in done.stdout
    assert done.stdout.endswith("all numbers are right\n")


def test_doctor_json_contains_each_check(run_ast: Run) -> None:
    document = json.loads(run_ast("doctor", "--json").stdout)
    checked = {(check["what"], check["engine"], check["device"], check["dtype"]) for check in document["checks"]}
    assert {("fbank", "native", "cpu", "float32"), ("logits", "torch eager", "cpu", "bfloat16")} <= checked
    titles = [extractor_class(kind).title for kind in FEATURE_EXTRACTORS if kind != AST_EXTRACTOR]
    assert titles
    assert checked >= {
        ("features", f"{title} {way}", "cpu", "float32") for title in titles for way in ("native", "numpy")
    }
    assert document["num_wrong"] == 0
    assert document["versions"]["torch"]


def test_doctor_decodes_a_clip_of_every_kind(run_ast: Run) -> None:
    document = json.loads(run_ast("doctor", "--json").stdout)
    decoded = {(check["engine"], check["container"]) for check in document["checks"] if check["what"] == "decoding"}
    both = {"wav", "flac", "mp3", "ogg vorbis", "ogg opus", "aiff", "au", "caf", "w64", "rf64"}
    assert decoded >= {(decoder, container) for decoder in ("libsndfile", "FFmpeg") for container in both}
    assert decoded >= {
        ("FFmpeg", kind) for kind in ("m4a aac", "m4a alac", "wma", "webm opus", "mp4 video", "mov video")
    }
    assert all(check["is_right"] for check in document["checks"] if check["what"] == "decoding")
    plain = " ".join(run_ast("doctor").stdout.split())
    assert re.search(r"decoding FFmpeg \d+ kinds of files ok: [^:]* m4a aac", plain)


def test_a_decoder_that_fails_is_named_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")

    monkeypatch.setattr("av.open", fail)
    monkeypatch.setattr(selfcheck, "LOGITS_TOLERANCE", {"float32": 1e-4})
    with pytest.raises(typer.Exit) as ended:
        doctor()
    assert ended.value.exit_code == ExitCode.FATAL
    printed = capsys.readouterr().out
    assert "decoding FFmpeg         cpu     float32   FAILED         open() got an unexpected keyword" in printed
    assert "'metadata_errors' in m4a aac\n" in printed
    assert "decoding libsndfile     13 kinds of files ok: " in printed
    assert printed.endswith(" checks failed\n")


def test_a_front_end_with_other_numbers_fails_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: Any = maest._tables

    def with_other_filters(bank: maest.SlaneyBank) -> Any:
        window, filters = tables(bank)
        return window, filters * np.float32(1.01)

    monkeypatch.setattr(maest, "_tables", with_other_filters)
    maest._tables_on.cache_clear()
    monkeypatch.setattr(selfcheck, "LOGITS_TOLERANCE", {"float32": 1e-4})
    checks = {(check.what, check.engine): check for check in selfcheck.run_checks()}
    maest._tables_on.cache_clear()
    for engine in ("MAEST native", "MAEST numpy"):
        assert not checks["features", engine].is_right
        assert checks["features", engine].difference < 0.01  # it is compared, not refused


@pytest.mark.parametrize("change", ["wrong samples", "fewer samples"])
def test_a_decoder_that_returns_other_samples_fails_its_check(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    decoded = selfcheck.decoded_clip

    def changed(decoder: str, content: bytes) -> Any:
        samples = decoded(decoder, content)
        return samples[:-1] if change == "fewer samples" else samples + 0.02

    monkeypatch.setattr(selfcheck, "decoded_clip", changed)
    checks = list(selfcheck.check_decoders())
    assert len(checks) > 30
    assert not any(check.is_right for check in checks)
    assert (checks[0].difference is None) == (change == "fewer samples")


def test_a_missing_torch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "torch_failure", lambda: "libcudart.so.13: cannot open shared object file")
    checks = list(selfcheck.run_checks())
    (failed,) = [check for check in checks if not check.is_right]
    assert (failed.what, failed.engine) == ("import", "torch")
    assert failed.message.startswith("libcudart")
    assert {"decoding", "fbank"} <= {check.what for check in checks}
    assert list(selfcheck.devices()) == ["cpu"]


@pytest.mark.parametrize("name", ["fbank", "logits"])
def test_wrong_number_fails_its_check(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load: Any = selfcheck.load_file

    def shifted(path: object) -> dict[str, Any]:
        arrays = load(path)
        if name in arrays:  # not among the clips
            arrays[name] = arrays[name] + 0.5
        return arrays  # type: ignore[no-any-return]

    monkeypatch.setattr(selfcheck, "load_file", shifted)
    monkeypatch.setattr(selfcheck, "LOGITS_TOLERANCE", {"float32": 1e-4})
    checks = {(check.what, check.engine): check for check in selfcheck.run_checks()}
    assert not checks[name, "native" if name == "fbank" else "torch sdpa"].is_right
