from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import tiny_config

from ast_cli import ASTForAudioClassification
from ast_cli.hub.names import LABELS_NAME

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = ["Bark", "Animal", "Hiss", "=my own", "Snake"]
TABLE = """\
id  mid         label             ancestors
0   /m/05tny_   Bark              Animal > Domestic animals, pets > Dog
1   /m/0jbk     Animal
2   /m/07rjwbb  Hiss    unproven  {hiss}
3   -           =my own  unproven
4   /m/078jl    Snake             Animal > Wild animals
"""
HISS = (
    "Animal > Domestic animals, pets > Cat; Animal > Wild animals > Snake; Natural sounds > Water > Steam; "
    "Source-ambiguous sounds > Onomatopoeia"
)
TREE = """\
Animal  /m/0jbk
├─ (Domestic animals, pets)
│  ├─ (Dog)
│  │  └─ Bark  /m/05tny_
│  └─ (Cat)
│     └─ Hiss  /m/07rjwbb  unproven
└─ (Wild animals)
   └─ Snake  /m/078jl
      └─ Hiss  /m/07rjwbb  unproven
(Natural sounds)
└─ (Water)
   └─ (Steam)
      └─ Hiss  /m/07rjwbb  unproven
(Source-ambiguous sounds)
└─ (Onomatopoeia)
   └─ Hiss  /m/07rjwbb  unproven
(not in AudioSet's hierarchy)
└─ =my own  unproven
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return a model of five labels, two of them unproven."""
    config = tiny_config(id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification")
    ASTForAudioClassification(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / LABELS_NAME).write_text(json.dumps({"unproven": ["Hiss", "=my own"]}))
    return str(tmp_path / "model")


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_table_has_index_identifier_name_and_ancestors_and_a_note_explains_the_mark(
    run_ast: Run, model: str
) -> None:
    done = run_ast("labels", "--model", model)
    assert (done.returncode, squeezed(done.stdout)) == (0, squeezed(TABLE.format(hiss=HISS)))
    columns = [line.index("Animal") for line in done.stdout.splitlines() if " Animal >" in line]
    assert len(set(columns)) == 1
    assert done.stderr == f"unproven: no score over 0.3 in the training of {model} (2 of its 5 labels)\n"
    assert run_ast("labels", "--model", model, "--quiet").stderr == ""


def test_without_unproven_labels_the_table_has_no_column_for_them(run_ast: Run, model: str) -> None:
    done = run_ast("labels", "--model", model, "--search", "AR")
    assert done.stdout == (
        "id  mid        label  ancestors\n0   /m/05tny_  Bark   Animal > Domestic animals, pets > Dog\n"
    )
    assert done.stderr == ""


def test_json_and_csv_have_the_same_labels(run_ast: Run, model: str) -> None:
    document = json.loads(run_ast("labels", "--model", model, "--format", "json").stdout)
    assert [each["label"] for each in document["labels"]] == LABELS
    assert [each["unproven"] for each in document["labels"]] == [False, False, True, True, False]
    rows = list(csv.DictReader(io.StringIO(run_ast("labels", "--model", model, "--format", "csv").stdout)))
    assert list(rows[0]) == ["label_id", "mid", "label", "ancestors", "unproven"]
    assert [row["label"] for row in rows] == [*LABELS[:3], "'=my own", "Snake"]  # no formula in a spreadsheet
    assert [row["unproven"] for row in rows] == ["false", "false", "true", "true", "false"]
    assert rows[2]["ancestors"] == HISS
    (Path(model) / "labels.json").unlink()
    unmarked = csv.DictReader(io.StringIO(run_ast("labels", "--model", model, "--format", "csv").stdout))
    assert {row["unproven"] for row in unmarked} == {""}


def test_the_tree_draws_each_class_below_all_that_it_belongs_to(run_ast: Run, model: str) -> None:
    done = run_ast("labels", "--model", model, "--tree")
    assert (done.returncode, done.stdout) == (0, TREE)
    assert "2 of its 5 labels" in done.stderr


def test_a_search_in_the_tree_draws_what_is_above_and_below(run_ast: Run, model: str) -> None:
    snakes = run_ast("labels", "--model", model, "--tree", "--search", "snake").stdout
    assert snakes == (
        "Animal  /m/0jbk\n└─ (Wild animals)\n   └─ Snake  /m/078jl\n      └─ Hiss  /m/07rjwbb  unproven\n"
    )
    dogs = run_ast("labels", "--model", model, "--tree", "--search", "DOG").stdout  # no label of the model itself
    assert dogs == "Animal  /m/0jbk\n└─ (Domestic animals, pets)\n   └─ (Dog)\n      └─ Bark  /m/05tny_\n"
    own = run_ast("labels", "--model", model, "--tree", "--search", "my own").stdout
    assert own == "(not in AudioSet's hierarchy)\n└─ =my own  unproven\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--search", "brak"), "no label of {model} contains 'brak'; similar labels: 'Bark'"),
        (("--tree", "--search", "Dgo"), "no label of {model} contains 'Dgo'; similar labels: 'Dog'"),
        (("--search", " "), "--search is empty: give a part of a name"),
        (("--tree", "--format", "csv"), "--tree draws text: leave out --format csv, or leave out --tree"),
    ],
)
def test_wrong_usage_is_one_sentence(run_ast: Run, model: str, arguments: tuple[str, ...], message: str) -> None:
    done = run_ast("labels", "--model", model, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {message.format(model=model)}\n"


def test_a_model_without_audiosets_labels_has_no_tree(run_ast: Run, tmp_path: Path) -> None:
    ASTForAudioClassification(tiny_config(id2label={0: "yes", 1: "no"})).save_pretrained(tmp_path / "words")
    done = run_ast("labels", "--model", "words", "--tree", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: no label of words is in AudioSet's hierarchy: leave out --tree\n",
    )


def test_a_damaged_list_of_unproven_labels_is_one_sentence(run_ast: Run, model: str) -> None:
    (Path(model) / LABELS_NAME).write_text('{"unproven": 3}')
    done = run_ast("labels", "--model", model)
    file = Path(model) / LABELS_NAME
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f'error: {file}: "unproven" must be a list of labels, not 3\n'
