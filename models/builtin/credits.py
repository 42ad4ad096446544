"""Print the credits for the training data of the built-in model, as Markdown for its card.

    python models/builtin/credits.py DATA

DATA holds ``esc10`` and ``speech_music`` with their ``meta.csv``. CC BY requires author, work and license; clips
without this requirement are only counted.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from corpus import UNWANTED_LICENSE, read_csv

ATTRIBUTION = ("CC BY", "CC-BY")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    print("\n".join([*esc10_credits(data / "esc10"), "", *recording_credits(data / "speech_music")]))


def esc10_credits(folder: Path) -> Iterable[str]:
    """Name the authors of clips under CC BY, with what each clip is called and its number at freesound.org."""
    clips = [clip for clip in read_csv(folder / "meta.csv") if UNWANTED_LICENSE not in clip["licence"]]
    owed, free = _divided(clips)
    by_author: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in owed:
        number = clip["source"].rstrip("/").rpartition("/")[2]
        by_author[clip["author"]][f"{clip['title']} ({number})"] += 1
    yield (
        f"ESC-10 (K. J. Piczak, 2015): {len(free)} of its {len(clips)} clips used are in the public domain (CC0); the "
        f"other {len(owed)} are under CC BY and were cut from these sounds of freesound.org (title, number):"
    )
    yield ""
    for author in sorted(by_author, key=str.casefold):
        yield f"- {author}: {'; '.join(by_author[author])}"


def recording_credits(folder: Path) -> Iterable[str]:
    """Name the recordings of speech and music."""
    owed, free = _divided(read_csv(folder / "meta.csv"))
    yield "Recordings of speech, music and others under CC BY:"
    yield ""
    for recording in owed:
        yield f"- {recording['title']}, {recording['licence']}"
    yield ""
    yield f"In the public domain or CC0: {'; '.join(recording['title'] for recording in free)}."


def _divided(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the rows that require attribution, and the others."""
    owed = [row for row in rows if row["licence"].startswith(ATTRIBUTION)]
    return owed, [row for row in rows if row not in owed]


if __name__ == "__main__":
    main()
