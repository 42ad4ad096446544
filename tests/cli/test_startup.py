from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ast_cli.engine.choice import has_gpu

HEAVY = ("torch", "numpy", "av", "soundfile", "soxr", "safetensors", "huggingface_hub", "transformers", "rich")
PROGRAM = """
import json, sys
sys.argv = ["ast", *json.loads(sys.argv[1])]
from ast_cli.cli import main
try:
    main()
except SystemExit as stop:
    code = stop.code
print("\\nMODULES", json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def run(*arguments: str) -> tuple[int, set[str], str]:
    """Return the exit code, the top-level modules imported, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], capture_output=True, text=True, timeout=60, check=True
    )
    printed, _, report = done.stdout.rpartition("\nMODULES ")
    code, modules = json.loads(report)
    return int(code), set(modules), printed + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["classify", "--help"], 0),
        (["extract", "--help"], 0),
        (["plot", "--help"], 0),
        (["benchmark", "--help"], 0),
        (["export", "--help"], 0),
        (["evaluate", "--help"], 0),
        (["finetune", "--help"], 0),
        (["stats", "--help"], 0),
        (["labels", "--help"], 0),
        (["models", "--help"], 0),
        (["convert", "--help"], 0),
        (["diff", "--help"], 0),
        (["download", "--help"], 0),
        (["doctor", "--help"], 0),
        (["config", "--help"], 0),
        (["config"], 0),
        (["help", "classify"], 0),
        ([], 2),
        (["clasify"], 2),
        (["classify"], 2),
        (["classify", "--top-k", "0", "x.wav"], 2),
        (["classify", "--top-k", "many", "x.wav"], 2),
        (["classify", "--format", "xml", "x.wav"], 2),
        (["classify", "--hop", "-1", "x.wav"], 2),
        (["labels", "--tree", "--format", "json"], 2),
        (["convert", "no-such-file", "--labels", "Rain", "-f", "jsonl"], 2),
        (["diff", os.devnull, os.devnull], 0),
        (["convert", os.devnull, "--labels", "Animal/*", "-f", "jsonl"], 0),
        (["extract", "x.wav"], 2),
        (["plot", "x.wav", "-o", "x.png", "--what", "lanes"], 2),
        (["export"], 2),
        (["evaluate", "no-such-data"], 2),
        (["finetune", "data", "-o", "out", "--epochs", "0"], 2),
        (["finetune", "data", "-o", "out", "--recipe", "none"], 2),
        (["finetune", "no-such-data", "-o", "out"], 2),
        (["classify", "--thresholds", "no-such-file", "x.wav"], 2),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str], code: int) -> None:
    found, modules, printed = run(*arguments)
    assert found == code, printed
    assert modules.isdisjoint(HEAVY)
    assert "Traceback" not in printed


def test_the_list_of_models_needs_the_hub_client_for_its_cache_and_nothing_else_that_is_heavy() -> None:
    code, modules, printed = run("models")
    assert code == 0, printed
    assert modules.intersection(HEAVY) <= {"huggingface_hub"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, ast_cli; dir(ast_cli); print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not any(f"'{name}'" in done.stdout for name in HEAVY)


def test_every_public_name_can_be_imported() -> None:
    import ast_cli

    for name in ast_cli.__all__:
        assert getattr(ast_cli, name) is not None
    assert set(ast_cli.__all__) == set(dir(ast_cli))
    with pytest.raises(AttributeError, match="no attribute 'Spectrogram'"):
        _ = ast_cli.Spectrogram


def test_decoders_are_imported_only_in_worker_processes() -> None:
    for engine, has_torch in (("auto", False), ("torch", True)):
        arguments = ["--model", "builtin", "--quiet", "--device", "cpu", "--engine", engine]
        code, modules, printed = run("classify", "sample_audio/telephone.wav", *arguments)
        assert code == 0, printed
        assert modules.isdisjoint({"av", "soundfile", "soxr"})
        assert ("torch" in modules) == has_torch


@pytest.mark.skipif(has_gpu(), reason="torch serves the GPU")
def test_tagging_on_a_cpu_by_default_imports_no_torch_and_prints_no_note() -> None:
    code, modules, printed = run("classify", "sample_audio/telephone.wav", "--model", "builtin", "--format", "csv")
    assert (code, modules & {"torch", "transformers", "sklearn", "matplotlib"}) == (0, set())
    assert printed.splitlines()[0].startswith("path,")  # neither a note nor a warning before or after the results
    assert all("telephone.wav" in line for line in printed.splitlines()[1:])


def test_garbage_is_collected_rarely_and_not_at_the_end() -> None:
    program = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 1000))\n"  # runs after ours
        "sys.argv[1:] = ['--version']\n"
        "from ast_cli.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "200000 True"
