"""Convert a checkpoint into a model for ONNX Runtime or OpenVINO; the library behind ``ast export``.

The output folder also contains ``config.json`` (labels and sizes), ``preprocessor_config.json`` (the features that the
model expects), and ``thresholds.json`` and ``labels.json`` if the checkpoint has them. All are stored inside the model
as well, so that the file of the model is enough to use it.
"""

from __future__ import annotations

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

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.unstated import FrontEndName, check_front_end_name
from ast_cli.engine.choice import require_installed
from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.onnx_file import Graph, onnx_chunks
from ast_cli.engine.graph.prepared import PRODUCER
from ast_cli.errors import AstError, AstWarning, AudioError, UsageError
from ast_cli.files.atomic import replacing
from ast_cli.files.json_object import write_json_object
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.hub.folders import thresholds_file
from ast_cli.hub.licenses import LICENSE_KEY, license_of
from ast_cli.hub.names import CONFIG_NAME, LABELS_NAME, ONNX_NAME, OPENVINO_NAME, PREPROCESSOR_NAME, THRESHOLDS_NAME
from ast_cli.label_list import labels_content, read_unproven
from ast_cli.model.arrays import Weights, load_arrays
from ast_cli.model.config import ASTConfig, known_problem_type
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.inputs import list_inputs
from ast_cli.tagging.options import WindowOptions
from ast_cli.tagging.score.recording import Recording
from ast_cli.tagging.tagger import check_fit, extractor_for
from ast_cli.tagging.thresholds import model_thresholds, thresholds_content

ExportFormat = Literal["onnx", "openvino"]
ExportDtype = Literal["float32", "float16", "int8"]
FILE_NAMES = {"onnx": ONNX_NAME, "openvino": OPENVINO_NAME}
MAX_CALIBRATION_WINDOWS = 128
CALIBRATION_BATCH = 8
# Times relative to the float32 model of transformers (base size, two cores of an AMD EPYC with AVX-512 and VNNI).
UNCALIBRATED = (
    "int8 without calibration measures the range of every token at run time and is slow: relative to transformers in "
    "float32, one window took 2.3 times as long in ONNX Runtime and 0.84 times in OpenVINO, but 0.36 and 0.25 times "
    "with calibration; use --calibrate FOLDER with recordings like yours"
)
METADATA = (CONFIG_NAME, PREPROCESSOR_NAME)  # names of the texts stored inside every model


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        model: Checkpoint, as in ``ASTForAudioClassification.from_pretrained``.
        output: Folder, or file with the suffix ``.onnx`` or ``.xml``.
        format: Format of the model, ``onnx`` or ``openvino``.
        dtype: Data type of the model: ``float32``, ``float16`` with half the size, or ``int8`` with a quarter of the
            size, in which linear layers compute in 8-bit integers.
        calibrate: Folder of recordings to measure the ranges of ``int8`` on; None to measure each token at run time.
        force: Whether to replace existing files.
        unnamed_labels: Use the labels ``LABEL_n`` where the checkpoint does not name its labels.
        front_end: Front end of a checkpoint that has no ``preprocessor_config.json`` and whose labels do not identify
            it: ``audioset`` or ``speech-commands``.
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
        """Validate the options."""
        if self.format not in get_args(ExportFormat):
            raise UsageError(f"--format must be one of {', '.join(get_args(ExportFormat))}, not {self.format!r}")
        if self.dtype not in get_args(ExportDtype):
            raise UsageError(f"--dtype must be one of {', '.join(get_args(ExportDtype))}, not {self.dtype!r}")
        check_front_end_name(self.front_end)
        if self.calibrate is not None and self.dtype != "int8":
            raise UsageError(f"--calibrate needs --dtype int8, not {self.dtype}")
        if self.calibrate is not None and not self.calibrate.is_dir():
            raise UsageError(f"--calibrate {self.calibrate}: this folder does not exist")
        wrong = {"onnx": ".xml", "openvino": ".onnx"}[self.format]
        if self.output.suffix == wrong:
            raise UsageError(f"--output {self.output}: the suffix {wrong} does not match --format {self.format}")
        for file in (*self.files, *self.optional_files):
            check_target(file, ReadFiles([self.model], "the model itself"), force=self.force, makes_folder=True)

    @property
    def model_file(self) -> Path:
        """Path of the file that runtimes load."""
        names = {"onnx": ".onnx", "openvino": ".xml"}
        is_file = self.output.suffix == names[self.format]
        return self.output if is_file else self.output / FILE_NAMES[self.format]

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files to write; if ``output`` is a file, without the JSON files."""
        files = [self.model_file] + ([self.model_file.with_suffix(".bin")] if self.format == "openvino" else [])
        if self.model_file != self.output:
            files += [self.output / name for name in METADATA]
        return tuple(files)

    @property
    def optional_files(self) -> tuple[Path, ...]:
        """Paths in the output folder that are written if the checkpoint has such files; empty for a file."""
        return () if self.model_file == self.output else (self.output / LABELS_NAME, self.output / THRESHOLDS_NAME)


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        files: Paths of the files written, with the model first.
        num_bytes: Total size of the files.
        num_calibration_windows: Number of windows of audio used for calibration.
    """

    files: tuple[Path, ...]
    num_bytes: int
    num_calibration_windows: int


def export_model(options: ExportOptions, report_progress: Callable[[str], None] = lambda _what: None) -> Exported:
    """Convert a checkpoint into a model that ONNX Runtime or OpenVINO can run without this package.

    The input of the model is ``input_values``, float32, shape (batch, max_length, num_mel_bins). The output is
    ``logits``, float32, shape (batch, num_labels).

    Raises:
        CheckpointError: If the checkpoint is damaged, belongs to another model, or contradicts its configuration.
        EngineMissingError: If the format is ``openvino`` and OpenVINO, which writes it, is not installed.
        UsageError: If the calibration folder contains no readable recording.
        AstError: If a file cannot be written.
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
    facts: dict[str, dict[str, Any]] = {
        CONFIG_NAME: _exported_config(config, options.dtype, license_of(options.model)),
        PREPROCESSOR_NAME: extractor.to_dict(),
    }
    optional = {THRESHOLDS_NAME: _thresholds(options.model, config), LABELS_NAME: _labels_facts(options.model, config)}
    facts |= {name: values for name, values in optional.items() if values is not None}
    graph.metadata.update({name: json.dumps(values) for name, values in facts.items()})
    report_progress(f"writing {options.model_file}")
    try:
        options.model_file.parent.mkdir(parents=True, exist_ok=True)
        (_write_onnx if options.format == "onnx" else _write_openvino)(graph, options)
    except OSError as error:
        raise AstError(f"{options.model_file}: cannot be written ({error.strerror or error})") from error
    except ValueError as error:
        raise AstError(f"{options.model}: an ONNX file is limited to 2 GiB, and this model needs {error}") from error
    files = options.files
    if options.model_file != options.output:
        for name, values in facts.items():
            write_json_object(options.output / name, values)
    for file in options.optional_files:
        if file.name in facts:
            files += (file,)
        else:
            _remove_replaced(file)
    return Exported(files, sum(file.stat().st_size for file in files), num_windows)


def _thresholds(model: str, config: ASTConfig) -> dict[str, Any] | None:
    """Return the content of a checkpoint's file of thresholds; None if it has none.

    Raises:
        CheckpointError: If the file is damaged, or belongs to a model with other labels.
    """
    file = thresholds_file(model)
    if file is None:
        return None
    model_thresholds(file, config.id2label)
    return thresholds_content(file)[0]


def _labels_facts(model: str, config: ASTConfig) -> dict[str, Any] | None:
    """Return the content of a checkpoint's ``labels.json``; None if it has none.

    Raises:
        CheckpointError: If the file is damaged, or belongs to a model with other labels.
    """
    content, where = labels_content(model)
    read_unproven(content, where, config.id2label)
    return content


def _remove_replaced(file: Path) -> None:
    """Remove a file about the model that was replaced: it would count as one about the new model.

    Raises:
        AstError: If the file cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise AstError(f"{file}: this file of the replaced model cannot be removed ({error.strerror})") from error


def _exported_config(config: ASTConfig, dtype: str, license_id: str | None) -> dict[str, Any]:
    """Return the content of ``config.json``, with the data type, the problem type and the license of the model."""
    return (
        config.to_dict()
        | ({} if license_id is None else {LICENSE_KEY: license_id})
        | {
            "dtype": dtype,
            "problem_type": known_problem_type(config),
        }
    )  # None if unknown, not a guess


def _builder(
    options: ExportOptions,
    config: ASTConfig,
    weights: Weights,
    extractor: FeatureExtractor,
    report_progress: Callable[[str], None],
) -> tuple[GraphBuilder, int]:
    """Return the builder of the graph for the data type, and the number of windows used for calibration."""
    if options.dtype != "int8" and options.format == "openvino":
        from ast_cli.engine.graph.openvino_engine import Float32Builder

        return Float32Builder(config, weights), 0  # OpenVINO itself stores weights as float16, and computes in float32
    if options.dtype != "int8":
        return GraphBuilder(config, weights, options.dtype), 0
    from ast_cli.engine.graph.quantization import CalibratedBuilder, DynamicBuilder, calibrate

    if options.calibrate is None:
        return DynamicBuilder(config, weights), 0
    report_progress(f"calibrating on {options.calibrate}")
    counter = _Counter(_calibration_batches(options.calibrate, extractor))
    ranges = calibrate(options.model, counter, unnamed_labels=options.unnamed_labels)
    if not counter.num_windows:
        raise UsageError(f"--calibrate {options.calibrate}: this folder contains no readable recording")
    return CalibratedBuilder(config, weights, ranges), counter.num_windows


class _Counter:
    """Iterates over batches and counts their windows."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]) -> None:
        self.num_windows = 0
        self._batches = batches

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for batch in self._batches:
            self.num_windows += len(batch)
            yield batch


def _calibration_batches(folder: Path, extractor: FeatureExtractor) -> Iterator[NDArray[np.float32]]:
    """Yield features of the first windows of up to `MAX_CALIBRATION_WINDOWS` recordings of a folder, in batches."""
    inputs = [item for item in list_inputs([str(folder)]) if item.error is None and not item.is_pattern]
    step = max(1, len(inputs) // MAX_CALIBRATION_WINDOWS)
    fbanks: list[NDArray[np.float32]] = []
    with open_inputs(inputs[::step][:MAX_CALIBRATION_WINDOWS], extractor.sampling_rate) as turns:
        for turn in turns:
            try:
                window = next(Recording(turn.open_stream(), extractor, WindowOptions()).windows(), None)
            except AudioError:
                continue  # the other recordings are enough
            if window is not None:
                fbanks.append(window.content)
            if len(fbanks) == CALIBRATION_BATCH:
                yield extractor.input_values(fbanks)
                fbanks = []
    if fbanks:
        yield extractor.input_values(fbanks)


def _write_onnx(graph: Graph, options: ExportOptions) -> None:
    """Write one ONNX file, replacing an existing one atomically."""
    with replacing(options.model_file) as stream:
        for chunk in onnx_chunks(graph, PRODUCER):
            stream.write(chunk)


def _write_openvino(graph: Graph, options: ExportOptions) -> None:
    """Write the two files of OpenVINO: the graph as .xml and the weights as .bin."""
    from ast_cli.engine.graph.openvino_core import openvino

    model = openvino.Core().read_model(b"".join(onnx_chunks(graph, PRODUCER)))
    for name, text in graph.metadata.items():
        model.set_rt_info(text, ["ast", name])
    with tempfile.TemporaryDirectory(prefix=".ast-export-", dir=options.model_file.parent) as folder:
        new = Path(folder) / options.model_file.name
        openvino.save_model(model, new, compress_to_fp16=options.dtype == "float16")
        for suffix in (".bin", ".xml"):
            os.replace(new.with_suffix(suffix), options.model_file.with_suffix(suffix))
