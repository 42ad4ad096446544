"""``ast stats``: measure the mean and standard deviation of a training set for the feature extractor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.completion import complete_models
from ast_cli.cli.counting import counting
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.errors import ExitCode
from ast_cli.results import SCHEMA_VERSION, path_fields
from ast_cli.tagging.options import DecodeOptions

if TYPE_CHECKING:
    from ast_cli.audio.feature_extractor import FeatureExtractor
    from ast_cli.audio.front_ends.unstated import FrontEndName
    from ast_cli.training.data.statistics import FbankStatistics


@with_flags
def stats(
    *,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="A folder per class, a manifest (.csv, .tsv, .jsonl), or any audio files and folders.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model whose feature extractor is used. [default: that of --apply, else AudioSet's]",
            show_default=False,
            autocompletion=complete_models,
        ),
    ] = None,
    num_mel_bins: Annotated[
        int | None, typer.Option("--num-mel-bins", help="Mel bins of the filter bank. [default: the extractor's]")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            metavar="FRAMES",
            help="Most frames counted per recording. [default: all; with --padded the extractor's length]",
        ),
    ] = None,
    front_end: p.FrontEnd = None,
    padded: Annotated[
        bool, typer.Option("--padded", help="Also count padding up to --max-length, as the original project does.")
    ] = False,
    split: p.Split = None,
    fold: p.Fold = None,
    exclude: p.Exclude = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="FOLDER", help="Checkpoint folder to write mean and std to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    decode: DecodeOptions,
    quiet: p.Quiet = False,
) -> None:
    """Compute the mean and standard deviation of a training set's log-mel energies.

    With these values in preprocessor_config.json the inputs of the model have mean 0 and standard deviation 0.5.

    Examples: `ast stats clips/`, `ast stats data.csv --split train --apply my-model/`
    """
    from ast_cli.dataset.examples import read_recordings

    examples = p.choose_examples(read_recordings(data, exclude or ()), split, fold, quiet=quiet)
    changes = {"num_mel_bins": num_mel_bins, "max_length": max_length}

    with quiet_native_libraries():
        from ast_cli.training.data.statistics import apply_statistics, compute_statistics, preprocessor_file

        if apply is not None:
            preprocessor_file(apply)  # raises before the recordings are decoded, which may take hours
        extractor = _feature_extractor(
            model or apply, front_end, {key: value for key, value in changes.items() if value is not None}
        )
        with counting("recordings", quiet=quiet) as on_progress:
            statistics = compute_statistics(
                examples.examples,
                extractor,
                max_frames=max_length,
                padded=padded,
                workers=decode,
                on_progress=on_progress,
            )
        for _, error in statistics.failures:
            note(f"error: {error.message}")
        _print_json(statistics, padded=padded) if as_json else _print_table(statistics)
        if apply is not None:
            note(f"written to {apply_statistics(statistics, apply)}", quiet=quiet)
    if statistics.failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _feature_extractor(
    model: str | Path | None, front_end: FrontEndName | None, changes: dict[str, Any]
) -> FeatureExtractor:
    from ast_cli.audio.feature_extractor import FeatureExtractor
    from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor

    own = ASTFeatureExtractor(**changes)  # validates the flags; the message then names no checkpoint
    return own if model is None else FeatureExtractor.from_pretrained(model, front_end=front_end, **changes)


def _print_json(statistics: FbankStatistics, *, padded: bool) -> None:
    failures = [
        {**path_fields(example.path), "error": {"code": str(error.code), "message": error.message}}
        for example, error in statistics.failures
    ]
    values = {"schema_version": SCHEMA_VERSION, "type": "statistics", **statistics.to_dict()}
    typer.echo(json.dumps({**values, "padded": padded, "failures": failures}, allow_nan=False))


def _print_table(statistics: FbankStatistics) -> None:
    padding = f", {statistics.num_padded_frames} of them padding" if statistics.num_padded_frames else ""
    typer.echo(f"mean  {statistics.mean:.7f}")
    typer.echo(f"std   {statistics.std:.7f}")
    typer.echo(
        f"over {statistics.num_frames} frames of {statistics.num_mel_bins} mel bins{padding}: "
        f"{statistics.num_examples} recordings, {statistics.duration_s:.1f} s"
    )
    typer.echo(f'in preprocessor_config.json: "mean": {statistics.mean:.7f}, "std": {statistics.std:.7f}')
