"""Tables from Python are taken wherever a path is."""

import numpy as np
import pyarrow as pa
import pytest

from rankwise import config, data
from rankwise.data import sources
from rankwise.data.streams import stream
from rankwise.errors import UserError
from rankwise.objects import source_of

TEXTS = ["warm soup", "cold soup", "kind staff", "rude \ud83dstaff"] * 3
LABELS = ["good", "bad"] * 6


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def objects():
    whole = [text.replace("\ud83d", "\ufffd") for text in TEXTS]
    columns = {"text": whole, "label": LABELS}
    yield "texts and labels", (TEXTS, np.array(LABELS))
    yield "dicts", [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    yield "columns", columns
    yield "pyarrow", pa.table(columns)
    pandas = pytest.importorskip("pandas")
    yield "pandas", pandas.DataFrame(columns)
    yield "categories", pandas.DataFrame(columns).astype({"label": "category"})
    yield "polars", pytest.importorskip("polars").DataFrame(columns)
    datasets = pytest.importorskip("datasets")
    yield "datasets", datasets.Dataset.from_dict(columns)
    yield "frames by split", {"train": pandas.DataFrame(columns), "val": pandas.DataFrame(columns)[:3]}
    yield "splits", datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)})


def test_every_table_gives_the_same_rows():
    for name, value in objects():
        loaded = data.load(config.load({"data": {"train": value, "validation_size": 2, "stratify": False}}).data)
        assert len(loaded.train) + len(loaded.validation) == 12, name
        assert loaded.label_names == ["bad", "good"], name
        assert any("rude \ufffdstaff" in rows.texts for rows in loaded.named().values()), name


def test_names_of_classes_stay_with_a_data_set():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    made = datasets.Dataset.from_dict({"text": TEXTS[:3] * 4, "label": [0, 1] * 6}, features=features)
    loaded = data.load(config.load({"data": {"train": made}}).data)
    assert loaded.label_names == ["z", "a"]
    assert loaded.data.classes == ["z", "a"]


def test_equal_rows_are_one_file_and_a_path_is_itself(tmp_path):
    assert source_of((TEXTS, LABELS)) == source_of((list(TEXTS), tuple(LABELS)))
    assert source_of(tmp_path) == str(tmp_path)
    assert len(list((tmp_path / "cache" / "objects").iterdir())) == 1


@pytest.mark.parametrize("value", [5, ["a", "b"], (TEXTS, LABELS[:3]), [{"text": "a"}, 3]])
def test_what_is_no_table_is_told(value):
    with pytest.raises(UserError, match=r"data.train: .* expected a path, a table of pandas"):
        config.load({"data": {"train": value}})


def test_texts_to_predict_may_be_a_table():
    (batch,) = stream({"id": ["x", "y"], "text": ["a", None]}, ["text"], 10)
    assert (batch.ids, batch.texts) == (["x", "y"], ["a", ""])


def test_what_frames_hold_beside_plain_columns():
    pandas = pytest.importorskip("pandas")
    texts, marks = [f"text {n}" for n in range(8)], ["x" if n % 2 else 1 for n in range(8)]
    frame = pandas.DataFrame({"text": texts, "label": marks, "thing": [object() for _ in texts]})
    frame.index = pandas.Index([f"k{n}" for n in range(8)], name="id")
    source = sources.read(source_of(frame), config.from_dict({}).data, "train")
    assert source.ids == [f"k{n}" for n in range(8)], "an index with a name is a column"
    assert [label for (label,) in source.labels] == [str(mark) for mark in marks]


def test_pairs_in_a_list_and_batches_that_come_one_by_one():
    rows = [(f"text {n}", "ab"[n % 2]) for n in range(6)]
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    for given in (rows, reader):
        source = sources.read(source_of(given), config.from_dict({}).data, "train")
        assert list(zip(source.texts, (label for (label,) in source.labels), strict=True)) == rows
