"""A goal from the configuration to every place that answers: chosen by it, decided for it, stored, reloaded, served."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.scoring import predictions
from support import sentences, write_csv
from training.runs import with_keys

GOAL = "recall@precision=0.8:sport"


def answers(run, texts):
    return rankwise.load(run).predict(texts)


@pytest.fixture(scope="module")
def texts():
    return [text for text, _ in sentences(90, seed=11)]


@pytest.fixture
def few(config, tmp_path):
    """A run that learns little, so that thresholds matter; its labels are blurred."""
    rows = [(text, topic if number % 4 else "business") for number, (text, topic) in enumerate(sentences(240, seed=0))]
    noisy = write_csv(tmp_path / "noisy.csv", rows)
    return with_keys(config, data__train=str(noisy), train__steps=12, train__learning_rate=2e-3)


@pytest.fixture
def costs(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,sport,business,science\nsport,0,5,5\nbusiness,1,0,1\nscience,1,1,0\n")
    return path


@pytest.mark.parametrize("goal", [GOAL, "cost"])
def test_a_run_decides_alike_wherever_it_answers(few, tmp_path, texts, costs, goal, news):
    goal = f"cost:{costs}" if goal == "cost" else goal
    run = rankwise.train(with_keys(few, train__select={"metric": goal}), out=tmp_path / "run")
    result = run.result
    decision = result["decision"]
    assert decision["goal"] == result["metrics"]["validation"]["goal"]["name"] == goal
    assert bool(decision.get("thresholds")) == (goal == GOAL)
    assert any(float(row[f"validation_{goal}"]) == pytest.approx(decision["value"], abs=0.3) for row in run.history)
    kept = predictions.read(run.path, "validation")
    rows = list(csv.DictReader(news["validation"].open()))
    live = [kept.label_names[label] for label in kept.predicted]
    assert answers(run, [row["text"] for row in rows]) == live
    assert live != [kept.label_names[label] for label in kept.logits.argmax(1)], "the goal decided nothing"

    expected = answers(run, texts)
    assert answers(run.adapter, texts) == expected
    predictor = rankwise.load(run, calibrated=True)
    assert predictor.predict(texts) == expected
    many = rankwise.load_many([run.path])
    assert many.predict(texts)["run"] == expected
    table = write_csv(tmp_path / "new.csv", [(text, "") for text in texts])
    assert main(["predict", str(run.path), str(table), str(tmp_path / "out.csv")]) == 0
    assert [row["predicted"] for row in csv.DictReader((tmp_path / "out.csv").open())] == expected

    scores = rankwise.evaluate(run, [f"data.test={news['test']}"])
    assert scores["goal"]["name"] == goal
    assert rankwise.report(run).is_file()
    assert "Answers are decided for" in (run.adapter / "README.md").read_text()


def test_an_older_run_without_a_decision_answers_as_before(config, tmp_path, texts):
    run = rankwise.train(config, out=tmp_path / "run")
    assert "decision" not in run.result
    predictor = rankwise.load(run)
    most = predictor.predict_proba(texts).argmax(1)
    assert predictor.predict(texts) == [predictor.label_names[label] for label in most]


def test_thresholds_of_several_labels_are_fitted_kept_and_applied(config, tmp_path):
    chance = np.random.default_rng(0)
    rows = []
    for text, topic in sentences(300, seed=0):
        carried = [topic] + (["long"] if len(text.split()) > 11 else []) + (["rare"] if chance.random() < 0.04 else [])
        rows.append((text, "|".join(carried)))
    train, held = write_csv(tmp_path / "train.csv", rows[:220]), write_csv(tmp_path / "held.csv", rows[220:])
    keys = {"data": {"train": str(train), "validation": str(held), "max_length": 32, "multi_label": True}}
    keys["data"]["label_separator"] = "|"
    run = rankwise.train({**config, **keys, "train": {**config["train"], "steps": 16}}, out=tmp_path / "run")
    decision = run.result["decision"]
    assert set(decision["thresholds"]) == set(run.result["labels"])
    kept = predictions.read(run.path, "validation")
    plain = (kept.probabilities >= 0.5).astype(int)
    assert not np.array_equal(kept.predicted, plain)
    expected = [[kept.label_names[c] for c in np.flatnonzero(row)] for row in kept.predicted]
    assert answers(run, [text for text, _ in rows[220:]]) == expected


def test_a_goal_that_does_not_fit_the_data_is_refused_before_anything_is_written(config, tmp_path, capsys):
    wrong = with_keys(config, train__select={"metric": "recall@precision=0.9:sprot"})
    with pytest.raises(rankwise.UserError, match="no class 'sprot', did you mean 'sport'"):
        rankwise.train(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert main(["train", "model.name=roberta-base", "train.select.metric=f1"]) == 2
    assert "expected one of accuracy, loss, macro_f1" in capsys.readouterr().err


@pytest.mark.parametrize("goal", [GOAL, "cost"])
def test_an_export_decides_as_the_run(few, tmp_path, texts, costs, goal):
    pytest.importorskip("onnxruntime")
    goal = f"cost:{costs}" if goal == "cost" else goal
    run = rankwise.train(with_keys(few, train__select={"metric": goal}), out=tmp_path / "run")
    assert main(["export", str(run.path), "--to", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    said = subprocess.run(
        [sys.executable, "predict.py"], cwd=tmp_path / "onnx", input="\n".join(texts), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert [json.loads(line) for line in said.stdout.splitlines()] == answers(run, texts)
