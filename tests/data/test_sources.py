"""Every kind of source is read as it is meant, and every kind of mistake is told in one sentence."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise import config, data
from rankwise.data import opening, sources
from rankwise.errors import UserError

GOOD = [("a goal in the match", "sport"), ("the bank's profit", "business"), ("a new planet", "science")]


def settings(**keys):
    return config.from_dict({"data": keys}).data


def read(path, **keys):
    return sources.read(str(path), settings(**keys), "train")


def labels_of(source):
    return [name for (name,) in source.labels]


def complaint(path, **keys):
    """The sentence a source is refused with."""
    with pytest.raises(UserError) as caught:
        read(path, **keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def in_every_format(folder, rows):
    """The same rows as CSV, TSV, JSONL, Parquet and class folders."""
    import csv

    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    texts, names = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": list(texts), "label": list(names)}), folder / "rows.parquet")
    for number, (text, name) in enumerate(rows):
        (folder / "classes" / name).mkdir(parents=True, exist_ok=True)
        (folder / "classes" / name / f"{number}.txt").write_text(text, encoding="utf-8")
    return ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "classes"]


def test_every_format_gives_the_same_rows(tmp_path):
    rows = [*GOOD, ('quotes "here", and a comma', "sport"), ("two\nlines\tand a tab, ünïcödé 漢", "business")]
    for name in in_every_format(tmp_path, rows):
        source = read(tmp_path / name)
        assert sorted(zip(source.texts, labels_of(source), strict=True)) == sorted(rows), name
        if name != "classes":
            assert source.ids == [0, 1, 2, 3, 4]
        else:
            assert source.ids[0] == "business/1.txt"


def test_several_text_columns_are_joined_and_empty_ones_left_out(write):
    path = write("rows.csv", "title,body,label\nA,b c,0\n,only body,1\nonly title,,0\n")
    assert read(path, text=["title", "body"]).texts == ["A b c", "only body", "only title"]


def test_an_id_column_of_any_case_is_kept(write):
    assert read(write("rows.csv", "ID,text,label\n007,a,0\n008,b,1\n")).ids == ["007", "008"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(write):
    assert read(write("rows.csv", b"\xef\xbb\xbftext,label\na,0\nb,1\n")).texts == ["a", "b"]


def test_labels_are_the_same_classes_in_every_format(tmp_path, write):
    csv = write("int.csv", "text,label\na,10\nb,2\nc,2.0\n")
    floats = tmp_path / "float.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": [10.0, 2.0, 2.0]}), floats)
    jsonl = write("int.jsonl", '{"text": "a", "label": 10}\n{"text": "b", "label": 2}\n{"text": "c", "label": 2}\n')
    for path in (csv, floats, jsonl):
        assert labels_of(read(path)) == ["10", "2", "2"]
        loaded = data.load(settings(train=str(path), validation_size=1, stratify=False), ("train", "validation"))
        assert loaded.label_names == ["2", "10"], "whole numbers in their order, not alphabetically"


def test_class_names_that_the_datasets_library_wrote_are_kept(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["World", "Sports", "Business"])}
    )
    table = datasets.Dataset.from_dict({"text": list("abcd"), "label": [1, 0, 1, 0]}, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    source = read(tmp_path / "rows.parquet")
    assert labels_of(source) == ["Sports", "World", "Sports", "World"]
    assert source.classes == ("World", "Sports", "Business")
    loaded = data.load(settings(train=str(tmp_path / "rows.parquet")))
    assert loaded.label_names == ["World", "Sports", "Business"], "a class without rows keeps its place"


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n{"text": "c", "label": "z"}\n'),
        ("csv", "text,label\na,x|y\nb,\nc,z\n"),
        ("csv", 'text,label\na,"[""x"", ""y""]"\nb,[]\nc,z\n'),
    ],
    ids=["lists", "separator", "json-in-csv"],
)
def test_several_labels_become_a_multi_hot_array(write, suffix, content):
    path = write(f"rows.{suffix}", content)
    assert read(path, multi_label=True).labels == [("x", "y"), (), ("z",)]
    loaded = data.load(
        settings(train=str(path), multi_label=True, validation=str(write(f"other.{suffix}", content))),
    )
    assert loaded.train.labels.dtype == np.float32
    assert loaded.train.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_the_separator_of_labels_can_be_chosen(write):
    path = write("rows.csv", "text,label\na,x;y|z\n")
    assert read(path, multi_label=True, label_separator=";").labels == [("x", "y|z")]


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", ["is empty"]),
        ("a.csv", "text,label\n", ["is empty"]),
        ("a.csv", "\n\n", ["is empty"]),
        ("a.parquet", "", ["is empty"]),
        ("a.jsonl", "\n\n", ["is empty"]),
        ("a.csv", "text,label\n,0\n ,1\n", ["row 1 (line 2)", "no text", "2 of 2 rows", "data.empty=drop"]),
        ("a.csv", 'text,label\n"a\nb",0\n   ,1\n', ["row 2 (line 4)", "no text"]),
        ("a.jsonl", '{"text": null, "label": 0}\n', ["row 1 (line 1)", "no text"]),
        ("a.csv", "text,label\na,\nb,\n", ["has no label in 'label'", "each of its rows is empty"]),
        ("a.csv", "text,label\na,0\nb,c,1\n", ["row 2 (line 3)", "3 cells, expected 2", "comma"]),
        ("a.tsv", "text\tlabel\na\t0\nb\n", ["row 2 (line 3)", "1 cells, expected 2", "tab"]),
        ("a.csv", 'text,label\na,0\n"b,1\n', ["line 3", "unexpected end of data", "quote"]),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", \n', ["line 2 is not JSON"]),
        ("a.jsonl", '{"text": "a", "label": 0}\n[1, 2]\n', ["line 2 holds [1, 2] as a row"]),
        ("a.jsonl", '{"text": 5, "label": 0}\n', ["row 1 (line 1)", "5", "expected a string"]),
        ("a.jsonl", '{"text": "a", "label": [{"x": 1}]}\n', ["row 1", "expected a number or a name"]),
        ("a.jsonl", '{"text": "a", "label": ["x", "y"]}\n', ["row 1", "data.multi_label: true"]),
        ("a.txt", "a\nb\n", ["without labels"]),
        ("a.xlsx", "PK", ["not a spreadsheet that can be read"]),
        ("a.csv", b"\x00\x01\x02" * 2000, ["holds zero bytes", "no text"]),
        ("a.parquet", "PAR1 and then nothing", ["not a whole Parquet file"]),
    ],
)
def test_a_mistake_is_told_with_its_place(write, name, content, expected):
    message = complaint(write(name, content))
    for part in (name, *expected):
        assert part in message


def test_a_parquet_file_cut_short_is_told(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"] * 500, "label": [0, 1] * 500}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a whole Parquet file" in complaint(path)


LONG = "word " * 2_000_000


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", f"text,label\na,0\n{LONG},1\n", "line 3"),
        ("a.csv", "text,label\na,0\n" + '"' + "word, \n" * 1_500_000, "line 3"),
        ("a.csv", f"text,label\na,0\n{LONG[:2_000_000]},1\n", "row 2 (line 3)"),
        ("a.tsv", f"text\tlabel\na\t0\n{LONG}\t1\n", "line 3"),
        ("a.jsonl", f'{{"text": "{LONG}", "label": 0}}\n', "line 1"),
        ("classes/x/1.txt", LONG, "1.txt holds 10,000,000 bytes"),
        ("classes/x/1.txt", LONG[:2_000_000], "1.txt: the text has 2,000,000 characters"),
    ],
    ids=["csv", "unclosed quote", "under the line's limit", "tsv", "jsonl", "folder", "folder, two megabytes"],
)
def test_a_text_of_ten_megabytes_is_told_with_its_row(write, name, content, place):
    path = write(name, content)
    message = complaint(path.parents[1] if "classes" in name else path)
    assert place in message
    assert "1,000,000 characters" in message


def test_a_parquet_text_of_ten_megabytes_is_told_with_its_row(tmp_path):
    pq.write_table(pa.table({"text": ["a", LONG], "label": [0, 1]}), tmp_path / "a.parquet")
    assert "row 2: the text has 10,000,000 characters" in complaint(tmp_path / "a.parquet")


def test_a_text_at_the_limit_is_read(write):
    text = "x" * opening.MAX_TEXT_CHARS
    assert read(write("a.csv", f"text,label\n{text},0\n")).texts == [text]


class Ran(Exception):
    """Raised by a pickle that was opened."""


class Bomb:
    def __reduce__(self):
        return Ran, ("the pickle was opened",)


@pytest.mark.parametrize("name", ["a.pkl", "a.csv", "a"])
def test_a_pickle_is_never_opened(write, name):
    path = write(name, pickle.dumps(Bomb()))
    with pytest.raises(Ran):
        raise pickle.loads(path.read_bytes())
    message = complaint(path)
    assert "runs whatever code it holds" in message
    assert "if you trust its origin" in message


def test_the_pickle_conversion_it_names_works(tmp_path):
    import shlex
    import subprocess
    import sys

    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.pkl"
    pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_pickle(path)
    command = shlex.split(complaint(path).split("convert it once with  ")[1].split("  and name")[0])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert read(tmp_path / "a.parquet").texts == ["a", "b"]


@pytest.mark.parametrize("asked", ["trian.csv", "./trian.csv", "{folder}/trian.csv", "{folder}/train"])
def test_a_missing_file_names_the_nearest(write, monkeypatch, asked):
    folder = write("train.csv", "text,label\na,0\n").parent
    monkeypatch.chdir(folder)
    message = complaint(asked.format(folder=folder))
    assert "there is no file or folder" in message
    assert "did you mean 'train.csv'" in message


def test_a_folder_without_folders_is_told(write):
    assert "one folder of text files for each class" in complaint(write("texts/1.txt", "a").parent)


# --- the Hub and packages -----------------------------------------------------------------------------


def test_an_unreachable_hub_is_one_sentence():
    pytest.importorskip("datasets")
    message = complaint("nobody/no-such-data-set")
    assert "could not be loaded from the Hub" in message
    assert "name a CSV, JSONL or Parquet file" in message


def test_without_the_datasets_package_the_install_line_is_printed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'rankwise[hub]'" in complaint("ag_news")


def test_a_hub_data_set_gives_the_split_of_the_role(monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["x", "y"]))}
    )
    asked = []

    def load_dataset(name, configuration, split):
        asked.append((name, configuration, split))
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[0, 1], [1]]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = sources.read("owner/name:part", settings(multi_label=True), "validation")
    assert source.labels == [("x", "y"), ("y",)]
    assert source.classes == ("x", "y")
    sources.read("ag_news[test]", settings(multi_label=True), "validation")
    assert asked == [("owner/name", "part", "validation"), ("ag_news", None, "test")]


def test_packaged_news_are_class_folders_in_two_encodings(monkeypatch, write):
    from rankwise import packaged

    write("bbc/sport/1.txt", "a £5 ticket".encode("cp1252"))
    folder = write("bbc/tech/1.txt", "a phone").parents[1]
    monkeypatch.setattr(packaged, "fetch", lambda asset: folder)
    source = sources.read("packaged:bbc-news", settings(), "train")
    assert (source.texts, labels_of(source)) == (["a £5 ticket", "a phone"], ["sport", "tech"])
    assert "packaged:bbc-news" in complaint("packaged:bbc")


@pytest.mark.parametrize("start", ["sep=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_a_line_that_tells_spreadsheets_the_delimiter_is_no_row(write, start):
    source = read(write("export.csv", start + "text;label\nred, or green;a\nblue;b\n"))
    assert source.texts == ["red, or green", "blue"]
    assert labels_of(source) == ["a", "b"]


def test_papers_beside_the_one_table_of_an_archive_are_no_tables(tmp_path):
    import zipfile

    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("set/README.md", "set/LICENSE", "set/paper.pdf"):
            archive.writestr(name, "about")
        archive.writestr("set/rows.csv", "text,label\nred,a\nblue,b\n")
    assert read(path).texts == ["red", "blue"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("set/more.csv", "text,label\n")
    assert "holds several files" in complaint(path)
