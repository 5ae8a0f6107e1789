"""Scoring an adapter that has no run around it."""

import json

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from support import sentences, write_csv


@pytest.fixture
def rows(tmp_path):
    found = sentences(40, seed=21)
    return write_csv(tmp_path / "test.csv", found), found


def test_a_foreign_adapter_is_scored_on_named_rows(adapt, rows, capsys):
    folder, (path, found) = adapt(), rows
    before = sorted(file.name for file in folder.iterdir())
    assert main(["evaluate", str(folder), f"data.test={path}", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]["test"]
    answers = rankwise.load(folder).predict([text for text, _ in found])
    right = np.mean([answer == label for answer, (_, label) in zip(answers, found, strict=True)])
    assert scores["accuracy"] == pytest.approx(right)
    assert (scores["examples"], scores["looks"], scores["looks_all"]) == (40, 1, 1)
    assert sorted(file.name for file in folder.iterdir()) == before
    assert main(["evaluate", str(folder), f"data.test={path}"]) == 0
    said = capsys.readouterr().out
    assert "this run looked at these test rows 2 times" in said
    assert "whether test rows repeat some of it is not known" in said
    with pytest.raises(UserError, match="name one with data.test=FILE"):
        rankwise.evaluate(folder)
    with pytest.raises(UserError, match="'train.steps=3' cannot change"):
        rankwise.evaluate(folder, ["train.steps=3"])


def test_an_adapter_of_a_run_reads_rows_as_the_run_does(config, rows, tmp_path):
    _, found = rows
    other = write_csv(tmp_path / "upper.csv", [(text.upper(), label) for text, label in found])
    config["data"]["preprocess"] = ["lowercase"]
    run = rankwise.train(config, out=tmp_path / "run")
    whole = rankwise.evaluate(run, [f"data.test={other}"])
    alone = rankwise.evaluate(run.adapter, [f"data.test={other}"])
    assert (alone["accuracy"], alone["loss"]) == (whole["accuracy"], pytest.approx(whole["loss"]))
    assert alone["looks_all"] == whole["looks_all"] + 1
