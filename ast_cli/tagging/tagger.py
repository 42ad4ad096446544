"""The tagger: a loaded checkpoint that tags recordings from Python."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.unstated import FrontEndName, is_original
from ast_cli.engine.choice import load_engine
from ast_cli.engine.graph.exported import extractor_inside
from ast_cli.engine.interface import Engine
from ast_cli.engine.options import TORCH_ENGINES, EngineName
from ast_cli.errors import AstWarning, AudioError, CheckpointError, UsageError
from ast_cli.hub.folders import default_model, describing_folder, exported_file, thresholds_file
from ast_cli.hub.licenses import LICENSE_KEY, license_id, license_of
from ast_cli.model.arrays import load_arrays
from ast_cli.model.config import ASTConfig
from ast_cli.results import TaggingResult
from ast_cli.tagging.decode.opening import Turn
from ast_cli.tagging.extract.extraction import NEEDS_TORCH, Extraction, extract_features
from ast_cli.tagging.inputs import Input, list_inputs
from ast_cli.tagging.options import ClassifyOptions, DecodeOptions, ExtractOptions, LoadOptions
from ast_cli.tagging.score.classify import classify_inputs, classify_turns
from ast_cli.tagging.score.recording import Audio, open_stream, recordings_of
from ast_cli.tagging.thresholds import model_thresholds


class Tagger:
    """Tags recordings with the labels of a checkpoint; usually made by `from_pretrained`.

    Args:
        engine: The loaded model.
        feature_extractor: Feature extractor of the same checkpoint.
        name: Name of the checkpoint, repeated in results.

    Raises:
        CheckpointError: If model and feature extractor do not fit each other.
    """

    def __init__(self, engine: Engine, feature_extractor: FeatureExtractor, name: str) -> None:
        check_fit(engine.config, feature_extractor, name)
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.name = name
        self.license: str | None = None  # SPDX identifier of the license of the weights; set as the next
        self._thresholds_file: Path | None = None  # set where the model is loaded by its name
        self._load_in_torch: Callable[[], Engine] | None = None  # set where `auto` chose another engine than torch

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        engine: EngineName = "auto",
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        fbank_backend: FbankBackend = "native",
        front_end: FrontEndName | None = None,
        unnamed_labels: bool = False,
        num_threads: int | None = None,
        report_progress: Callable[[str], None] = lambda _what: None,
    ) -> Tagger:
        """Load a checkpoint for tagging.

        Args:
            model: ``builtin``, a folder, an alias (``audioset``, ``fast``), a hub id, an original ``.pth`` file, or a
                folder or file written by ``ast export``; None for ``AST_MODEL``, else the AudioSet checkpoint if it
                has been downloaded, else the built-in model.
            engine: Engine that runs the model: ``torch``, ``compile`` (torch's compiler), ``onnxruntime`` or
                ``openvino``. ``auto`` chooses as the command does, so that both can continue each other's output: torch
                on a GPU, in half precision and with eager attention, otherwise a runtime, which starts without torch.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            dtype: Data type of the weights: ``auto``, ``float32``, ``float16``, ``bfloat16`` or ``tf32``.
            attn_implementation: ``sdpa`` or ``eager``.
            fbank_backend: ``native``, or ``torchaudio`` if that is installed; ``native`` runs in NumPy with an engine
                that does not need torch.
            front_end: ``audioset`` or ``speech-commands``; needed only for a checkpoint that has no
                ``preprocessor_config.json`` and whose labels do not identify its front end.
            unnamed_labels: Whether a checkpoint without names of its labels is accepted, with ``LABEL_n`` as names.
            num_threads: Number of CPU threads of the engine (of torch: in the whole process); None for the number of
                cores.
            report_progress: Function that is called with a message before slow work that is done once, such as the
                conversion or compilation of a model.

        Raises:
            EngineMissingError: If the package of the engine is not installed.
            CheckpointError: If the checkpoint is damaged, of another kind, or inconsistent.
            HubError: If the checkpoint is not on this machine.
            DeviceError: If the device is not available.
        """
        options = LoadOptions(
            engine,
            device,
            dtype,
            attn_implementation,
            unnamed_labels,
            num_threads,
            fbank_backend,
            front_end,
        )
        return cls.load(model, options, report_progress)

    @classmethod
    def load(
        cls,
        model: str | Path | None,
        options: LoadOptions,
        report_progress: Callable[[str], None] = lambda _what: None,
    ) -> Tagger:
        """Load a checkpoint like `from_pretrained`, with the options in one object."""
        name = str(model) if model is not None else default_model()
        engine = load_engine(name, options, report_progress)
        backend = fbank_for(engine, options.fbank_backend)
        tagger = cls(engine, extractor_for(name, engine.config, backend, options.front_end), name)
        tagger.license = license_of(name) or license_id(engine.config.extra.get(LICENSE_KEY))
        tagger._thresholds_file = thresholds_file(name)
        if options.engine == "auto" and engine.name not in TORCH_ENGINES and exported_file(name) is None:
            in_torch = dataclasses.replace(options, engine="torch")
            tagger._load_in_torch = lambda: load_engine(name, in_torch, report_progress)
        return tagger

    @property
    def config(self) -> ASTConfig:
        """Configuration of the model, with its labels."""
        return self.engine.config

    @cached_property
    def thresholds(self) -> Mapping[str, float]:
        """Thresholds that come with the checkpoint in ``thresholds.json``, by label; empty if it has none.

        ``events`` uses them where the options contain no threshold. The file is read when it is first needed.

        Raises:
            CheckpointError: If the file is damaged, or belongs to a model with other labels.
        """
        if self._thresholds_file is None:
            return {}
        return model_thresholds(self._thresholds_file, self.config.id2label)

    def classify(
        self,
        audio: Audio,
        *,
        sampling_rate: int | None = None,
        options: ClassifyOptions | None = None,
        **changes: Any,
    ) -> TaggingResult:
        """Tag one recording; for several files see `classify_paths`.

        Args:
            audio: A path, the bytes of one encoded file, a binary file open for reading, or a mono waveform of shape
                (num_samples,).
            sampling_rate: Sampling rate of a waveform in Hz; the waveform is resampled to the model's rate if needed.
            options: Options of the tagging; None for the defaults.
            **changes: Single fields of `ClassifyOptions`, e.g. ``top_k=3, timestamps=True``.

        Returns:
            The result; with ``channels="each"`` its ``channels`` are the results of the channels.

        Raises:
            AudioError: If the recording cannot be read. In `classify_paths` this is a result with an error instead.
            UsageError: If an option is invalid, or a waveform is not mono.
        """
        options = dataclasses.replace(options or ClassifyOptions(), **{**changes, "stream": False})
        _check_one_recording(audio, "classify", "classify_paths tags several files")
        path = str(audio) if isinstance(audio, str | Path) else None
        stream = open_stream(audio, self.feature_extractor.sampling_rate, options, sampling_rate)
        (result,) = classify_turns(self, [Turn(Input(path or "the waveform"), lambda: stream)], options)
        assert isinstance(result, TaggingResult)
        if result.error is not None:
            raise AudioError(result.error.code, result.error.message)
        channels = tuple(dataclasses.replace(channel, path=path) for channel in result.channels)
        return dataclasses.replace(result, path=path, channels=channels)

    def classify_paths(
        self,
        paths: Iterable[str | Path],
        options: ClassifyOptions | None = None,
        workers: DecodeOptions | None = None,
        *,
        exclude: Sequence[str] = (),
        **changes: Any,
    ) -> Iterator[TaggingResult]:
        """Tag many files and yield a result for each.

        Files are decoded in processes of their own while the model runs, and windows of several files share a batch.
        An input that cannot be read or crashes its decoder is a result whose ``error`` says why; the others are not
        affected. Nothing is read before the first result is taken, and results that are not taken are not computed, so
        memory does not grow with the number of files.

            for result in tagger.classify_paths(["recordings/", "more/*.flac"], top_k=3):
                print(result.path, result.error or result.tags)

        ``workers=DecodeOptions(num_workers=0)`` decodes in the calling process. `ast_cli.tag_files` writes the results
        to a file and continues runs that were stopped.

        Args:
            paths: Files, folders, glob patterns, or ``-`` for the bytes of one file on standard input. Folders are
                searched for audio files; hidden files in them are left out. A file that is named twice, or by a
                symbolic link too, is tagged once.
            options: Options of the tagging; None for the defaults.
            workers: Number of decoding processes, and the time after which a file that yields nothing counts as
                failed; None for the defaults.
            exclude: Glob patterns of names and paths that are left out of folders and patterns.
            **changes: Single fields of `ClassifyOptions`, e.g. ``labels=("Speech",), timestamps=True``; ``stream`` has
                no effect.

        Yields:
            One result for each input, in the order of the inputs, as soon as it and those before it are complete.

        Raises:
            UsageError: If an option is invalid, the model does not have a label, or ``paths`` is a single path.
            DeviceError: If not even a single window fits into the device's memory.
        """
        if isinstance(paths, str | Path):
            raise UsageError(f"paths must be a list of paths, not the single path {str(paths)!r}")
        options = dataclasses.replace(options or ClassifyOptions(), **{**changes, "stream": False})
        inputs = list_inputs((str(path) for path in paths), exclude=exclude)
        for record in classify_inputs(self, inputs, options, workers):
            assert isinstance(record, TaggingResult)
            yield record

    def extract(
        self, audio: Audio, *, sampling_rate: int | None = None, options: ExtractOptions | None = None, **changes: Any
    ) -> Extraction:
        """Return features, embeddings, logits, hidden states or attentions of one recording.

        Args:
            audio: Recording as in `classify`.
            sampling_rate: Sampling rate of a waveform in Hz, as in `classify`.
            options: Options of the extraction; None for the embedding.
            **changes: Single fields of `ExtractOptions`, e.g. ``what="logits"``.

        Raises:
            AudioError: If the recording cannot be read.
            UsageError: If an option is invalid, or a waveform is not mono.
        """
        options = dataclasses.replace(options or ExtractOptions(), **changes)
        _check_one_recording(audio, "extract", "call it for each")
        stream = open_stream(audio, self.feature_extractor.sampling_rate, options, sampling_rate)
        engine = self._torch_engine if options.what in NEEDS_TORCH else self.engine
        return extract_features(recordings_of(stream, self.feature_extractor, options), engine, options)

    @cached_property
    def _torch_engine(self) -> Engine:
        """The model in torch, loaded when it is first needed; the tagger's own engine if the user named that one."""
        return self.engine if self._load_in_torch is None else self._load_in_torch()


def _check_one_recording(audio: object, method: str, remedy: str) -> None:
    """Check that the argument of a method is not a list of paths.

    Raises:
        UsageError: If it is.
    """
    if isinstance(audio, list | tuple | set) and any(isinstance(path, str | Path) for path in audio):
        raise UsageError(f"{method} takes one recording, not {len(audio)} paths: {remedy}")


def fbank_for(engine: Engine, fbank_backend: FbankBackend) -> FbankBackend:
    """Return the filter bank that suits an engine: the native one runs in NumPy if the engine does not need torch."""
    return "numpy" if fbank_backend == "native" and engine.name not in TORCH_ENGINES else fbank_backend


def extractor_for(
    name: str,
    config: ASTConfig | None,
    fbank_backend: FbankBackend = "native",
    front_end: FrontEndName | None = None,
) -> FeatureExtractor:
    """Return a checkpoint's feature extractor.

    Args:
        name: Name of the checkpoint.
        config: Configuration of its model; None if no model is loaded.
        fbank_backend: Implementation of the filter bank.
        front_end: Front end of a checkpoint that does not define one, and whose labels do not identify it.

    Raises:
        CheckpointError: If neither the checkpoint nor its labels nor ``front_end`` define a front end.
    """
    exported = exported_file(name)
    if exported is not None and describing_folder(exported) is None:
        return extractor_inside(exported, fbank_backend, front_end)
    if config is None and is_original(name):
        _, config = load_arrays(name, unnamed_labels=True)
    values = None if config is None else config.to_dict()
    return FeatureExtractor.from_pretrained(name, front_end=front_end, config=values, fbank_backend=fbank_backend)


def check_fit(config: ASTConfig, feature_extractor: FeatureExtractor, name: str) -> None:
    """Check that the model and the feature extractor of a checkpoint fit each other.

    Raises:
        CheckpointError: If they do not; the message names the field that differs.
    """
    for field in ("num_mel_bins", "max_length"):
        of_model, of_features = getattr(config, field), getattr(feature_extractor, field)
        if of_model != of_features:
            raise CheckpointError(
                f"{name}: its config.json says {field} {of_model} and its preprocessor_config.json {of_features}; "
                "one of them belongs to another model"
            )
    if feature_extractor.sampling_rate != feature_extractor.published_rate:
        warnings.warn(
            f"{name} takes audio at {feature_extractor.sampling_rate} Hz, every published model of "
            f"{feature_extractor.title} at {feature_extractor.published_rate} Hz: check its preprocessor_config.json",
            AstWarning,
            stacklevel=3,
        )
