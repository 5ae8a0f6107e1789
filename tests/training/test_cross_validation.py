"""`data.folds`: every row is scored by a run that does not know it, and the run itself is fitted on all."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import rankwise
from rankwise.baselines import tfidf
from rankwise.cli import main
from rankwise.data import Rows, folds
from rankwise.errors import UserError
from rankwise.reporting.run import facts_of
from rankwise.runs import card
from rankwise.runs.folder import open_run
from rankwise.scoring import predictions
from rankwise.training import cross_validation
from support import sentences

COUNT = 3


def written(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label"])
        table.writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def rows():
    made = [(f"r{n}", text, label) for n, (text, label) in enumerate(sentences(60, 5))]
    return [*made, ("alone", "a text of its own", "seldom")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, tiny_model, rows):
    place = tmp_path_factory.mktemp("rows")
    return {
        "model": {"name": str(tiny_model), "precision": "fp32"},
        "adapter": {"rank": 2},
        "data": {"train": written(place / "rows.csv", rows), "folds": COUNT},
        "train": {"epochs": 1, "learning_rate": 1e-2},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory, tree):
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "folds")


def test_each_row_is_scored_by_a_run_without_it(run, tree, rows, tmp_path):
    read = predictions.read(run.path, "validation")
    assert read.ids == [name for name, _, _ in rows if name != "alone"]  # whose class no other run would know
    labels = np.array([sorted({label for *_, label in rows}).index(label) for *_, label in rows])
    fold = folds.fold_of_each(labels, COUNT, tree["data"].get("split_seed", 42))
    kept = [row for row, number in zip(rows, fold, strict=True) if number != 1]
    held = [row for row, number in zip(rows, fold, strict=True) if number == 1]
    by_hand = rankwise.train(
        {
            **tree,
            "data": {
                "train": written(tmp_path / "kept.csv", kept),
                "validation": written(tmp_path / "held.csv", held),
                "max_length": run.config.data.max_length,
            },
            "train": {**tree["train"], "eval_every": "epoch"},
        },
        out=tmp_path / "by_hand",
    )
    expected = predictions.read(by_hand.path, "validation")
    places = [read.ids.index(name) for name in expected.ids]
    np.testing.assert_allclose(read.logits[places], expected.logits, atol=1e-6)


def test_the_run_itself_is_fitted_on_all_rows_and_says_so(run, rows, capsys):
    result = run.record
    assert (result.data["train"].rows, result.metrics.validation.examples) == (61, 60)
    assert result.metrics.validation.folds == COUNT
    assert result.metrics.validation_last is None
    assert result.metrics.floor.validation.examples == 60
    assert result.calibration.rows == 60
    assert not (run.path / cross_validation.FOLDER).exists()
    assert "each scored by one of 3 runs that was not fitted on it" in card.text(run)
    assert facts_of(run)["derived"]["mistakes"]["validation"] is not None
    assert rankwise.load(run).predict(["the team"])
    main(["train", str(run.path / "config.yaml"), "--out", str(run.path), "--resume"])
    assert "of 60 rows in 3 folds" in capsys.readouterr().out


def test_a_run_stopped_between_folds_goes_on_to_the_same_result(run, tree, tmp_path, monkeypatch):
    fit = cross_validation._fold

    def stopped(job, kept, held, number, *rest):
        if number == 1:
            raise KeyboardInterrupt
        return fit(job, kept, held, number, *rest)

    monkeypatch.setattr(cross_validation, "_fold", stopped)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(tree, out=tmp_path / "run")
    assert open_run(tmp_path / "run").record.status == "interrupted"
    monkeypatch.undo()
    again = rankwise.train(tree, out=tmp_path / "run", resume=True)
    ours, theirs = (predictions.read(one.path, "validation") for one in (again, run))
    np.testing.assert_array_equal(ours.logits, theirs.logits)


def test_the_floor_does_not_know_the_rows_that_it_is_scored_by():
    labels = np.random.default_rng(0).integers(0, 2, 60)
    rows = Rows([f"word{n} other{n}" for n in range(60)], labels, list(range(60)), "x", "y")
    found = tfidf.out_of_fold(rows, folds.splits(labels, COUNT, 0), ["a", "b"])
    assert found.examples == 60
    assert found.accuracy < 0.8, "each row's words are its own: known rows would all be right"


@pytest.mark.parametrize(
    ("data", "train", "message"),
    [
        ({"folds": 70}, {}, "needs 70 rows"),
        ({"validation_size": 0.1}, {}, "data.validation_size are both given"),
        ({}, {"evaluate": False}, "train.evaluate"),
        ({}, {"early_stopping": {"patience": 2}}, "train.early_stopping cannot apply"),
    ],
)
def test_what_contradicts_folds_is_refused(tree, tmp_path, data, train, message):
    with pytest.raises(UserError, match=message):
        rankwise.train({**tree, "data": tree["data"] | data, "train": tree["train"] | train}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_few_rows_hears_of_folds(tree, tmp_path):
    run = rankwise.train({**tree, "data": {"train": tree["data"]["train"]}}, out=tmp_path / "run")
    assert any("data.folds=5 scores every row instead" in note for note in run.result["texts"]["notes"])
