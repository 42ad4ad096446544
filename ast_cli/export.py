"""A checkpoint as files that other runtimes run: the library behind ``ast export``.

Beside the model lie ``config.json`` (labels, sizes) and ``preprocessor_config.json`` (the features it hears), and both
are inside it as well, so that the file alone says what goes in and what comes out.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.front_end import FrontEndName, check_front_end_name
from ast_cli.engine.choice import require_installed
from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.onnx_file import Graph, onnx_chunks
from ast_cli.engine.graph.prepared import PRODUCER
from ast_cli.errors import AstError, AstWarning, AudioError, UsageError
from ast_cli.files.atomic import replacing
from ast_cli.files.json_object import write_json_object
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.hub.names import CONFIG_NAME, ONNX_NAME, OPENVINO_NAME, PREPROCESSOR_NAME
from ast_cli.model.arrays import Weights, load_arrays
from ast_cli.model.config import ASTConfig, known_problem_type
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.inputs import list_inputs
from ast_cli.tagging.options import WindowOptions
from ast_cli.tagging.score.recording import Recording
from ast_cli.tagging.tagger import check_fit, extractor_for

ExportFormat = Literal["onnx", "openvino"]
ExportDtype = Literal["float32", "float16", "int8"]
FILE_NAMES = {"onnx": ONNX_NAME, "openvino": OPENVINO_NAME}
MAX_CALIBRATION_WINDOWS = 128
CALIBRATION_BATCH = 8
# Measured with transformers' float32 as 1 (base size, two cores of an AMD EPYC with AVX-512 and VNNI).
UNCALIBRATED = (
    "int8 without calibration measures every token while it runs, which costs more than it saves: one window took 2.3 "
    "times as long as transformers' float32 in ONNX Runtime and 0.84 times in OpenVINO, calibrated 0.36 and 0.25; add "
    "--calibrate FOLDER with recordings like yours"
)
METADATA = (CONFIG_NAME, PREPROCESSOR_NAME)  # names of the two texts inside a model


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        model: As in ``ASTForAudioClassification.from_pretrained``.
        output: A folder, or a file that ends in ``.onnx`` or ``.xml``.
        format: ``onnx`` or ``openvino``.
        dtype: ``float32``; ``float16``, half the size; ``int8``, a quarter: linear layers in 8-bit integers.
        calibrate: A folder of recordings to find the ranges of ``int8`` on; None to measure each token as it comes.
        force: Whether to replace files that exist.
        unnamed_labels: Take ``LABEL_n`` where the checkpoint does not name its labels.
        front_end: ``audioset`` or ``speech-commands``, where the checkpoint brings no ``preprocessor_config.json`` and
            its labels do not tell either.
    """

    model: str
    output: Path
    format: ExportFormat = "onnx"
    dtype: ExportDtype = "float32"
    calibrate: Path | None = None
    force: bool = False
    unnamed_labels: bool = False
    front_end: FrontEndName | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.format not in get_args(ExportFormat):
            raise UsageError(f"format must be one of {', '.join(get_args(ExportFormat))}, not {self.format!r}")
        if self.dtype not in get_args(ExportDtype):
            raise UsageError(f"dtype must be one of {', '.join(get_args(ExportDtype))}, not {self.dtype!r}")
        check_front_end_name(self.front_end)
        if self.calibrate is not None and self.dtype != "int8":
            raise UsageError(f"only int8 is calibrated: leave out --calibrate, or say --dtype int8 ({self.dtype} now)")
        if self.calibrate is not None and not self.calibrate.is_dir():
            raise UsageError(f"--calibrate {self.calibrate}: there is no such folder")
        wrong = {"onnx": ".xml", "openvino": ".onnx"}[self.format]
        if self.output.suffix == wrong:
            raise UsageError(f"--output {self.output} is no name for the format {self.format}")
        for file in self.files:
            check_target(file, ReadFiles([self.model], "the model itself"), force=self.force, makes_folder=True)

    @property
    def model_file(self) -> Path:
        """The file that runtimes are given."""
        names = {"onnx": ".onnx", "openvino": ".xml"}
        is_file = self.output.suffix == names[self.format]
        return self.output if is_file else self.output / FILE_NAMES[self.format]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are written; beside a single named file no others than its own."""
        files = [self.model_file] + ([self.model_file.with_suffix(".bin")] if self.format == "openvino" else [])
        if self.model_file != self.output:
            files += [self.output / name for name in METADATA]
        return tuple(files)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        files: The model first.
        num_bytes: Of all of them.
        num_calibration_windows: Windows of audio that ranges were found on.
    """

    files: tuple[Path, ...]
    num_bytes: int
    num_calibration_windows: int


def export_model(options: ExportOptions, report_progress: Callable[[str], None] = lambda _what: None) -> Exported:
    """Write a checkpoint as a model that ONNX Runtime or OpenVINO runs alone.

    Its input is ``input_values``, float32, shape (batch, max_length, num_mel_bins); its output ``logits``, float32,
    shape (batch, num_labels).

    Raises:
        CheckpointError: The checkpoint is damaged, foreign, or at odds with itself.
        EngineMissingError: OpenVINO, which writes its own format, is not installed.
        UsageError: Nothing to calibrate on.
        AstError: A file cannot be written.
    """
    if options.format == "openvino":
        require_installed("openvino")
    weights, config = load_arrays(options.model, unnamed_labels=options.unnamed_labels)
    extractor = extractor_for(options.model, config, "numpy", options.front_end)
    check_fit(config, extractor, options.model)
    if options.dtype == "int8" and options.calibrate is None:
        warnings.warn(UNCALIBRATED, AstWarning, stacklevel=2)
    builder, num_windows = _builder(options, config, weights, extractor, report_progress)
    graph = builder.build()
    facts = {
        CONFIG_NAME: _exported_config(config, options.dtype),
        PREPROCESSOR_NAME: extractor.to_dict(),
    }
    graph.metadata.update({name: json.dumps(values) for name, values in facts.items()})
    report_progress(f"writing {options.model_file}")
    try:
        options.model_file.parent.mkdir(parents=True, exist_ok=True)
        (_write_onnx if options.format == "onnx" else _write_openvino)(graph, options)
    except OSError as error:
        raise AstError(f"{options.model_file}: cannot be written ({error.strerror or error})") from error
    except ValueError as error:
        raise AstError(f"{options.model}: an ONNX file holds at most 2 GiB, and this model takes {error}") from error
    if options.model_file != options.output:
        for name, values in facts.items():
            write_json_object(options.output / name, values)
    return Exported(options.files, sum(file.stat().st_size for file in options.files), num_windows)


def _exported_config(config: ASTConfig, dtype: str) -> dict[str, Any]:
    """Return the content of ``config.json``, with what readers need to know beside the sizes."""
    return config.to_dict() | {"dtype": dtype, "problem_type": known_problem_type(config)}  # no guess written down


def _builder(
    options: ExportOptions,
    config: ASTConfig,
    weights: Weights,
    extractor: ASTFeatureExtractor,
    report_progress: Callable[[str], None],
) -> tuple[GraphBuilder, int]:
    """Return what describes the model in the type asked for, and how many windows it was calibrated on."""
    if options.dtype != "int8" and options.format == "openvino":
        from ast_cli.engine.graph.openvino_engine import Float32Builder

        return Float32Builder(config, weights), 0  # OpenVINO packs float32 as float16 itself, and computes in float32
    if options.dtype != "int8":
        return GraphBuilder(config, weights, options.dtype), 0
    from ast_cli.engine.graph.quantization import CalibratedBuilder, DynamicBuilder, calibrate

    if options.calibrate is None:
        return DynamicBuilder(config, weights), 0
    report_progress(f"calibrating on {options.calibrate}")
    counter = _Counter(_calibration_batches(options.calibrate, extractor))
    ranges = calibrate(options.model, counter, unnamed_labels=options.unnamed_labels)
    if not counter.num_windows:
        raise UsageError(f"--calibrate {options.calibrate}: not one recording in it can be read")
    return CalibratedBuilder(config, weights, ranges), counter.num_windows


class _Counter:
    """Passes batches on and counts their windows."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]) -> None:
        self.num_windows = 0
        self._batches = batches

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for batch in self._batches:
            self.num_windows += len(batch)
            yield batch


def _calibration_batches(folder: Path, extractor: ASTFeatureExtractor) -> Iterator[NDArray[np.float32]]:
    """Yield features of up to `MAX_CALIBRATION_WINDOWS` recordings of a folder, the first window of each."""
    inputs = [item for item in list_inputs([str(folder)]) if item.error is None and not item.is_pattern]
    step = max(1, len(inputs) // MAX_CALIBRATION_WINDOWS)
    fbanks: list[NDArray[np.float32]] = []
    with open_inputs(inputs[::step][:MAX_CALIBRATION_WINDOWS], extractor.sampling_rate) as turns:
        for turn in turns:
            try:
                window = next(Recording(turn.open_stream(), extractor, WindowOptions()).windows(), None)
            except AudioError:
                continue  # others will do
            if window is not None:
                fbanks.append(window.content)
            if len(fbanks) == CALIBRATION_BATCH:
                yield extractor.input_values(fbanks)
                fbanks = []
    if fbanks:
        yield extractor.input_values(fbanks)


def _write_onnx(graph: Graph, options: ExportOptions) -> None:
    """Write one ONNX file, old or new, never half."""
    with replacing(options.model_file) as stream:
        for chunk in onnx_chunks(graph, PRODUCER):
            stream.write(chunk)


def _write_openvino(graph: Graph, options: ExportOptions) -> None:
    """Write OpenVINO's two files: the graph as .xml, the weights as .bin."""
    openvino: Any = importlib.import_module("openvino")
    model = openvino.Core().read_model(b"".join(onnx_chunks(graph, PRODUCER)))
    for name, text in graph.metadata.items():
        model.set_rt_info(text, ["ast", name])
    with tempfile.TemporaryDirectory(prefix=".ast-export-", dir=options.model_file.parent) as folder:
        new = Path(folder) / options.model_file.name
        openvino.save_model(model, new, compress_to_fp16=options.dtype == "float16")
        for suffix in (".bin", ".xml"):
            os.replace(new.with_suffix(suffix), options.model_file.with_suffix(suffix))
