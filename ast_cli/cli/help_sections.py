"""The help of a command: its options under headings, the most frequent first, at the width of the terminal.

Typer groups options only through rich, whose import takes longer than the whole start-up of a light command. The format
here is plain text and the same with every version of Typer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

OTHER = "Options"
LEFT_COLUMN = 28  # characters at most; a longer option has its help on the next line

# Every option by heading. The order is that of the help, in each command that has the option.
SECTIONS: dict[str, Sequence[str]] = {
    "Input": (
        *("--start", "--duration", "--channels", "--exclude", "--files-from", "--null"),
        *(
            "--results",
            "--soft-targets",
            "--split",
            "--fold",
            "--folds",
            "--ignore-unknown-labels",
            "--only-data-labels",
        ),
        "--padded",
    ),
    "What to report": (
        *("--search", "--tree", "--top-k", "--threshold", "--labels", "--exclude-labels", "--by-genre", "--specific"),
        *(
            "--matches-only",
            "--timestamps",
            "--events",
            "--aggregate",
            "--hop",
            "--windows",
            "--thresholds",
            "--activation",
        ),
        *("--what", "--all-windows", "--tolerance"),
    ),
    "Output": (
        *("--output", "--output-dir", "--format", "--json", "--resume", "--retry-errors", "--force"),
        *("--unordered", "--plot"),
        *("--predictions", "--thresholds-output", "--apply", "--calibrate", "--features", "--keep-checkpoint"),
        *("--list", "--revision", "--exit-code", "--report", "--answers", "--embed-mb", "--results-only"),
    ),
    "Model": (
        *("--model", "--recipe", "--engine", "--device", "--dtype", "--attn", "--batch-size", "--threads"),
        *("--unnamed-labels", "--front-end", "--fbank"),
    ),
    "Measurement": ("--compare", "--repeats", "--warmup"),
    "Run": (
        *("--workers", "--timeout", "--max-errors", "--fail-fast", "--shard", "--dry-run", "--all"),
        *("--verbose", "--quiet", "--version", "--debug", "--help"),
    ),
    "Live input": ("--stream", "--raw-rate", "--raw-format", "--raw-channels"),
    "Settings: objective": ("--freeze-encoder", "--loss", "--label-smoothing", "--soft-weight", "--new-head"),
    "Settings: duration and learning rate": (
        *("--epochs", "--learning-rate", "--patience", "--validation-fraction", "--validate-every", "--seed"),
        *("--schedule", "--warmup-epochs", "--warmup-steps", "--step-start", "--step-every", "--step-factor"),
    ),
    "Settings: augmentation": (
        *("--mixup", "--mixup-alpha", "--frequency-mask", "--time-mask", "--num-masks", "--gain-db", "--time-shift"),
        *("--stretch", "--filter-db", "--noise", "--token-drop", "--balanced"),
    ),
    "Settings: input": (
        *("--normalize", "--max-length", "--num-mel-bins", "--frequency-stride", "--time-stride", "--random-crop"),
        "--max-clip-s",
    ),
    "Settings: optimizer": (
        *("--optimizer", "--gradient-accumulation", "--weight-decay", "--layer-decay", "--head-factor"),
        *("--muon-factor", "--beta1", "--beta2", "--max-gradient-norm", "--precision", "--checkpoint-gradients"),
    ),
    "Settings: weights to keep": ("--keep", "--average", "--ema-decay", "--average-start"),
}
_PLACES = {flag: (section, place) for section, flags in SECTIONS.items() for place, flag in enumerate(flags)}
_TYPE_NAMES = {"int": "N", "integer": "N", "float": "NUMBER", "str": "TEXT", "text": "TEXT", "list": "TEXT"}


def write_rows(formatter: Any, heading: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write one section of two columns; nothing where it has no rows."""
    if rows:
        with formatter.section(heading):
            formatter.write_dl([(left.ljust(LEFT_COLUMN), right) for left, right in rows], col_max=LEFT_COLUMN)


def sections_of(params: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each heading with the options of a command below it, in the order of `SECTIONS`."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for param in params:
        if not is_argument(param) and not getattr(param, "hidden", False):
            section, place = _PLACES.get(flag_of(param), (OTHER, 0))
            found.setdefault(section, []).append((place, param))
    for section in (OTHER, *SECTIONS):
        if section in found:
            yield section, [param for _, param in sorted(found[section], key=lambda pair: pair[0])]


def is_argument(param: Any) -> bool:
    """Return whether a parameter of a command is an argument, not an option."""
    return bool(param.param_type_name == "argument")


def flag_of(option: Any) -> str:
    """Return an option's long name, such as ``--top-k``."""
    return str(next((name for name in option.opts if name.startswith("--")), option.opts[0]))


def names_of(option: Any) -> str:
    """Return an option's names and the placeholder of its value: ``-k, --top-k N``."""
    names = sorted(option.opts, key=lambda name: name.startswith("--"))  # the short name first
    if option.secondary_opts:
        return f"{', '.join(names)} / {', '.join(option.secondary_opts)}"
    return ", ".join(names) if option.is_flag else f"{', '.join(names)} {metavar_of(option)}"


def metavar_of(param: Any) -> str:
    """Return the placeholder of a parameter's value: its own, its choices, or a word for its type."""
    if param.metavar:
        return str(param.metavar)
    kind = getattr(param, "type_descriptor", None)  # Typer's since 0.25; Click's type before
    choices = getattr(kind or param.type, "choices", None)
    if choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    name = param.type.name if kind is None else getattr(kind.annotation, "__name__", "")
    return _TYPE_NAMES.get(name, "PATH")


def help_of(param: Any, configured: Any = None) -> str:
    """Return a parameter's help with its default, and with the one that a file or a variable sets instead."""
    text = param.help or ""
    if configured is not None:
        return f"{text} [configured: {shown_value(configured)}]"
    default = param.default
    has_default = default not in (None, False, ()) and default != [] and not callable(default)
    if has_default and param.show_default is not False and not is_argument(param):
        text += f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"
    if param.required and not is_argument(param):
        text += " [required]"
    return text


def shown_value(value: Any) -> str:
    """Return an option's value as a user would write it: ``-`` where there is none."""
    if isinstance(value, list | tuple):
        return ",".join(str(each) for each in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
