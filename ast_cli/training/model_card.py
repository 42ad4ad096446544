"""The model card of a checkpoint: results, data, training, and limits."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import torch

from ast_cli import __version__
from ast_cli.dataset.examples import ExampleSet
from ast_cli.errors import AstError
from ast_cli.evaluation.agreement import Agreement
from ast_cli.evaluation.metrics import Metrics, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.hub.licenses import LICENSE_KEY, is_noncommercial, license_id
from ast_cli.hub.names import AST_EXTRACTOR, BUILTIN, repo_id_of
from ast_cli.model.config import activation_of
from ast_cli.model.form import AST
from ast_cli.report.text import counted, printable, waiting_time
from ast_cli.training.finetune_result import FinetuneResult, TaughtResult

MAX_CLASSES = 60  # rows in a table of classes


def model_card(result: FinetuneResult) -> str:
    """Return the card as Markdown, with the front matter that the hub reads."""
    sections = (_front_matter, _summary, _use, _results, _data, _training, _limits)
    return "\n\n".join(section(result) for section in sections) + "\n"


def _front_matter(result: FinetuneResult) -> str:
    lines = ["---", "pipeline_tag: audio-classification", "tags:", "- audio-classification"]
    lines.append(f"- {result.config.model_type}")
    if (repo := _repo_of(result.base)) is not None:
        lines.append(f"base_model: {repo}")
    if (stated := license_id(result.config.extra.get(LICENSE_KEY))) is not None:
        lines.append(f"license: {stated.lower()}")  # as the hub spells it
    return "\n".join([*lines, "---"])


def _repo_of(base: str) -> str | None:
    """Return the hub id of the base model; None if it does not come from the hub."""
    if base == BUILTIN or base.startswith("scratch:") or os.path.exists(base):
        return None
    try:
        return repo_id_of(base)
    except AstError:
        return None


def _summary(result: FinetuneResult) -> str:
    config, extractor = result.config, result.feature_extractor
    name = "An Audio Spectrogram Transformer" if config.form == AST else "An Efficient Audio Transformer (EAT)"
    kind = "any number of labels per clip" if activation_of(config) == "sigmoid" else "one label per clip"
    return (
        f"# Audio tagger with {config.num_labels} labels\n\n"
        f"{name} ({config.num_hidden_layers} layers, {config.hidden_size} wide) that scores "
        f"{kind}, from windows of {extractor.window_s:.2f} s at {extractor.sampling_rate / 1000:g} kHz. Training "
        f"started from {_base_in_words(result.base)}.{_license_in_words(result)}"
    )


def _license_in_words(result: FinetuneResult) -> str:
    """Return what the license of the base model means for these weights, after a space; nothing without one."""
    stated = license_id(result.config.extra.get(LICENSE_KEY))
    if not is_noncommercial(stated):
        return ""
    return f" Its weights are under {stated}, which forbids commercial use, and so are these."


def _base_in_words(base: str) -> str:
    if base.startswith("scratch:") or base.endswith(".json"):
        return "random weights"
    if base == BUILTIN:
        return f"the built-in model of ast-cli {__version__}"
    return _plain(_repo_of(base) or os.path.basename(os.path.abspath(base)))


def _use(result: FinetuneResult) -> str:
    # Of the front ends and the encoders, transformers has only AST's.
    is_ast = result.feature_extractor.feature_extractor_type == AST_EXTRACTOR and result.config.form == AST
    pipeline = ", or the audio-classification pipeline of transformers" if is_ast else ""
    return (
        "## Use\n\n```\nast classify recording.wav --model FOLDER\n```\n\n"
        f"In Python: `ast_cli.Tagger.from_pretrained(FOLDER).classify(path)`{pipeline}. Scores are a "
        f"{activation_of(result.config)} of the logits."
    )


def _results(result: FinetuneResult) -> str:
    lines = ["## Results"]
    for name, metrics in (("validation", result.validation), ("test", result.test)):
        if metrics is not None:
            lines += [
                f"### On {counted(metrics.num_examples, f'{name} clip')}",
                _headline(metrics),
                _class_table(metrics),
            ]
        if result.taught and name in result.taught.agreement:
            lines.append(_agreement_in_words(name, result.taught.agreement[name]))
    if result.validation is not None:
        lines.append(_validation_bias(result))
    if len(lines) == 1:
        lines.append("No clips were held out, so the quality of the model is unknown.")
    return "\n\n".join(lines)


def _headline(metrics: Metrics) -> str:
    if isinstance(metrics, SingleLabelMetrics):
        accuracy, low, high = map(_percent, (metrics.accuracy, *metrics.accuracy_interval))
        return f"Accuracy {accuracy} (95 % interval {low} to {high}), macro F1 {metrics.macro_f1:.3f}."
    auc = "" if metrics.mean_auc is None else f", mean AUC {metrics.mean_auc:.3f}"
    return f"Mean average precision {metrics.mean_average_precision:.3f}{auc}."


def _agreement_in_words(name: str, found: Agreement) -> str:
    """State how well the model agrees with its soft targets."""
    first_five = "" if found.top_5 is None else f", and of the first five labels {_percent(found.top_5)} are the same"
    return (
        f"Agreement with the soft targets of {counted(found.num_examples, f'{name} clip')}: the first label is the "
        f"same for {_percent(found.top_1)}{first_five}. The mean divergence is {found.divergence:.4f} nats."
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _class_table(metrics: Metrics) -> str:
    if isinstance(metrics, MultiLabelMetrics):
        rows = [(each.label, each.support, f"{each.average_precision:.3f}") for each in metrics.per_class]
        return _table(("Label", "Clips", "Average precision"), rows)
    cells = [(each.label, each.support, f"{each.recall:.3f}", f"{each.f1:.3f}") for each in metrics.per_class]
    return _table(("Label", "Clips", "Recall", "F1"), cells)


def _validation_bias(result: FinetuneResult) -> str:
    """State how the validation clips were chosen and whether they influenced the weights."""
    text = f"Validation is {result.splits.how}."
    if result.kept == "best":
        validated = [row for row in result.history if row["validation_metric"] is not None]
        by_loss = " by their loss" if result.taught else ""
        text += (
            f" The weights are the best of {len(validated)} validations on the same clips{by_loss}, so the validation "
            "results are somewhat optimistic."
        )
    elif result.options.patience:
        text += " The same clips decided when training stopped, so the validation results are somewhat optimistic."
    else:
        text += f" The choice of the weights ({_kept_in_words(result)}) does not depend on these clips."
    return text


def _kept_in_words(result: FinetuneResult) -> str:
    if result.kept == "average":
        return "a moving average" if result.options.average == "ema" else "the mean over epochs"
    return {"best": "the best on validation", "last": "those of the last epoch"}[result.kept]


def _data(result: FinetuneResult) -> str:
    sets = {"train": result.splits.train, "validation": result.splits.validation, "test": result.splits.test}
    used = {name: examples for name, examples in sets.items() if examples.examples}
    source = os.path.basename(os.path.abspath(result.splits.train.source))
    counts = {name: _counts(result, name) for name in used}
    labels = list(result.config.id2label.values())
    rows = [(label, *(counts[name][label] for name in used)) for label in labels]
    total = ("All clips", *(len(examples.examples) for examples in used.values()))
    left_out = f" {counted(len(result.failures), 'clip')} could not be read." if result.failures else ""
    targets = f" {_targets_in_words(result.taught, result)}" if result.taught else ""
    return f"## Data\n\nFrom {_plain(source)}.{left_out}{targets}\n\n" + _table(("Label", *used), [*rows, total])


def _targets_in_words(taught: TaughtResult, result: FinetuneResult) -> str:
    """State where the soft targets are from, and what the table counts."""
    teacher = os.path.basename(os.path.abspath(taught.teacher)) if taught.teacher else ""
    origin = f"the scores of {_plain(teacher)}, the teacher, in" if teacher else "the scores in"
    text = f"The targets are soft: {origin} {_plain(os.path.basename(taught.source))}"
    if taught.has_labels:
        weight = result.options.soft_weight
        how = "the larger of both" if weight is None else f"weight of the scores {weight:g}"
        text += f" and the clips' labels ({how})"
    counted_labels = "labels with a target of 0.5 or more" if result.splits.train.is_multi_label else "its first label"
    return f"{text}. A clip counts for {counted_labels}."


def _counts(result: FinetuneResult, name: str) -> Mapping[str, int]:
    """Return the number of clips of a split with each label."""
    if result.taught:
        return result.taught.label_counts[name]
    examples: ExampleSet = getattr(result.splits, name)
    return Counter(label for example in examples.examples for label in example.labels)


def _training(result: FinetuneResult) -> str:
    seconds = sum(row["seconds"] for row in result.history)
    last = result.history[-1] if result.history else None
    ended = f" Training loss at the end: {last['train_loss']:.4f}." if last else ""
    if result.diverged_epoch is not None:
        ended += f" **Training diverged**: the loss of epoch {result.diverged_epoch} was far above the initial loss."
    return (
        f"## Training\n\n{len(result.history)} epochs in {waiting_time(seconds)} on {result.device}, "
        f"{datetime.now(UTC).date().isoformat()}, ast-cli {__version__}, torch {torch.__version__}.{ended} "
        f"Weights saved: {_kept_in_words(result)}. `training_options.toml` contains all settings, `history.csv` and "
        "`curves.png` the course of training. "
        "`ast finetune DATA --model BASE --recipe training_options.toml --output FOLDER` repeats the run"
        f"{', with the same scores of the teacher' if result.taught else ''}."
    )


def _limits(result: FinetuneResult) -> str:
    lines = [
        "## Limits",
        "The model scores these labels only, for every sound.",
        "Results may be worse on recordings that differ from the training clips (other microphones, rooms, mixtures).",
    ]
    rare = [label for label, count in _counts(result, "train").items() if count < 20]
    if rare:
        lines.append(f"{len(rare)} of {result.config.num_labels} labels have fewer than 20 training clips.")
    return "\n\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table of at most `MAX_CLASSES` rows and the last one."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    shown = rows if len(rows) <= MAX_CLASSES + 1 else [*rows[:MAX_CLASSES], rows[-1]]
    lines += [f"| {' | '.join(_plain(str(cell)) for cell in row)} |" for row in shown]
    if len(shown) < len(rows):
        lines.append(f"\n{len(rows) - len(shown)} more labels are not shown.")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape text from outside so that it is shown literally and on one line, not as Markdown or HTML."""
    text = printable(" ".join(text.split()))
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text).replace("<", "&lt;")
