"""Prediction files: what they hold, that they are whole or absent, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankwise import files
from rankwise.errors import UserError
from rankwise.scoring import predictions
from rankwise.scoring.writers import Column, format_of, open_writer

NAMES = ["World", 'a, "b"', "c|d"]
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]], dtype=np.float32)


COLUMNS = [Column("id", "id"), Column("predicted", "label"), *(Column(f"p_{name}", "share") for name in NAMES)]
FORMATS = ("csv", "jsonl", "parquet")


def cells(ids, p):
    return [ids, [NAMES[label] for label in p.argmax(1)], *p.T]


def write(path, format):
    """Three rows in two windows."""
    with open_writer(path, format, COLUMNS) as out:
        out.add(cells(["x", "y"], P[:2]))
        out.add(cells(["z"], P[2:]))
    return path


def test_csv_reads_back(tmp_path):
    rows = list(csv.reader(write(tmp_path / "p.csv", "csv").open(newline="", encoding="utf-8")))
    assert rows[0] == ["id", "predicted", "p_World", 'p_a, "b"', "p_c|d"]
    assert rows[1:] == [
        ["x", "World", "0.700000", "0.200000", "0.100000"],
        ["y", 'a, "b"', "0.100000", "0.800000", "0.100000"],
        ["z", "c|d", "0.250000", "0.250000", "0.500000"],
    ]


def test_jsonl_reads_back(tmp_path):
    lines = write(tmp_path / "p.jsonl", "jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"id": "y", "predicted": 'a, "b"', "p_World": 0.1, 'p_a, "b"': 0.8, "p_c|d": 0.1}
    assert len(lines) == 3
    with open_writer(tmp_path / "q.jsonl", "jsonl", [Column("id", "id"), Column("probabilities", "shares")]) as out:
        out.add([[7.5], [{"a": 1 / 3}]])
    assert json.loads((tmp_path / "q.jsonl").read_text()) == {"id": 7.5, "probabilities": {"a": 0.333333}}


def test_parquet_reads_back(tmp_path):
    table = pq.read_table(write(tmp_path / "p.parquet", "parquet"))
    assert table.column("id").to_pylist() == ["x", "y", "z"]
    assert table.column("predicted").to_pylist() == NAMES
    np.testing.assert_array_equal(table.column("p_c|d").to_numpy(), P[:, 2])
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 1


def test_several_labels_a_row(tmp_path):
    columns = [Column("id", "id"), Column("predicted", "labels"), Column("p_a", "share")]
    for format in ("jsonl", "parquet"):
        with open_writer(tmp_path / format, format, columns) as out:
            out.add([[1, 2], [["a", "b"], []], np.array([0.9, 0.1])])
    rows = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert rows == [{"id": 1, "predicted": ["a", "b"], "p_a": 0.9}, {"id": 2, "predicted": [], "p_a": 0.1}]
    assert pq.read_table(tmp_path / "parquet").column("predicted").to_pylist() == [["a", "b"], []]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("format", FORMATS)
def test_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, format, monkeypatch):
    monkeypatch.setattr("rankwise.scoring.writers._GROUP_ROWS", 1)
    path = tmp_path / "out"
    path.write_text("before")

    def stop_midway():
        with open_writer(path, format, COLUMNS) as out:
            out.add(cells([1, 2, 3], P))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop_midway()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert path.read_text() == "before"
    write(path, format)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert path.read_bytes() != b"before"


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_still_make_a_file(tmp_path, format):
    with open_writer(tmp_path / "out", format, COLUMNS):
        pass
    if format == "parquet":
        assert pq.read_table(tmp_path / "out").num_rows == 0
    else:
        assert len((tmp_path / "out").read_text().splitlines()) == (0 if format == "jsonl" else 1)


def test_folder_problems_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"the folder .*none does not exist, create it first"):
        write(tmp_path / "none" / "p.csv", "csv")
    with pytest.raises(UserError, match="is a folder, expected the name of a file"):
        write(tmp_path, "csv")

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(UserError, match=r"p\.csv cannot be written: Permission denied"):
        write(tmp_path / "p.csv", "csv")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"p\.csv cannot be written: No space left on device"):
        write(tmp_path / "p.csv", "csv")
    assert list(tmp_path.iterdir()) == []


def test_error_of_the_reading_side_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), open_writer(tmp_path / "p.csv", "csv", COLUMNS):
        (tmp_path / "input").read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_rows(tmp_path, format, monkeypatch):
    monkeypatch.setattr("rankwise.scoring.writers._GROUP_ROWS", 2000)

    def peak(batches):
        tracemalloc.start()
        with open_writer(tmp_path / "p", format, COLUMNS) as out:
            for start in range(0, 1000 * batches, 1000):
                out.add(cells(range(start, start + 1000), np.tile(P, (334, 1))[:1000]))
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    peak(4)
    assert peak(24) < 1.3 * peak(4) + 20_000


def test_parquet_ids_that_change_kind_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.scoring.writers._GROUP_ROWS", 1)

    def change_kind():
        with open_writer(tmp_path / "p.parquet", "parquet", COLUMNS) as out:
            out.add(cells([1], P[:1]))
            out.add(cells(["a"], P[:1]))

    with pytest.raises(UserError, match="whole numbers at first"):
        change_kind()


def test_format_comes_from_the_name_or_the_ending():
    assert format_of(Path("x.JSONL")) == "jsonl"
    assert format_of(Path("x.csv"), "kaggle") == "kaggle"
    with pytest.raises(UserError, match="unknown format 'parket', did you mean 'parquet'"):
        format_of(Path("x.csv"), "parket")
    with pytest.raises(UserError, match="the ending of x names no format"):
        format_of(Path("x"))


BEYOND_64_BITS = [2**63 - 1, 2**63, 2**64 + 5]


@pytest.mark.parametrize("format", FORMATS)
def test_ids_beyond_64_bits_are_written_as_they_are(tmp_path, format):
    path = tmp_path / f"p.{format}"
    with open_writer(path, format, COLUMNS) as out:
        out.add(cells(BEYOND_64_BITS, P))
    read = {
        "csv": lambda: [row["id"] for row in csv.DictReader(path.open(newline=""))],
        "jsonl": lambda: [json.loads(line)["id"] for line in path.read_text().splitlines()],
        "parquet": lambda: pq.read_table(path)["id"].to_pylist(),
    }[format]()
    assert list(map(int, read)) == BEYOND_64_BITS


def test_run_predictions_of_ids_beyond_64_bits(tmp_path):
    labels = np.array([0, 1, 2])
    predictions.write(tmp_path, "test", NAMES, rows_sha256="x", ids=BEYOND_64_BITS, labels=labels, probabilities=P)
    assert list(map(int, predictions.read(tmp_path, "test").ids)) == BEYOND_64_BITS


@pytest.mark.parametrize("several", [False, True])
def test_run_predictions_read_back(tmp_path, several):
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]]) if several else np.array([0, 2, 2])
    path = predictions.write(
        tmp_path, "test", NAMES, rows_sha256="ab" * 32, ids=[5, 6, 7], labels=labels, probabilities=P
    )
    assert path == tmp_path / "predictions_test.parquet"
    back = predictions.read(tmp_path, "test")
    assert (back.role, back.label_names, back.rows_sha256) == ("test", NAMES, "ab" * 32)
    assert back.ids == [5, 6, 7]
    assert back.multi_label is several
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_array_equal(back.probabilities, P)
    expected = (P >= 0.5).astype(int) if several else P.argmax(axis=1)
    np.testing.assert_array_equal(back.predicted, expected)
    assert back.correct.tolist() == ([True, False, False] if several else [True, False, True])
    assert back.confidence.tolist() == pytest.approx([0.7, 0.8, 0.5])


def test_predictions_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match="holds no predictions for test: run  rankwise evaluate"):
        predictions.read(tmp_path, "test")
    whole = write(tmp_path / "whole.parquet", "parquet").read_bytes()
    (tmp_path / "predictions_test.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged or was not written by rankwise"):
        predictions.read(tmp_path, "test")
