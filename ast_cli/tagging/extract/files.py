"""Extraction of many inputs into files, each whole or not there at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save as save_safetensors

from ast_cli.audio.channels import MIX
from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.engine.interface import Engine
from ast_cli.errors import AudioError
from ast_cli.files.atomic import replacing, writing
from ast_cli.hub.folders import exported_file
from ast_cli.results import FileError, path_fields
from ast_cli.tagging.decode.opening import Turn, Workers, open_inputs
from ast_cli.tagging.extract.extraction import NEEDS_NO_MODEL, NEEDS_TORCH, Extraction, extract_features
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ExtractOptions, LoadOptions
from ast_cli.tagging.score.batch import file_error
from ast_cli.tagging.score.recording import recordings_of
from ast_cli.tagging.tagger import Tagger, extractor_for


@dataclass(frozen=True, slots=True)
class ExtractedFile:
    """How one input ended: a summary of what was written, or an error."""

    summary: str = ""
    warnings: tuple[str, ...] = ()
    error: FileError | None = None


@dataclass(frozen=True, slots=True)
class ExtractionRun:
    """A feature extractor, a model where one is needed, and what to extract."""

    model: str | None
    feature_extractor: ASTFeatureExtractor
    engine: Engine | None
    options: ExtractOptions

    @classmethod
    def load(
        cls,
        model: str | None,
        options: ExtractOptions,
        load_options: LoadOptions,
        report_progress: Callable[[str], None] = lambda _what: None,
    ) -> ExtractionRun:
        """Load what the extraction needs and no more."""
        if model is None:
            return cls(None, ASTFeatureExtractor(fbank_backend=load_options.fbank_backend), None, options)
        if options.what in NEEDS_NO_MODEL:
            extractor = extractor_for(model, None, load_options.fbank_backend, load_options.front_end)
            return cls(model, extractor, None, options)
        if load_options.engine == "auto" and options.what in NEEDS_TORCH and exported_file(model) is None:
            load_options = dataclasses.replace(load_options, engine="torch")
        tagger = Tagger.load(model, load_options, report_progress)
        return cls(model, tagger.feature_extractor, tagger.engine, options)

    def extract(
        self, inputs: Sequence[Input], targets: Sequence[Path], workers: Workers | None = None
    ) -> Iterator[tuple[Input, Path, ExtractedFile]]:
        """Extract each input into its file, in order; one that cannot be read is an outcome with an error.

        Args:
            inputs: Decoded some inputs ahead.
            targets: One an input.
            workers: Processes that decode, or how to start them; None for the defaults.

        Raises:
            AstError: A file cannot be written.
        """
        with open_inputs(inputs, self.feature_extractor.sampling_rate, self.options, workers) as turns:
            for turn, target in zip(turns, targets, strict=True):
                yield turn.item, target, self._extract_into(turn, target)

    def _extract_into(self, turn: Turn, target: Path) -> ExtractedFile:
        item = turn.item
        if item.error is not None:
            return ExtractedFile(error=item.error)
        try:
            recordings = recordings_of(turn.open_stream(), self.feature_extractor, self.options)
            extraction = extract_features(recordings, self.engine, self.options)
        except AudioError as error:
            return ExtractedFile(error=file_error(item, error))
        write_extraction(extraction, target, self._facts(item, extraction))
        shapes = (f"{name} {'x'.join(map(str, array.shape))}" for name, array in extraction.arrays.items())
        return ExtractedFile(", ".join(shapes), extraction.warnings)

    def _facts(self, item: Input, extraction: Extraction) -> dict[str, Any]:
        """Return what a file of numbers should say about itself."""
        facts: dict[str, Any] = {
            **path_fields(item.path),
            "what": extraction.what,
            "model": self.model,
            "duration_s": extraction.duration_s,
            "sampling_rate": extraction.sampling_rate,
            "num_channels": extraction.num_channels,
        }
        if self.options.channels != MIX:
            facts["channels"] = self.options.channels
        if extraction.what == "logits" and self.engine is not None:
            facts["id2label"] = self.engine.config.id2label
        return facts


def write_extraction(extraction: Extraction, target: Path, facts: dict[str, Any]) -> None:
    """Write arrays to a file, by its suffix; a file that was there is replaced whole.

    ``npz`` holds every array and ``metadata``, a string of JSON; ``safetensors`` the same with the JSON in its own
    metadata; ``npy`` the main array alone.

    Raises:
        AstError: The file cannot be written.
    """
    with writing(target), replacing(target) as file:
        _write_arrays(extraction, file, target.suffix.lower(), json.dumps(facts))


def _write_arrays(extraction: Extraction, file: BinaryIO, suffix: str, metadata: str) -> None:
    if suffix == ".npy":
        np.save(file, extraction.main, allow_pickle=False)
    elif suffix == ".safetensors":
        arrays = {name: np.ascontiguousarray(array) for name, array in extraction.arrays.items()}
        file.write(save_safetensors(arrays, metadata={"ast": metadata}))
    else:
        named: dict[str, Any] = {**extraction.arrays, "metadata": np.array(metadata)}
        np.savez(file, **named)
