from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable

import pytest

from ast_cli.cli.model_table import table_text
from ast_cli.hub.names import CHECKPOINTS, SHORT_ALIASES, known_aliases
from ast_cli.model_list import ModelList, list_models

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NARROW = """\
name                     labels  window  quality  GMAC   MB  here  from
Sounds of AudioSet (quality: mAP)
builtin                     521  5.12 s        -   7.9   10  yes   builtin
audioset                    527  10.2 s   0.4593   765  346  no    AST
audioset-10-10-0.450        527  10.2 s     0.45   765  346  no    AST
audioset-10-10-0.448        527  10.2 s    0.448   765  346  no    AST
audioset-10-10-0.448-v2     527  10.2 s    0.448   765  346  no    AST
audioset-12-12-0.447        527  10.2 s    0.447   503  345  no    AST
audioset-14-14-0.443        527  10.2 s    0.443   376  345  no    AST
fast                        527  10.2 s    0.442   285  344  yes   AST
eat                         527  10.2 s    0.489   284  362  no    EAT
sslam                       527  10.2 s    0.502   284  362  no    SSLAM
Spoken words (quality: accuracy)
speech-commands              35  1.28 s   0.9812   601  342  no    AST
Music styles
maest                       519    30 s        -   392  348  no    MAEST
maest-400                   400    30 s        -   392  347  no    MAEST
maest-20s                   400    20 s        -   358  346  no    MAEST
maest-10s                   400    10 s        -   321  344  no    MAEST
maest-5s                    400     5 s        -   305  343  no    MAEST
Bird species (quality: cmAP)
birdset                     411     5 s     0.31  1566  346  no    BirdSet
birdset-xcl                9736     5 s     0.34  1566  375  no    BirdSet

GMAC: multiply-adds for a minute of audio, in units of 1e9. MB: size to
  download.

Licenses, and the papers that report the quality:
builtin  Apache-2.0; its card, ast_cli/assets/builtin/README.md
AST      BSD-3-Clause; Gong, Chung and Glass, 2021, arXiv:2104.01778
EAT      MIT; Chen and others, 2024, arXiv:2401.03497
SSLAM    MIT; Alex and others, 2025, openreview.net/forum?id=odU59TxdiB
MAEST    CC-BY-NC-SA-4.0, no commercial use; Alonso-Jiménez, Serra and Bogdanov,
  2023, arXiv:2309.16418
BirdSet  none stated; Rauch and others, 2024, arXiv:2403.10380
"""


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> ModelList:
    """Return the list on a machine that has the checkpoint ``fast`` alone."""
    fast = known_aliases()["fast"]
    monkeypatch.setattr("ast_cli.model_list.cached_folder", lambda repo_id: repo_id if repo_id == fast else None)
    return list_models()


def test_the_table_fits_80_columns(listed: ModelList) -> None:
    assert table_text(listed, 80) == NARROW
    assert max(map(len, NARROW.splitlines())) <= 80


@pytest.mark.parametrize("width", [120, None])
def test_a_wide_table_has_the_hub_ids_too(listed: ModelList, width: int | None) -> None:
    text = table_text(listed, width)
    assert all(checkpoint.repo_id in text for checkpoint in CHECKPOINTS.values())
    assert max(map(len, text.splitlines())) <= 120


def test_every_checkpoint_is_listed_once_by_its_shortest_alias(listed: ModelList) -> None:
    names = [each.name for each in listed.models]
    assert names == [
        "builtin",
        *({name: alias for alias, name in SHORT_ALIASES.items()}.get(n, n) for n in CHECKPOINTS),
    ]
    assert [each.repo_id for each in listed.models[1:]] == [known_aliases()[name] for name in names[1:]]


def test_cost_follows_from_the_architecture(listed: ModelList) -> None:
    by_name = {each.name: each for each in listed.models}
    assert by_name["audioset"].gmac_per_minute == pytest.approx(130.5 * 60 / 10.24, rel=1e-3)
    assert by_name["maest"].gmac_per_minute == pytest.approx(195.5 * 2, rel=4e-3)
    assert by_name["eat"].gmac_per_minute == pytest.approx(48.5 * 60 / 10.24, rel=4e-3)
    assert by_name["birdset-xcl"].size_bytes == pytest.approx(93.7e6 * 4, rel=1e-3)  # as the authors' leaderboard says


def test_json_and_csv_have_every_field_without_the_network_or_torch(run_ast: Run) -> None:
    record = json.loads(run_ast("models", "--json").stdout)
    assert (record["schema_version"], record["type"]) == (1, "models")
    maest = next(each for each in record["models"] if each["name"] == "maest")
    assert maest == {
        "name": "maest",
        "repo_id": "mtg-upf/discogs-maest-30s-pw-129e-519l",
        "labels": "music styles",
        "num_labels": 519,
        "window_s": 30,
        "metric": None,
        "quality": None,
        "family": "MAEST",
        "source": "Alonso-Jiménez, Serra and Bogdanov, 2023, arXiv:2309.16418",
        "gmac_per_minute": 391.6,
        "size_bytes": 347798556,
        "license": "CC-BY-NC-SA-4.0",
        "is_here": False,
    }
    rows = list(csv.DictReader(io.StringIO(run_ast("models", "--format", "csv").stdout)))
    assert [row["name"] for row in rows] == [each["name"] for each in record["models"]]
    assert (rows[0]["is_here"], rows[0]["repo_id"], rows[0]["license"]) == ("true", "", "Apache-2.0")


def test_json_and_another_format_contradict_each_other(run_ast: Run) -> None:
    done = run_ast("models", "--json", "--format", "csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --json and --format csv contradict each other\n"
