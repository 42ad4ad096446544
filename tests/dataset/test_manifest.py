from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.dataset.examples import Example, ExampleSet, read_examples, read_recordings
from ast_cli.errors import UsageError

Write = Callable[[str | bytes, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a manifest beside four files, which no test decodes."""
    for name in ("a.wav", "b.wav", "c.wav", "audio/d.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"RIFF")

    def write_manifest(content: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_manifest


def labels_of(data: ExampleSet) -> list[tuple[str, ...]]:
    return [example.labels for example in data.examples]


def test_every_column_is_read(write: Write, tmp_path: Path) -> None:
    data = read_examples(
        write("path,label,split,fold,start,end\na.wav,Dog,train,1,0.5,2\nb.wav,Cat,valid,2,,\n", "d.csv")
    )
    assert data.examples == (
        Example(f"{tmp_path}/a.wav", ("Dog",), "train", 1, 0.5, 2.0),
        Example(f"{tmp_path}/b.wav", ("Cat",), "validation", 2, 0.0, None),
    )
    assert data.labels == ("Cat", "Dog")
    assert not data.is_multi_label
    assert data.source == f"{tmp_path}/d.csv"


def test_the_table_of_esc_50_is_read(write: Write, tmp_path: Path) -> None:
    header = "filename,fold,target,category,esc10,src_file,take"
    data = read_examples(write(f"{header}\nd.wav,1,0,dog,True,100032,A\na.wav,2,11,sea_waves,True,1,B\n", "esc50.csv"))
    assert [(Path(e.path).name, e.labels, e.fold) for e in data.examples] == [
        ("d.wav", ("dog",), 1),
        ("a.wav", ("sea_waves",), 2),
    ]
    assert data.examples[0].path == f"{tmp_path}/audio/d.wav"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label\r\na.wav,Dog\r\n\r\nb.wav,Cat\r\n",
        b'Path , LABEL\n"a.wav"," Dog "\nb.wav,Cat',
        b"label;file name\nDog;a.wav\nCat;b.wav\n",
        b"file\tclass\na.wav\tDog\nb.wav\tCat\n",
    ],
    ids=["bom-crlf-blank-line", "case-blanks-quotes", "semicolons", "tabs"],
)
def test_tables_written_by_different_programs_give_the_same_examples(write: Write, content: bytes) -> None:
    data = read_examples(write(content, "data.csv"))
    assert labels_of(data) == [("Dog",), ("Cat",)]
    assert not data.is_multi_label


def test_several_labels_are_separated_by_semicolons_or_bars_but_not_by_commas(write: Write) -> None:
    rows = 'a.wav,Dog; Rain;Dog\nb.wav,"Baby cry, infant cry|Rain"\nc.wav,\nd.wav,"[""Dog"", ""x;y""]"\n'
    data = read_examples(write(f"path,labels\n{rows}", "data.csv"))
    assert labels_of(data) == [("Dog", "Rain"), ("Baby cry, infant cry", "Rain"), (), ("Dog", "x;y")]
    assert data.labels == ("Baby cry, infant cry", "Dog", "Rain", "x;y")
    assert data.is_multi_label


def test_a_single_label_may_contain_any_separator(write: Write) -> None:
    data = read_examples(write('path,label\na.wav,"Waves, surf"\nb.wav,a;b|c\n', "data.csv"))
    assert labels_of(data) == [("Waves, surf",), ("a;b|c",)]


def test_audioset_identifiers_become_names(write: Write) -> None:
    several = read_examples(write('path,labels,mids\na.wav,x,"/m/09x0r,/m/04rlf"\nb.wav,x,/m/unknown\n', "data.csv"))
    assert labels_of(several) == [("Speech", "Music"), ("/m/unknown",)]
    assert several.is_multi_label
    single = read_examples(write("path,label\na.wav,/m/09x0r\nb.wav,/m/04rlf\n", "data.csv"))
    assert labels_of(single) == [("Speech",), ("Music",)]
    assert not single.is_multi_label


def test_json_lines_are_read(write: Write) -> None:
    rows = [
        {"audio": "a.wav", "labels": ["Dog", "Baby cry, infant cry"], "split": "test", "end_s": 1.5},
        {"audio": "b.wav", "labels": "Dog;Rain", "fold": 3},
        {"audio": "c.wav", "label": 7},
        {"audio": "d.wav", "labels": []},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    data = read_examples(write(text + "\n\n", "data.jsonl"))
    assert labels_of(data) == [("Dog", "Baby cry, infant cry"), ("Dog", "Rain"), ("7",), ()]
    assert data.is_multi_label
    assert (data.examples[0].split, data.examples[0].end_s, data.examples[1].fold) == ("test", 1.5, 3)


def test_parts_of_a_recording_are_separate_examples_and_repeated_rows_are_one(write: Write) -> None:
    rows = "a.wav,Dog,0,1\na.wav,Cat,1,2\na.wav,Dog,0,1\n./a.wav,Dog,0,1\n"
    data = read_examples(write(f"path,label,start_s,end_s\n{rows}", "data.csv"))
    assert [(e.labels, e.start_s) for e in data.examples] == [(("Dog",), 0.0), (("Cat",), 1.0)]


FAULTS = [
    ("label\nDog\n", "data.csv, line 1: there is no column of paths"),
    ("path,target\na.wav,1\n", "no column of labels; name it label, category"),
    ("path,label,Label\na.wav,x,y\n", "line 1: there are two columns 'Label'"),
    ("path,label\n", "contains no recordings"),
    ("", "contains no recordings"),
    ("path,label\na.wav,Dog\nb.wav,\n", "line 3: has no label"),
    ("path,label\na.wav,Dog\n,Cat\n", "line 3: has no path"),
    ("path,label\na.wav,Dog\nb.wav,Waves, surf\n", "line 3: has 3 cells, but the header has 2"),
    ('path,label\na.wav,"Dog\nb.wav,Cat\n', ": malformed"),
    ('path,label\na.wav,"D"og\n', "line 2: malformed"),
    ("path,label\na.wav,Dog\nno.wav,Cat\nnor.wav,Cat\n", r"line 3: there is no file 'no.wav'.*2 of 3 are missing"),
    ("path,label\na.wav,Dog\nb.wav,dog\n", "line 3: the label 'dog' differs from 'Dog' only in case or spaces"),
    ("path,label\na.wav,Sea waves\nb.wav,Seawaves\n", "only in case or spaces"),
    ("path,label\na.wav,Dog\nb.wav,Dog\n", "all examples have the label 'Dog'"),
    ("path,labels\na.wav,\nb.wav,\n", "none of its 2 examples has a label"),
    ("path,label\na.wav,Dog\nb.wav,Cat\na.wav,Cat\n", r"line 4: has the labels 'Cat', but .* 'Dog' in .*line 2$"),
    ("path,labels\na.wav,Dog\nb.wav,Cat\na.wav,Cat\n", "name all labels of a recording in one row"),
    (
        "path,label,split\nb.wav,Cat,\na.wav,Dog,train\na.wav,Dog,test\n",
        "line 4: the same recording has another split or fold",
    ),
    ("path,label,start,end\na.wav,Dog,2,2\n", "line 2: the end, 2 s, is not after the start, 2 s"),
    ("path,label,start\na.wav,Dog,-1\n", "line 2: the start must be seconds, at least 0, not '-1'"),
    ("path,label,end\na.wav,Dog,nan\n", "line 2: the end must be seconds"),
    ("path,label,end\na.wav,Dog,1:30\n", "line 2: the end must be seconds"),
    ("path,label,fold\na.wav,Dog,1.5\n", "line 2: the fold must be a whole number, not '1.5'"),
    ("path,label,split\na.wav,Dog,holdout\n", "line 2: the split must be train, validation or test, not 'holdout'"),
    (b"path,label\na.wav,D\0g\n", "line 2: contains a NUL"),
    (b"path,label\na.wav,Dog\nb.wav,B\xe4r\n", "line 3: is not UTF-8"),
    ("path,label\na.wav,Dog\n".encode("utf-16"), "is UTF-16"),
]


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_an_invalid_table_is_an_error_of_one_sentence_with_its_line(
    write: Write, content: str | bytes, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_examples(write(content, "data.csv"))
    assert "data.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not valid JSON"),
        ("[1]", "line 2: must be a JSON object, not"),
        ('{"path": 3, "label": "Cat"}', "line 2: 3 is not a path"),
        ('{"path": "b.wav", "label": null}', "line 2: has no label"),
        ('{"path": "b.wav", "label": {"a": 1}}', "line 2: {'a': 1} is not a label"),
        ('{"path": "b.wav", "labels": ["Cat", ""]}', None),
        ('{"path": "b.wav", "labels": ["Cat", null]}', "line 2: None is not a label"),
        ('{"path": "b.wav", "labels": "[1"}', "not a valid JSON list"),
        ('{"path": "b.wav", "label": "Cat", "fold": true}', "the fold must be a whole number, not True"),
        ('{"path": "b.wav", "label": "Cat", "end": 1e400}', "the end must be seconds"),
        ('{"path": "b\\u0000.wav", "label": "Cat"}', "there is no file"),
        ("[" * 100_000, "line 2: not valid JSON"),
    ],
)
def test_invalid_json_lines_are_errors_of_one_sentence(write: Write, line: str, message: str | None) -> None:
    file = write(f'{{"path": "a.wav", "label": "Dog"}}\n{line}\n', "data.jsonl")
    if message is None:
        assert labels_of(read_examples(file)) == [("Dog",), ("Cat",)]
        return
    with pytest.raises(UsageError, match=message):
        read_examples(file)


@pytest.mark.parametrize("name", ["data.xlsx", "data.json", "a.wav"])
def test_another_kind_of_file_is_a_usage_error(write: Write, tmp_path: Path, name: str) -> None:
    write("path,label\n", name)
    with pytest.raises(UsageError, match=r"a folder per class, or a manifest \(\.csv, \.tsv, \.jsonl"):
        read_examples(tmp_path / name)


def test_missing_data_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file or folder"):
        read_examples(tmp_path / "no.csv")


def test_recordings_need_no_labels(write: Write, tmp_path: Path) -> None:
    found = read_recordings([str(write("path,split\na.wav,train\nb.wav,test\n", "data.csv")), f"{tmp_path}/c.wav"])
    assert [(Path(e.path).name, e.labels, e.split) for e in found.examples] == [
        ("a.wav", (), "train"),
        ("b.wav", (), "test"),
        ("c.wav", (), None),
    ]


@pytest.mark.skipif(os.sep == "\\", reason="there a backslash is a separator anyway")
def test_paths_written_on_windows_are_found_if_no_other_file_matches(write: Write, tmp_path: Path) -> None:
    (tmp_path / "audio\\d.wav").write_bytes(b"RIFF")  # a file whose name holds a backslash comes first
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "e.wav").write_bytes(b"RIFF")
    data = read_examples(write("path,label\naudio\\d.wav,Dog\nmore\\e.wav,Cat\n", "d.csv"))
    assert [example.path for example in data.examples] == [f"{tmp_path}/audio\\d.wav", f"{tmp_path}/more/e.wav"]
    with pytest.raises(UsageError, match=r"there is no file 'more\\\\f.wav'"):
        read_examples(write("path,label\nmore\\f.wav,Dog\n", "e.csv"))
