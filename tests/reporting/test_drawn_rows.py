"""Test rows that a clock had no time for: some are drawn, everything says so, and `evaluate` scores all."""

import json
import shutil

import numpy as np
import pytest

import rankwise
from rankwise import data
from rankwise.cli import main
from rankwise.deadline import NEVER, Deadline
from rankwise.inference.evaluate import score
from rankwise.reporting import report
from rankwise.runs.folder import Run
from rankwise.runs.texts import scored_texts
from rankwise.scoring import looks, predictions


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Run:
    """A run whose test rows nobody has looked at."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    copied = Run(shutil.copytree(finished, tmp_path / "run"))
    (copied.path / looks.FILE).unlink()
    with copied.changing() as result:
        result.metrics.test = None
    return copied


def test_as_many_as_there_is_time_for_are_drawn(run, tmp_path, capsys):
    whole = data.load(run.config.data, roles=("test",), label_names=run.record.labels).test
    scores = score(run, deadline=Deadline.after(-1.0))
    assert (scores.examples, scores.drawn_from) == (16, len(whole)), "a first portion, whatever the clock"
    (note,) = [note for note in scores.notes if "drawn by chance" in note]
    assert note.startswith(f"16 of the {len(whole):,} test rows")
    read = predictions.read(run.path, "test")
    place = {name: row for row, name in enumerate(whole.ids)}
    rows = [place[name] for name in read.ids]
    assert rows == sorted(rows)
    assert rows != list(range(16)), "not the first ones of the file"
    np.testing.assert_array_equal(read.labels, whole.labels[rows])
    every = rankwise.load(run.path).logits([whole.texts[row] for row in rows])
    np.testing.assert_allclose(read.logits, every, atol=1e-5)
    texts, _ = scored_texts(run, read)
    assert texts == [whole.texts[row] for row in rows], "the page of the run finds the texts of its mistakes"
    page = report(run.path, tmp_path / "run.html").read_text(encoding="utf-8")
    assert "drawn by chance" in page
    assert run.record.data["test"].rows == len(whole)

    assert main(["evaluate", str(run.path), "--json"]) == 0
    test = json.loads(capsys.readouterr().out)["metrics"]["test"]
    assert (test["examples"], test["looks"]) == (len(whole), 2), "one more look at the same rows"
    assert "drawn_from" not in test
    assert len(predictions.read(run.path, "test").ids) == len(whole)


def test_all_are_scored_where_there_is_time(run):
    timed = score(run, deadline=Deadline.after(600.0))
    logits = predictions.read(run.path, "test").logits
    assert timed.drawn_from is None
    assert not any("drawn by chance" in note for note in timed.notes)
    assert score(run, deadline=NEVER).accuracy == timed.accuracy
    np.testing.assert_allclose(logits, predictions.read(run.path, "test").logits, atol=1e-5)


def test_rows_with_one_name_are_drawn_apart(run, tmp_path):
    whole = data.load(run.config.data, roles=("test",), label_names=run.record.labels).test
    place = tmp_path / "twice.csv"
    lines = [f'same,"{text}",{run.record.labels[label]}' for text, label in zip(whole.texts, whole.labels, strict=True)]
    place.write_text("\n".join(["id,text,label", *lines]), encoding="utf-8")
    tree = rankwise.config.to_dict(run.config)
    tree["data"] |= {"test": str(place), "test_size": None}
    run.write_config(rankwise.config.from_dict(tree))
    score(run, deadline=Deadline.after(-1.0))
    texts, why = scored_texts(run, predictions.read(run.path, "test"))
    assert why == ""
    assert len(texts) == 16
