"""Label cells as files have them: numbers of any width, lists of one, bits without brackets, and no label at all."""

from __future__ import annotations

import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise import config
from rankwise.data import sources

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
