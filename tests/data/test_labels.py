"""Label cells as files have them: numbers of any width, lists of one, bits without brackets, and no label at all."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise import config
from rankwise.data import labels, sources
from rankwise.errors import UserError

TEXTS = [f"a warm soup on day {n}" for n in range(12)]


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


def parquet(path, column, names=None):
    table = pa.table({"text": TEXTS, "label": column})
    if names:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "column",
    [
        pa.array([n % 2 + 0.7 for n in range(12)], pa.float32()),
        pa.array([decimal.Decimal(n % 2) + decimal.Decimal("0.7") for n in range(12)]),
    ],
    ids=["single precision", "decimals"],
)
def test_a_number_is_the_class_that_a_csv_has(tmp_path, column):
    assert set(read(parquet(tmp_path / "rows.parquet", column)).labels) == {("0.7",), ("1.7",)}


def test_days_are_classes_and_bytes_are_none(tmp_path):
    days = pa.array([datetime.date(2024, 1, 1 + n % 2) for n in range(12)])
    assert set(read(parquet(tmp_path / "days.parquet", days)).labels) == {("2024-01-01",), ("2024-01-02",)}
    with pytest.raises(UserError, match=r"row 1 holds the label b'a', expected a number or a name"):
        read(parquet(tmp_path / "bytes.parquet", pa.array([b"a", b"b"] * 6)))


def test_minus_one_of_declared_classes_is_no_label(tmp_path):
    source = read(parquet(tmp_path / "rows.parquet", pa.array([n % 3 - 1 for n in range(12)]), ["bad", "good"]))
    assert set(source.labels) == {("bad",), ("good",)}
    assert len(source.labels) == 8
    assert any(note.startswith("4 rows of train without a label") for note in source.notes)


def csv_of(path, cells):
    path.write_text("text,label\n" + "".join(f'{text},"{cells[n % len(cells)]}"\n' for n, text in enumerate(TEXTS)))
    return path


def test_lists_of_one_label_are_that_label(tmp_path):
    assert set(read(csv_of(tmp_path / "rows.csv", ["['a']", "['b']"])).labels) == {("a",), ("b",)}


@pytest.mark.parametrize("mark", " ,;|")
def test_bits_without_brackets_are_places(tmp_path, mark):
    cells = [mark.join(bits) for bits in ("101", "010", "110")]
    source = read(csv_of(tmp_path / "rows.csv", cells), multi_label=True, classes=["x", "y", "z"])
    assert set(source.labels) == {("x", "z"), ("y",), ("x", "y")}


def test_classes_that_may_be_several_labels_are_told(tmp_path):
    source = read(csv_of(tmp_path / "rows.csv", ["a,b", "b", "a,c"]))
    assert any("data.multi_label=true" in note for note in source.notes)
    assert not any(
        "multi_label" in note for note in read(csv_of(tmp_path / "rows.csv", ["Sci/Tech", "C#", "F#"])).notes
    )


@pytest.mark.parametrize("number", ["Infinity", "1e300"])
def test_a_number_beyond_all_others_is_a_class_of_its_own(tmp_path, number):
    lines = [f'{{"text": "{text}", "label": {number if n % 2 else 1}}}\n' for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    assert set(read(tmp_path / "rows.jsonl").labels) == {("1",), (str(float(number)),)}


def test_long_numbers_that_differ_in_their_last_digit_are_not_alike(tmp_path):
    source = read(csv_of(tmp_path / "rows.csv", ["100000000000000000000", "100000000000000000001"]))
    assert not any("differ in" in note for note in source.notes)


def test_marks_inside_of_texts_are_told_from_labels(tmp_path):
    rows = [{"text": text, "label": [[0, 3, "PER"]]} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match="marks parts of a text"):
        read(tmp_path / "rows.jsonl")


def test_of_objects_of_texts_the_first_is_the_text(tmp_path):
    rows = [{"text": {"en": text, "de": f"eine {text}"}, "label": "ab"[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert read(tmp_path / "rows.jsonl").texts == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("rows.arff", b"@relation r\n@data\n", "ARFF"),
        ("rows.sav", b"$FL2@(#)\0\0", "SPSS"),
        ("rows.rds", gzip.compress(b"X\n\0\0\0\3", mtime=0), "a file of R"),
        ("nlu.yml", b"nlu:\n- intent: a\n", "YML and no table"),
        ("rows.csv.lz4", b"\x04\x22\x4d\x18\0\0", "LZ4"),
    ],
)
def test_files_of_another_trade_are_called_by_their_name(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=what):
        read(tmp_path / name)


def test_names_that_are_put_together_of_half_as_many_are_several_labels():
    names = ["a|b", "a|c", "b|c", "a", "b", "c", "a|b|c"]
    assert labels.put_together(names) == ["a", "b", "c"]
    for one_each in (["a,b", "b", "a,c"], ["Books, Music", "Books, Film"], ["Sci/Tech", "C#"], ["a", "b"]):
        assert labels.put_together(one_each) == []
    fields = [f"{city}, {state}" for city in ("Boston", "Paris", "Rome", "Lima") for state in ("MA", "FR", "IT", "PE")]
    assert labels.put_together(fields) == []
    assert labels.put_together([*fields, "Boston"]) == ["Boston", "FR", "IT", "Lima", "MA", "PE", "Paris", "Rome"]


def test_a_list_that_nobody_can_read_is_told_with_its_place_where_labels_may_be_several(tmp_path):
    path = csv_of(tmp_path / "rows.csv", ["[b]", "a", "c"])
    with pytest.raises(
        UserError, match=r"row 1 \(line 2\) holds the labels '\[b\]', which are not a JSON or Python list"
    ):
        read(path, multi_label=True)


def test_classes_in_json_that_is_nested_too_deeply_are_told(tmp_path):
    (tmp_path / "classes.json").write_text(100_000 * "[")
    with pytest.raises(UserError, match="is not JSON"):
        read(csv_of(tmp_path / "rows.csv", ["a", "b"]), classes=str(tmp_path / "classes.json"))
