"""Writes the built-in model's card from its measurements and the tables of its sources, and puts all into the package.

    python models/builtin/card.py CORPUS MODEL ast_cli/assets/builtin [--data DATA]

The text around the figures is ``card.md``; with DATA, the credits of ESC-10 and the recordings are made anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from string import Template
from typing import Any

from corpus import HERE, SAMPLING_RATE, read_tsv
from credits import esc10_credits, recording_credits

MAX_BYTES = 12_000_000  # of the weights
FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "thresholds.json", "labels.json")
CREDITS = HERE / "credits.md"
TEACHER_LIMIT = ".869 / .762 / .835; .920 / .831 / .893"  # of limit.py: at 10 dB less; through Opus at 32 kbit/s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("package", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    num_bytes = (options.model / "model.safetensors").stat().st_size
    if num_bytes > MAX_BYTES:
        raise SystemExit(f"{num_bytes:,} bytes are too many: the wheel may have {MAX_BYTES:,}")
    if options.data:
        lines = [*esc10_credits(options.data / "esc10"), "", *recording_credits(options.data / "speech_music")]
        CREDITS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((options.model / "metrics.json").read_text(encoding="utf-8"))
    rows = read_tsv(options.corpus / "index.tsv")
    options.package.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(options.model / name, options.package / name)
    text = Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        facts(metrics, rows, num_bytes) | size_facts(config, num_bytes)
    )
    (options.package / "README.md").write_text(text, encoding="utf-8")
    print(f"{options.package}: {num_bytes:,} bytes")


def facts(metrics: dict[str, Any], rows: list[dict[str, str]], num_bytes: int) -> dict[str, str]:
    """Return what ``card.md`` has names for."""
    hours = {split: sum(int(r["length"]) for r in rows if r["split"] == split) for split in ("train", "test")}
    named, recordings = metrics["named"], metrics["speech_music_recordings"]
    esc10, instruments = metrics.get("esc10"), metrics.get("rendered-instruments")
    found = {
        "megabytes": f"{num_bytes / 1e6:.1f}",
        "hours": f"{hours['train'] / SAMPLING_RATE / 3600:.1f}",
        "held_out_hours": f"{hours['test'] / SAMPLING_RATE / 3600:.1f}",
        "pieces": f"{sum(row['split'] == 'train' for row in rows):,}",
        "known_pieces": f"{sum(row['split'] == 'train' and bool(row['labels']) for row in rows):,}",
        "windows": f"{metrics['held_out_windows']:,}",
        "top1": f"{metrics['top1_agreement']:.3f}",
        "top5": f"{metrics['top5_overlap']:.3f}",
        "map": f"{metrics['mAP']:.3f}",
        "map_classes": str(metrics["mAP_classes"]),
        "named": f"{share(named, 'first')} / {share(named, 'among_three')}",
        "named_recordings": str(named["recordings"]),
        "named_kinds": str(len({row["kind"] for row in read_tsv(HERE / "named.tsv")})),
        "teacher_limit": TEACHER_LIMIT,
        "speech_music": f"{recordings['first']} of {recordings['recordings']}",
        "calibration": f"{metrics['calibration']['expected_calibration_error']:.4f}",
        "calibration_classes": str(metrics["calibration"]["classes"]),
        "reliability": reliability_table(metrics["calibration"]["bins"]),
        "unproven": str(metrics["unproven_labels"]),
        "sources": sources_table(rows),
        "credits": CREDITS.read_text(encoding="utf-8").strip() if CREDITS.exists() else "",
    }
    found["esc10"] = ranks(esc10) if esc10 else "-"
    found["esc10_clips"] = str(esc10["windows"]) if esc10 else "0"
    found["esc10_with_ancestors"] = f"{esc10['top1_with_ancestors']:.2f}" if esc10 else "-"
    found["instruments"] = ranks(instruments) if instruments else "-"
    found["instrument_clips"] = str(instruments["windows"]) if instruments else "0"
    return found


def size_facts(config: dict[str, Any], num_bytes: int) -> dict[str, str]:
    """Return how large the model is; float16 takes two bytes a parameter."""
    sizes = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
    return {name: str(config[key]) for name, key in sizes.items()} | {"parameters": f"{num_bytes / 2e6:.1f}"}


def share(judged: dict[str, Any], what: str) -> str:
    """Return how many of the judged recordings are right, as a share."""
    return f"{judged[what] / max(1, judged['recordings']):.2f}"


def ranks(result: dict[str, float]) -> str:
    return f"{result['top1']:.2f} / {result['top3']:.2f}"


def reliability_table(bins: list[dict[str, Any]]) -> str:
    """Return the reliability diagram as a table, with a bar for the share that is right."""
    lines = ["| Scores | Number | Mean score | Right | |", "|---|---|---|---|---|"]
    for each in bins:
        if each["num_scores"]:
            bar = "#" * round(20 * each["fraction_right"])
            numbers = f"{each['num_scores']:,} | {each['mean_score']:.3f} | {each['fraction_right']:.3f}"
            lines.append(f"| {each['low']:.2f} to {each['high']:.2f} | {numbers} | `{bar}` |")
    return "\n".join(lines)


def sources_table(rows: list[dict[str, str]]) -> str:
    """Return the sources by license: how many minutes, and of which packages."""
    licenses = {row["package"]: row["licences"] for row in read_tsv(HERE / "sources.tsv")}
    minutes: Counter[str] = Counter()
    packages: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if license_names := licenses.get(row["package"]):
            minutes[license_names] += int(row["length"])
            packages[license_names].add(row["package"])
    lines = ["| Licenses | Minutes | Packages |", "|---|---|---|"]
    for names, samples in minutes.most_common():
        lines.append(f"| {names} | {samples / SAMPLING_RATE / 60:.0f} | {', '.join(sorted(packages[names]))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
