"""Exported models run in their runtimes alone, describe their inputs and outputs, and agree with the original model."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.tiny_engines import features, int8_name, save_tiny
from numpy.typing import NDArray
from tone_folders import write_tone_folders

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification, Tagger, load_waveform
from ast_cli.engine.choice import load_engine
from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.prepared import as_bytes
from ast_cli.engine.options import EngineOptions, exported_engine
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import AstError, AstWarning, CheckpointError, DeviceError, EngineMissingError, UsageError
from ast_cli.export import ExportOptions, export_model
from ast_cli.hub.folders import builtin_folder, checkpoint_digest
from ast_cli.hub.names import LABELS_NAME
from ast_cli.label_list import list_labels
from ast_cli.model.arrays import load_arrays
from ast_cli.tagging.score.scoring import scores_of

pytestmark = pytest.mark.filterwarnings("ignore:int8 without calibration")  # one test looks at it

TESTS = Path(__file__).resolve().parent
SAMPLES = TESTS.parent / "sample_audio"
ESC10 = TESTS.parent.parent / "shared" / "data" / "esc10"
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 0.25}  # of logits that span about 8
AUDIO = ("wav", "flac", "ogg", "mp3", "m4a", "opus")
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}

# A script of a user without this package.
ALONE = {
    "onnx": """
import sys, json, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
(logits,) = session.run(["logits"], {"input_values": np.load(sys.argv[2])})
facts = session.get_modelmeta().custom_metadata_map
""",
    "openvino": """
import sys, json, numpy as np, openvino
core = openvino.Core()
model = core.read_model(sys.argv[1])
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
logits = compiled({"input_values": np.load(sys.argv[2])})["logits"]
facts = {name: model.get_rt_info(["ast", name]).astype(str) for name in ("config.json", "preprocessor_config.json")}
""",
}
REPORT = """
np.save(sys.argv[3], logits)
labels = json.loads(facts["config.json"])["id2label"]
mean = json.loads(facts["preprocessor_config.json"])["mean"]
assert not [name for name in sys.modules if name.split(".")[0] in ("torch", "ast_cli")]
print(json.dumps([labels, mean]))
"""

each_format = pytest.mark.parametrize(
    "format_name",
    [
        pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(runtime) is None, reason=f"no {runtime}"))
        for name, runtime in RUNTIMES.items()
    ],
)


def run_alone(format_name: str, model_file: Path, x: NDArray[np.float32], folder: Path) -> tuple[Any, Any]:
    """Run an exported model in a process without this package; return its logits and its metadata."""
    np.save(folder / "x.npy", x)
    program = ALONE[format_name] + REPORT
    done = subprocess.run(
        [sys.executable, "-c", program, str(model_file), str(folder / "x.npy"), str(folder / "y.npy")],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    return np.load(folder / "y.npy"), json.loads(done.stdout)


@each_format
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_exported_model_runs_alone_and_agrees(tmp_path: Path, format_name: Any, dtype: Any) -> None:
    exported = export_model(ExportOptions("builtin", tmp_path / "out", format_name, dtype))
    engine = TorchEngine.load("builtin", device="cpu")
    x = features(engine.config, 3)
    logits, (labels, mean) = run_alone(format_name, exported.files[0], x, tmp_path)
    np.testing.assert_allclose(logits, engine.logits(x), rtol=0, atol=TOLERANCES[dtype])
    assert {int(label_id): label for label_id, label in labels.items()} == engine.config.id2label
    assert mean == ASTFeatureExtractor.from_pretrained("builtin").mean
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    assert exported.num_bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())


@each_format
def test_float16_has_half_and_int8_a_quarter_of_the_size(tmp_path: Path, format_name: Any) -> None:
    sizes = [
        export_model(ExportOptions("builtin", tmp_path / dtype, format_name, dtype)).num_bytes
        for dtype in ("float32", "float16", "int8")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.4 * sizes[0]


@each_format
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_classify_runs_an_exported_folder(
    tmp_path: Path, run_ast: Callable[..., Any], format_name: Any, dtype: str
) -> None:
    folder = tmp_path / "out"
    arguments = ["export", "--model", "builtin", "--format", format_name, "--dtype", dtype, "--output", str(folder)]
    done = run_ast(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith({"onnx": "model.onnx", "openvino": "model.xml"}[format_name])
    again = run_ast(*arguments)
    assert again.returncode == 2
    assert "exists: add --force to replace it" in again.stderr
    assert run_ast(*arguments, "--force").returncode == 0

    classify = ["classify", str(SAMPLES / "rain.ogg"), "--format", "json", "--model", str(folder)]
    (result,) = json.loads(run_ast(*classify).stdout)
    expected = Tagger.from_pretrained("builtin").classify(SAMPLES / "rain.ogg")
    tolerance = TOLERANCES["float32"] if dtype == "float32" else 0.02
    for tag, other in zip(result["tags"][:2], expected.tags, strict=False):
        assert tag["label"] == other.label
        assert tag["score"] == pytest.approx(other.score, abs=tolerance)
    for engine in ("auto", RUNTIMES[format_name]):
        assert json.loads(run_ast(*classify, "--engine", engine).stdout) == [result]
    refused = run_ast(*classify, "--engine", "torch")
    assert refused.returncode == 2
    reason = f"a model exported for {RUNTIMES[format_name]}, which no other engine runs: leave out --engine"
    assert refused.stderr == f"error: {folder}: {reason}\n"


def names_of(folder: Path, format_name: Any) -> list[Path]:
    """Export the built-in model in both ways, and return all that its models may be called."""
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[format_name]
    export_model(ExportOptions("builtin", folder / "out", format_name))
    export_model(ExportOptions("builtin", folder / f"tagger{suffix}", format_name))
    return [folder / "out", folder / "out" / f"model{suffix}", folder / f"tagger{suffix}"]


@each_format
def test_an_exported_model_loads_by_folder_and_by_file(tmp_path: Path, format_name: Any) -> None:
    results = []
    for name in names_of(tmp_path, format_name):
        tagger = Tagger.from_pretrained(name)
        assert tagger.engine.name == RUNTIMES[format_name]
        assert tagger.feature_extractor.to_dict() == ASTFeatureExtractor.from_pretrained("builtin").to_dict()
        results.append(tagger.classify(SAMPLES / "rain.ogg").tags)
    assert results[0] == results[1] == results[2]
    expected = Tagger.from_pretrained("builtin").classify(SAMPLES / "rain.ogg").tags
    assert [tag.label for tag in results[0]] == [tag.label for tag in expected]


@each_format
def test_an_exported_model_brings_the_list_of_unproven_labels(tmp_path: Path, format_name: Any) -> None:
    model = tmp_path / "model"
    shutil.copytree(builtin_folder(), model)
    (model / LABELS_NAME).write_text('{"unproven": ["Bark"]}')
    folder, alone = tmp_path / "out", tmp_path / {"onnx": "tagger.onnx", "openvino": "tagger.xml"}[format_name]
    exported = export_model(ExportOptions(str(model), folder, format_name))
    assert folder / LABELS_NAME in exported.files
    export_model(ExportOptions(str(model), alone, format_name))
    for name in (folder, folder / exported.files[0].name, alone):
        assert [label.label for label in list_labels(name).labels if label.unproven] == ["Bark"]

    (model / LABELS_NAME).write_text('{"unproven": ["Brak"]}')
    with pytest.raises(CheckpointError, match=r"Brak.* is no label of the model"):
        export_model(ExportOptions(str(model), tmp_path / "other", format_name))

    (model / LABELS_NAME).unlink()
    export_model(ExportOptions(str(model), folder, format_name, force=True))
    assert {label.unproven for label in list_labels(folder).labels} == {None}


@each_format
def test_an_exported_model_brings_the_thresholds_of_the_checkpoint(tmp_path: Path, format_name: Any) -> None:
    model = tmp_path / "model"
    shutil.copytree(builtin_folder(), model)
    content = {"schema_version": 1, "labels": {"/m/06mb1": {"threshold": 0.3, "support": 20}, "Bark": 0.0}}
    (model / "thresholds.json").write_text(json.dumps(content))
    folder, alone = tmp_path / "out", tmp_path / {"onnx": "tagger.onnx", "openvino": "tagger.xml"}[format_name]
    exported = export_model(ExportOptions(str(model), folder, format_name))
    assert exported.files[-1] == folder / "thresholds.json"
    assert exported.num_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert json.loads((folder / "thresholds.json").read_text()) == content
    assert export_model(ExportOptions(str(model), alone, format_name)).files[0] == alone
    for name in (model, folder, folder / exported.files[0].name, alone):
        tagger = Tagger.from_pretrained(name)
        assert tagger.thresholds == {"Rain": 0.3, "Bark": 0.0}
        found = tagger.classify(SAMPLES / "rain.ogg", events=True, labels=("Bark",))
        assert [event.label for event in found.events or ()] == ["Bark"]

    (model / "thresholds.json").write_text('{"labels": {"Rian": 0.5}}')
    with pytest.raises(CheckpointError, match="model has no label 'Rian'"):
        export_model(ExportOptions(str(model), tmp_path / "other", format_name))


def test_thresholds_of_another_model_do_not_stay_in_the_output(tmp_path: Path) -> None:
    stray, model = tmp_path / "out" / "thresholds.json", tmp_path / "model"
    shutil.copytree(builtin_folder(), model)
    (model / "thresholds.json").unlink(missing_ok=True)
    stray.parent.mkdir()
    stray.write_text('{"labels": {"Rain": 0.1}}')
    with pytest.raises(UsageError, match=r"thresholds\.json exists: add --force to replace it"):
        ExportOptions(str(model), stray.parent)
    exported = export_model(ExportOptions(str(model), stray.parent, force=True))
    assert stray not in exported.files
    assert not stray.exists()
    assert Tagger.from_pretrained(stray.parent).thresholds == {}


@each_format
def test_a_single_file_is_described_by_its_content_not_by_files_beside_it(tmp_path: Path, format_name: Any) -> None:
    file = names_of(tmp_path, format_name)[2]
    builtin = Tagger.from_pretrained("builtin")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "audio-spectrogram-transformer"}))
    ASTFeatureExtractor(mean=1.0).save_pretrained(tmp_path)
    tagger = Tagger.from_pretrained(file)
    assert tagger.config.id2label == builtin.config.id2label
    assert tagger.feature_extractor.mean == builtin.feature_extractor.mean
    with pytest.warns(
        AstWarning, match=rf"--front-end audioset is ignored, because .*{file.name} defines the front end"
    ):
        Tagger.from_pretrained(file, front_end="audioset")


@each_format
def test_the_file_in_a_folder_is_described_by_the_files_beside_it(tmp_path: Path, format_name: Any) -> None:
    folder, file, _ = names_of(tmp_path, format_name)
    config = json.loads((folder / "config.json").read_text())
    renamed = {**config, "id2label": {**config["id2label"], "0": "Renamed"}, "label2id": None}
    (folder / "config.json").write_text(json.dumps(renamed))
    assert [Tagger.from_pretrained(name).config.id2label[0] for name in (folder, file)] == ["Renamed", "Renamed"]


@each_format
def test_depends_on_the_same_files_by_folder_and_by_file(tmp_path: Path, format_name: Any) -> None:
    folder, file, alone = names_of(tmp_path, format_name)
    assert checkpoint_digest(str(folder)) == checkpoint_digest(str(file))
    before = checkpoint_digest(str(alone))
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint_digest(str(alone)) == before  # a neighbor that says nothing of it
    weights = alone.with_suffix(".bin") if format_name == "openvino" else alone
    weights.write_bytes(weights.read_bytes()[:-1])
    assert checkpoint_digest(str(alone)) != before


@each_format
def test_every_command_that_tags_takes_an_exported_model(
    tmp_path: Path, run_ast: Callable[..., Any], format_name: Any
) -> None:
    _, _, alone = names_of(tmp_path, format_name)
    write_tone_folders(tmp_path / "data")
    (tmp_path / "data" / "Low").rename(tmp_path / "data" / "Rain")
    for command in (
        ["extract", str(SAMPLES / "rain.ogg"), "--what", "logits", "--output", str(tmp_path / "rain.npz")],
        ["extract", str(SAMPLES / "rain.ogg"), "--what", "input-values", "--output", str(tmp_path / "values.npz")],
        ["evaluate", str(tmp_path / "data"), "--ignore-unknown-labels"],
        ["benchmark", "--batch-size", "1", "--repeats", "1"],
    ):
        done = run_ast(*command, "--model", str(alone))
        assert done.returncode == 0, done.stderr


@each_format
def test_a_model_without_a_description_is_refused(tmp_path: Path, format_name: Any) -> None:
    weights, config = load_arrays("builtin")
    silent = tmp_path / "silent.onnx"
    silent.write_bytes(as_bytes(GraphBuilder(config, weights).build()))
    if format_name == "openvino":
        openvino = importlib.import_module("openvino")
        openvino.save_model(openvino.Core().read_model(silent), tmp_path / "silent.xml")
        silent = tmp_path / "silent.xml"
    with pytest.raises(CheckpointError) as raised:
        Tagger.from_pretrained(silent)
    assert str(raised.value) == (
        f"{silent}: contains no config.json, which `ast export` writes into a model; export it again, or put it beside "
        f"its config.json and preprocessor_config.json under the name model{silent.suffix}"
    )


def test_an_openvino_model_without_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = export_model(ExportOptions("builtin", tmp_path / "a.xml", "openvino")).files[0]
    (tmp_path / "a.bin").unlink()
    with pytest.raises(CheckpointError) as raised:
        Tagger.from_pretrained(file)
    assert str(raised.value) == f"{file}: its file of weights, a.bin, is missing beside it: copy both files"


def test_a_missing_runtime_of_an_exported_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = export_model(ExportOptions("builtin", tmp_path / "a.onnx")).files[0]
    monkeypatch.setattr("ast_cli.engine.choice.is_installed", lambda _package: False)
    for engine in ("auto", "onnxruntime"):
        with pytest.raises(EngineMissingError) as raised:
            Tagger.from_pretrained(file, engine=engine)  # type: ignore[arg-type]
        reason = "exported for onnxruntime, which is not installed: pip install onnxruntime"
        assert str(raised.value) == f"{file}: {reason}"


@pytest.mark.parametrize("name", ["out", "out/model.onnx", "tagger.onnx"])
def test_an_exported_model_is_not_accepted_as_checkpoint(
    tmp_path: Path, run_ast: Callable[..., Any], name: str
) -> None:
    names_of(tmp_path, "onnx")
    message = "written by `ast export` and not a checkpoint: use the checkpoint that it was made from"
    with pytest.raises(CheckpointError, match=message):
        ASTForAudioClassification.from_pretrained(tmp_path / name)
    write_tone_folders(tmp_path / "data")
    for command in (["finetune", "data", "-o", "tuned"], ["export", "-o", "again"]):
        done = run_ast(*command, "--model", name, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, f"error: {name}: {message}\n")
    assert not (tmp_path / "tuned").exists()


def test_a_checkpoint_beside_a_model_of_a_runtime_is_a_checkpoint(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"of another make")
    assert exported_engine(tmp_path) is None
    assert isinstance(Tagger.from_pretrained(tmp_path, engine="torch", device="cpu").engine, TorchEngine)


def test_an_exported_folder_does_not_shadow_a_model_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_model(ExportOptions("builtin", tmp_path / "builtin"))
    export_model(ExportOptions("builtin", tmp_path / "fast"))
    monkeypatch.chdir(tmp_path)
    assert [exported_engine(name) for name in ("builtin", "fast", "./fast")] == [None, None, "onnxruntime"]


def test_int8_without_calibration_warns_that_it_is_slow(tmp_path: Path, run_ast: Callable[..., Any]) -> None:
    done = run_ast("export", "--model", "builtin", "--dtype", "int8", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()
    assert first == (
        "warning: int8 without calibration measures the range of every token at run time and is slow: relative to "
        "transformers in float32, one window took 2.3 times as long in ONNX Runtime and 0.84 times in OpenVINO, but "
        "0.36 and 0.25 times with calibration; use --calibrate FOLDER with recordings like yours"
    )
    assert second == f"writing {tmp_path / 'out' / 'model.onnx'}"  # so it comes before anything is written
    assert "slower than float32" in " ".join(run_ast("export", "--help").stdout.split())


@pytest.mark.filterwarnings("error")
def test_other_exports_give_no_warning(tmp_path: Path) -> None:
    export_model(ExportOptions("builtin", tmp_path / "int8", dtype="int8", calibrate=SAMPLES))
    export_model(ExportOptions("builtin", tmp_path / "float32"))


@each_format
def test_a_damaged_export_is_an_error(tmp_path: Path, format_name: Any) -> None:
    exported = export_model(ExportOptions("builtin", tmp_path, format_name))
    exported.files[0].write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=f"{exported.files[0].name}: cannot be loaded .*; export it again"):
        Tagger.from_pretrained(tmp_path, engine="auto")


def test_the_output_can_be_a_single_file(tmp_path: Path) -> None:
    exported = export_model(ExportOptions("builtin", tmp_path / "tagger.onnx"))
    assert exported.files == (tmp_path / "tagger.onnx",)
    assert [file.name for file in tmp_path.iterdir()] == ["tagger.onnx"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "tflite"}, "format must be one of onnx, openvino, not 'tflite'"),
        ({"dtype": "int4"}, "dtype must be one of float32, float16, int8, not 'int4'"),
        ({"calibrate": SAMPLES}, "--calibrate needs --dtype int8, not float32"),
        ({"calibrate": SAMPLES / "nowhere", "dtype": "int8"}, "this folder does not exist"),
        ({"output": Path("model.xml")}, "the suffix .xml does not match --format onnx"),
        ({"output": Path("model.onnx"), "format": "openvino"}, "the suffix .onnx does not match --format openvino"),
    ],
)
def test_invalid_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportOptions(**{"model": "builtin", "output": Path("new-folder"), **changes})


def test_a_calibration_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="this folder contains no readable recording"):
        export_model(ExportOptions("builtin", tmp_path / "out", dtype="int8", calibrate=tmp_path / "empty"))


def test_missing_openvino_is_an_error_naming_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ast_cli.engine.choice.is_installed", lambda _package: False)
    with pytest.raises(EngineMissingError, match=r"pip install openvino, or choose another engine or format"):
        export_model(ExportOptions("builtin", tmp_path, "openvino"))


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AstError, match="cannot be written"):
        export_model(ExportOptions("builtin", tmp_path / "file" / "below"))


def correlation(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.corrcoef(ours.ravel(), expected.ravel())[0, 1])


def in_batches(engine: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([engine.logits(x[start : start + 16]) for start in range(0, len(x), 16)])


@pytest.fixture(scope="module")
def esc10() -> tuple[NDArray[np.float32], list[Path], NDArray[np.float32]]:
    """Return the features of the clips, their files, and the torch engine's logits."""
    if not ESC10.is_dir():
        pytest.skip("../shared/data/esc10 is not beside this repository")
    with (ESC10 / "meta.csv").open(newline="", encoding="utf-8") as file:
        names = [row["filename"] for row in csv.DictReader(file)]
    paths = [ESC10 / "audio" / name for name in names]
    extractor = ASTFeatureExtractor.from_pretrained("builtin", fbank_backend="numpy")
    x = extractor([load_waveform(path) for path in paths], 16000, "np").input_values
    return x, paths, in_batches(TorchEngine.load("builtin", device="cpu"), x)


@each_format
def test_int8_calibrated_on_a_folder_agrees(tmp_path: Path, format_name: Any) -> None:
    exported = export_model(ExportOptions("builtin", tmp_path / "out", format_name, "int8", SAMPLES))
    assert exported.num_calibration_windows == len([file for file in SAMPLES.iterdir() if file.suffix[1:] in AUDIO])
    engine, reference = (Tagger.from_pretrained(name, engine="auto") for name in (tmp_path / "out", "builtin"))
    for name in ("rain.ogg", "dog.wav", "siren.wav"):
        ours = engine.classify(SAMPLES / name, top_k=len(engine.config.id2label))
        expected = reference.classify(SAMPLES / name, top_k=10)
        assert ours.tags[0].label == expected.tags[0].label
        scores = [{tag.label: tag.score for tag in result.tags} for result in (ours, expected)]
        assert np.mean([abs(scores[0][label] - score) for label, score in scores[1].items()]) <= 0.01


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_int8_uses_bfloat16_for_the_rest_if_supported_unless_float32_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ast_cli.engine.graph import openvino_engine

    out = tmp_path / "out"
    export_model(ExportOptions(str(save_tiny(tmp_path / "model")), out, "openvino", "int8"))
    plain = load_engine(out, EngineOptions("auto", dtype="float32"))
    assert plain.dtype_name == "int8"
    x = features(plain.config, 2)
    if openvino_engine.has_bfloat16(openvino_engine.the_core()):
        engine = load_engine(out, EngineOptions("auto"))
        assert engine.dtype_name == "int8+bfloat16"
        assert not np.array_equal(engine.logits(x), plain.logits(x))
        np.testing.assert_allclose(engine.logits(x), plain.logits(x), rtol=0, atol=TOLERANCES["int8"])
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda _core: False)
    engine = load_engine(out, EngineOptions("auto"))
    assert engine.dtype_name == "int8"
    np.testing.assert_array_equal(engine.logits(x), plain.logits(x))
    with pytest.raises(DeviceError, match="this processor does not compute in bfloat16; use --dtype float32"):
        load_engine(out, EngineOptions("auto", dtype="bfloat16"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_format
@pytest.mark.parametrize("calibrated", [False, True], ids=["per token", "calibrated"])
def test_int8_agrees_on_real_audio(tmp_path: Path, format_name: Any, calibrated: bool, esc10: Any) -> None:
    x, paths, expected = esc10
    folder = None
    if calibrated:
        folder = tmp_path / "calibration"
        folder.mkdir()
        for path in paths[::8]:
            (folder / path.name).symlink_to(path)
    exported = export_model(ExportOptions("builtin", tmp_path / "out", format_name, "int8", folder))
    assert exported.num_calibration_windows == (len(paths[::8]) if calibrated else 0)
    engine = Tagger.from_pretrained(tmp_path / "out", engine="auto").engine
    assert engine.dtype_name == int8_name(engine.name)
    ours = in_batches(engine, x)
    agreement = np.mean(ours.argmax(axis=1) == expected.argmax(axis=1))
    difference = np.abs(scores_of(ours, "softmax") - scores_of(expected, "softmax")).mean()
    print(f"{format_name}, calibrated {calibrated}: top-1 {agreement:.4f}, scores {difference:.6f}, "  # noqa: T201
          f"correlation {correlation(ours, expected):.6f}")  # fmt: skip
    assert agreement >= 0.99
    assert difference <= 0.01


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_format
@pytest.mark.parametrize("calibrated", [False, True], ids=["per token", "calibrated"])
def test_int8_of_a_random_base_size_model_correlates(tmp_path: Path, format_name: Any, calibrated: bool) -> None:
    from ast_cli.benchmark.peers import random_model, size_config

    model = random_model(size_config("base"))
    model.save_pretrained(tmp_path / "base")
    ASTFeatureExtractor().save_pretrained(tmp_path / "base")
    folder = SAMPLES if calibrated else None
    export_model(ExportOptions(str(tmp_path / "base"), tmp_path / "out", format_name, "int8", folder))
    engine = Tagger.from_pretrained(tmp_path / "out", engine="auto").engine
    files = [SAMPLES / name for name in ("rain.ogg", "speech.flac", "dog.wav")]
    x = ASTFeatureExtractor()([load_waveform(file) for file in files], 16000, "np").input_values
    ours, expected = engine.logits(x), TorchEngine(model).logits(x)
    print(f"{format_name}, calibrated {calibrated}: correlation {correlation(ours, expected):.6f}")  # noqa: T201
    assert correlation(ours, expected) >= 0.999


def test_labels_of_a_tiny_model_are_kept(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", id2label={0: "Waves, surf", 1: "Ü", 2: "c"})
    export_model(ExportOptions(str(folder), tmp_path / "out"))
    assert list(Tagger.from_pretrained(tmp_path / "out", engine="auto").config.id2label.values()) == [
        "Waves, surf",
        "Ü",
        "c",
    ]
