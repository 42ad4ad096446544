"""Tagger: a checkpoint ready to tag recordings, from Python."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.front_end import FbankBackend, FrontEndName, is_original
from ast_cli.audio.samples import MODEL_SAMPLING_RATE
from ast_cli.audio.windows import hop_frames_of
from ast_cli.engine.batch_size import BatchSize, choose_batch_size
from ast_cli.engine.choice import load_engine
from ast_cli.engine.graph.exported import extractor_inside
from ast_cli.engine.interface import Engine
from ast_cli.engine.options import TORCH_ENGINES, EngineName
from ast_cli.errors import AstWarning, AudioError, CheckpointError
from ast_cli.hub.folders import default_model, describing_folder, exported_file
from ast_cli.model.arrays import load_arrays
from ast_cli.model.config import ASTConfig
from ast_cli.results import StreamedPart, TaggingResult
from ast_cli.tagging.decode.opening import Turn, Watching, Workers, open_as_ready, open_inputs, unwatched
from ast_cli.tagging.extract.extraction import Extraction, extract_features
from ast_cli.tagging.inputs import Input, list_inputs
from ast_cli.tagging.options import ClassifyOptions, DecodeOptions, ExtractOptions, LoadOptions
from ast_cli.tagging.score.batch import Batcher, classify_turns
from ast_cli.tagging.score.recording import Audio, Recording, open_stream
from ast_cli.tagging.score.scoring import TagChooser


class Tagger:
    """Tags recordings with the labels of a checkpoint.

    Args:
        engine: The loaded model.
        feature_extractor: Of the same checkpoint.
        name: Of the checkpoint, repeated in results.

    Raises:
        CheckpointError: Model and feature extractor do not fit each other.
    """

    def __init__(self, engine: Engine, feature_extractor: ASTFeatureExtractor, name: str) -> None:
        check_fit(engine.config, feature_extractor, name)
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        engine: EngineName | None = None,
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
            model: ``builtin``, a folder, an alias (``audioset``, ``fast``), a hub id, an original ``.pth`` file, the
                folder or file that ``ast export`` wrote; None for ``AST_MODEL``, else the AudioSet checkpoint if it was
                fetched, else the built-in one.
            engine: What runs the model: ``torch``, ``compile``; ``openvino``, ``onnxruntime`` where they are
                installed; ``auto`` for the fastest that is; None for torch, or what an exported model was exported for.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            dtype: ``auto``, ``float32``, ``float16``, ``bfloat16``.
            attn_implementation: ``sdpa`` or ``eager``.
            fbank_backend: ``native``, which is ``numpy`` with an engine that needs no torch; or ``torchaudio`` where it
                is installed.
            front_end: ``audioset`` or ``speech-commands``, where the checkpoint brings no ``preprocessor_config.json``
                and its labels do not tell either.
            unnamed_labels: Take ``LABEL_n`` where the checkpoint does not name its labels.
            num_threads: Of the engine on the CPU, of torch in this whole process; None for as many as there are cores.
            report_progress: Is told what takes long and is done once: a model is converted, compiled.

        Raises:
            EngineMissingError: The engine's package is not installed.
            CheckpointError: The checkpoint is damaged, foreign, or at odds with itself.
            HubError: It is not on this machine.
            DeviceError: The device was asked for by name and is not there.
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
        """Load a checkpoint as `from_pretrained` does, which see, its options in one object."""
        name = str(model) if model is not None else default_model()
        engine = load_engine(name, options, report_progress)
        backend = fbank_for(engine, options.fbank_backend)
        return cls(engine, extractor_for(name, engine.config, backend, options.front_end), name)

    @property
    def config(self) -> ASTConfig:
        """The model's configuration, labels included."""
        return self.engine.config

    def classify(
        self,
        audio: Audio,
        *,
        sampling_rate: int | None = None,
        options: ClassifyOptions | None = None,
        **changes: Any,
    ) -> TaggingResult:
        """Tag one recording.

        Args:
            audio: A path, the bytes of one encoded file, or a mono waveform of shape (num_samples,).
            sampling_rate: Of a waveform, in Hz; it is resampled if it must be.
            options: How; None for the defaults.
            **changes: Single fields of `ClassifyOptions`, e.g. ``top_k=3, timestamps=True``.

        Raises:
            AudioError: The recording cannot be read; here, unlike in a batch, it is raised.
            UsageError: Options that cannot be, or a waveform that is not mono.
        """
        options = dataclasses.replace(options or ClassifyOptions(), **{**changes, "stream": False})
        path = str(audio) if isinstance(audio, str | Path) else None
        stream = open_stream(audio, self.feature_extractor.sampling_rate, options, sampling_rate)
        (result,) = self.classify_turns([Turn(Input(path or "the waveform"), lambda: stream)], options)
        assert isinstance(result, TaggingResult)
        if result.error is not None:
            raise AudioError(result.error.code, result.error.message)
        return dataclasses.replace(result, path=path)

    def classify_paths(
        self,
        paths: Iterable[str],
        options: ClassifyOptions | None = None,
        workers: DecodeOptions | None = None,
        **changes: Any,
    ) -> Iterator[TaggingResult]:
        """Tag many inputs; an input that cannot be read, or crashes its decoder, is a result with an error.

        Args:
            paths: Files, folders, glob patterns, or ``-`` for one file's bytes on standard input.
            options: How; None for the defaults.
            workers: How many processes decode, and how long they may take; None for the defaults.
            **changes: Single fields of `ClassifyOptions`.

        Returns:
            One result an input, in order, each as soon as it is complete.

        Raises:
            UsageError: Options that cannot be, a label the model does not have.
        """
        options = dataclasses.replace(options or ClassifyOptions(), **{**changes, "stream": False})
        for record in self.classify_inputs(list_inputs(paths), options, workers):
            assert isinstance(record, TaggingResult)
            yield record

    def classify_inputs(
        self,
        inputs: Iterable[Input],
        options: ClassifyOptions,
        workers: Workers | None = None,
        *,
        in_order: bool = True,
        batch_size: BatchSize | None = None,
        watching: Watching = unwatched,
    ) -> Generator[TaggingResult | StreamedPart, None, None]:
        """Tag inputs; with ``options.stream`` windows and events come before their input's result.

        Args:
            inputs: Taken from lazily.
            options: How.
            workers: Processes that decode, or how to start them; None for the defaults.
            in_order: Whether results come in the order of the inputs, or each as soon as it is complete.
            batch_size: How many windows the model is given at once; None to go by the options.
            watching: Is shown what opens each input; see `ast_cli.tagging.decode.opening.open_inputs`.
        """
        opened = open_inputs if in_order else open_as_ready
        with opened(inputs, self.feature_extractor.sampling_rate, options, workers, watching) as turns:
            yield from self.classify_turns(turns, options, batch_size, in_order=in_order)

    def classify_turns(
        self,
        turns: Iterable[Turn | None],
        options: ClassifyOptions,
        batch_size: BatchSize | None = None,
        *,
        in_order: bool = True,
    ) -> Iterator[TaggingResult | StreamedPart]:
        """Tag inputs that have been opened, or can be; otherwise as `classify_inputs`, in whose order they come."""
        return classify_turns(turns, self._batcher(options, batch_size), options, self.name, in_order=in_order)

    def _batcher(self, options: ClassifyOptions, batch_size: BatchSize | None) -> Batcher:
        chooser = self.check_options(options)
        return Batcher(
            self.engine,
            self.feature_extractor,
            chooser,
            batch_size or choose_batch_size(self.engine, options.batch_size),
        )

    def check_options(self, options: ClassifyOptions) -> TagChooser:
        """Refuse options that do not fit the model, before anything is read or written.

        Returns:
            What chooses the tags.

        Raises:
            UsageError: A hop beyond the window, a label the model does not have.
        """
        hop_frames_of(options.hop_s, self.feature_extractor.max_length)
        return TagChooser(self.config, options)

    def extract(
        self, audio: Audio, *, sampling_rate: int | None = None, options: ExtractOptions | None = None, **changes: Any
    ) -> Extraction:
        """Return features, embeddings, logits, hidden states or attentions of one recording.

        Args:
            audio: As in `classify`.
            sampling_rate: As in `classify`.
            options: What and how; None for the embedding.
            **changes: Single fields of `ExtractOptions`, e.g. ``what="logits"``.

        Raises:
            AudioError: The recording cannot be read.
            UsageError: Options that cannot be.
        """
        options = dataclasses.replace(options or ExtractOptions(), **changes)
        stream = open_stream(audio, self.feature_extractor.sampling_rate, options, sampling_rate)
        return extract_features(Recording(stream, self.feature_extractor, options), self.engine, options)


def fbank_for(engine: Engine, fbank_backend: FbankBackend) -> FbankBackend:
    """Return the form of our filter bank that suits an engine: NumPy's where nothing else needs torch."""
    return "numpy" if fbank_backend == "native" and engine.name not in TORCH_ENGINES else fbank_backend


def extractor_for(
    name: str,
    config: ASTConfig | None,
    fbank_backend: FbankBackend = "native",
    front_end: FrontEndName | None = None,
) -> ASTFeatureExtractor:
    """Return a checkpoint's feature extractor.

    Args:
        name: Of the checkpoint.
        config: Its model's configuration; None where no model is loaded.
        fbank_backend: Which filter bank.
        front_end: Where the checkpoint brings none, and its labels do not tell which it needs.

    Raises:
        CheckpointError: It brings none, and neither its labels nor the user tell which one fits.
    """
    exported = exported_file(name)
    if exported is not None and describing_folder(exported) is None:
        return extractor_inside(exported, fbank_backend, front_end)
    if config is None and is_original(name):
        _, config = load_arrays(name, unnamed_labels=True)
    values = None if config is None else config.to_dict()
    return ASTFeatureExtractor.from_pretrained(name, front_end=front_end, config=values, fbank_backend=fbank_backend)


def check_fit(config: ASTConfig, feature_extractor: ASTFeatureExtractor, name: str) -> None:
    """Refuse a checkpoint whose two halves are at odds.

    Raises:
        CheckpointError: Naming what differs.
    """
    for field in ("num_mel_bins", "max_length"):
        of_model, of_features = getattr(config, field), getattr(feature_extractor, field)
        if of_model != of_features:
            raise CheckpointError(
                f"{name}: its config.json says {field} {of_model} and its preprocessor_config.json {of_features}; "
                "one of them belongs to another model"
            )
    if feature_extractor.sampling_rate != MODEL_SAMPLING_RATE:
        warnings.warn(
            f"{name} hears {feature_extractor.sampling_rate} Hz, every published AST {MODEL_SAMPLING_RATE} Hz: is "
            "its preprocessor_config.json right?",
            AstWarning,
            stacklevel=3,
        )
