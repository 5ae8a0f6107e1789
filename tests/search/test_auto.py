"""auto: columns are found, the clock is kept, and the choice is explained."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

import rankwise
from conftest import sentences
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.search.auto import _read, _roles, auto
from rankwise.search.clock import plan as clock
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.request import base_tree as base_of
from rankwise.search.request import request_of, smoothing_of
from rankwise.training.interrupt import StopRequest

_NEXT = "next      rankwise predict {0} new.csv labels.csv  |  rankwise report {0}"


def test_what_auto_cannot_do_is_said_before_anything_is_measured(news, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clock, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "search.yaml").write_text("base: {}")
    assert main(["auto", str(news["train"]), "--out", str(tmp_path / "a")]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    for minutes in ("nan", "inf", "-1"):
        assert main(["auto", str(news["train"]), f"--max-minutes={minutes}", "--out", str(tmp_path / "b")]) == 2
        assert "--max-minutes must be a number above zero" in capsys.readouterr().err
    assert main(["auto", str(news["train"]), "train.epochs=2", "--out", str(tmp_path / "b")]) == 2
    assert "train.epochs is what auto plans" in capsys.readouterr().err
    assert main(["auto", str(news["train"]), "data.folds=5", "--out", str(tmp_path / "b")]) == 2
    assert "data.folds is auto's own choice, 5 where rows are few or the clock has the time" in capsys.readouterr().err
    assert main(["auto", str(news["train"]), "budget.max_trainable=2M", "--out", str(tmp_path / "b")]) == 2
    assert "budget.max_trainable cannot be given beside --max-params" in capsys.readouterr().err


def test_labels_are_smoothed_unless_the_user_says_otherwise(news):
    smoothing = {
        words: base_of(str(news["train"]), words, "20k", "accuracy")[0]["train"]["label_smoothing"]
        for words in ((), ("train.label_smoothing=0",))
    }
    assert smoothing == {(): 0.1, ("train.label_smoothing=0",): 0}


@pytest.mark.slow
def test_auto_ends_with_a_winner_and_its_lines(tiny_model, news, tmp_path, capsys, monkeypatch, slower):
    slower(0.1)
    monkeypatch.setattr(clock, "measure", lambda *words: dataclasses.replace(measure(*words), step_s=0.105))
    words = [f"model.name={tiny_model}", f"data.test={news['test']}", "engine=reference", "data.validation_size=0.1"]
    limits = ["--max-params", "20k", "--max-minutes", "0.5", "--out", str(tmp_path / "a")]
    assert main(["auto", str(news["train"]), *words, *limits]) == 0
    shown = capsys.readouterr()
    record = json.loads((tmp_path / "a" / "search.json").read_text())
    assert [*record["auto"]["explanation"], _NEXT.format(tmp_path / "a")] == shown.out.strip().splitlines()
    assert len(record["auto"]["explanation"]) == 11
    assert sum(line.startswith("more      twice the labels: ") for line in shown.out.splitlines()) == 1
    assert record["winner"]["trainable"] <= 20_000
    assert record["winner"]["test"]["looks"] == 1
    assert rankwise.load(tmp_path / "a").label_names == ["business", "science", "sport"]
    assert main(["search", "--out", str(tmp_path / "a"), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auto"]["schedule"] == record["auto"]["schedule"], "a resume keeps it"


@pytest.mark.slow
def test_a_machine_that_slows_down_still_has_a_winner(config, tmp_path, monkeypatch, slower):
    """The plan believes steps to be a hundred times faster than they are."""
    slower(0.1)
    monkeypatch.setattr(clock, "measure", lambda *_: Speed(step_s=0.001, score_s=1e-3, setup_s=1.0))
    words = [
        f"model.name={config['model']['name']}",
        "engine=reference",
        f"data.validation={config['data']['validation']}",
    ]
    record = auto(
        config["data"]["train"],
        words,
        max_params="20k",
        max_minutes=1.0,
        out=tmp_path / "a",
        console=Console(quiet=True),
    )
    assert record["winner"]["chosen"] is not None
    assert record["auto"]["minutes"] <= 1.2
    steps = record["auto"]["schedule"]["steps"]
    (trained,) = [row for row in record["table"] if row["status"] == "done"]
    assert trained["steps"] < steps
    cut = any("the clock ended it after" in line for line in record["auto"]["explanation"])
    assert cut == (record["winner"]["trial"] is not None), "said of a trained winner, not of a floor"


def test_a_goal_chooses_trials_floors_and_the_winner(tiny_model, news, tmp_path):
    goal = "recall@precision=0.7:sport"
    words = [f"model.name={tiny_model}", f"data.validation={news['validation']}", f"data.test={news['test']}"]
    words += ["train.steps=6", "engine=reference"]
    record = auto(
        str(news["train"]), words, goal=goal, max_params=20_000, max_minutes=0.5, out=tmp_path / "out",
        console=Console(quiet=True),
    )  # fmt: skip
    assert record["metric"] == goal
    run = rankwise.Run(tmp_path / "out" / record["winner"]["run"])
    assert run.config.train.select.metric == goal
    assert not (tmp_path / "out" / "again").exists(), (
        "steps that the user named are kept, whatever is left of the clock"
    )
    assert run.result["decision"]["goal"] == goal
    assert record["winner"]["mean"] == run.result["decision"]["value"]
    assert f"test      {goal} {record['winner']['test']['goal']['value']:.4f} at precision " in "".join(
        record["auto"]["explanation"]
    )
    assert record["winner"]["mean"] >= max(floor["mean"] for floor in record["auto"]["floors"])
    assert any(goal in line for line in record["auto"]["explanation"])
    floors = next(line for line in record["auto"]["explanation"] if line.startswith("floor"))
    assert all(
        f"({floor['mean']:.4f} by the goal)" in floors
        for floor in record["auto"]["floors"]
        if floor["mean"] != floor["chosen"]
    )
    words = (tmp_path / "out" / "floors" / "words" / "words" / "words.json").read_text()
    assert json.loads(words)["decision"]["thresholds"].keys() == {"sport"}


@pytest.mark.parametrize(
    ("goal", "said"),
    [("recall@precision=2:sport", "above 0 and at most 1"), ("recall@precision=0.9:tennis", "no class 'tennis'")],
)
def test_a_goal_that_does_not_fit_is_refused_before_anything_is_written(tiny_model, news, tmp_path, goal, said):
    with pytest.raises(UserError, match=said):
        auto(str(news["train"]), [f"model.name={tiny_model}"], goal=goal, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("counts", "expected"), [([50, 50], 0.1), ([98, 2], 0.04), ([60, 30, 10], 0.1), ([999, 1, 0], 0.003)]
)
def test_no_text_is_told_more_of_a_class_than_there_is_of_it(counts, expected):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert smoothing_of(labels, len(counts)) == pytest.approx(expected)
    assert smoothing_of(np.eye(2, dtype=int)[labels[labels < 2]], 2) == pytest.approx(
        min(0.1, 2 * min(counts[:2]) / sum(counts[:2]))
    )


def asked_of(train, model, *words):
    """The request of `auto` with a minute."""
    words, out = [f"model.name={model}", *words], train.parent / "out"
    return request_of(str(train), words, None, "1M", 1.0, "accuracy", out, Console(quiet=True), 0.0, StopRequest())


@pytest.mark.parametrize("said", [[], ["data.multi_label=false"]])
def test_lists_of_labels_are_several_labels(tiny_model, tmp_path, said):
    lines = [{"text": text, "labels": [["a", "b"], ["c"]][n % 2]} for n, (text, _) in enumerate(sentences(140, seed=5))]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = asked_of(tmp_path / "train.jsonl", tiny_model, *said)
    if said:
        with pytest.raises(UserError, match="lists of labels need data.multi_label"):
            _read(request)
        return
    roles = _read(request)
    assert (roles.label_names, roles.train.labels.ndim) == (["a", "b", "c"], 2)
    assert any("cells hold lists of labels" in line for line in roles.report.lines())


@pytest.mark.parametrize("said", [[], ["data.multi_label=false"]])
def test_classes_put_together_of_few_names_are_read_as_several_labels(tiny_model, tmp_path, said):
    """Also where test rows put together what train does not."""
    texts = sentences(140, seed=5)
    for role, cells in (("train", ["a|b", "b|c", "a|c", "a", "b", "c", "b|a"]), ("test", ["a|b|c", "c|b"])):
        lines = [f'"{text}",{cells[n % len(cells)]}\n' for n, (text, _) in enumerate(texts)]
        (tmp_path / f"{role}.csv").write_text("text,label\n" + "".join(lines))
    request = asked_of(tmp_path / "train.csv", tiny_model, f"data.test={tmp_path / 'test.csv'}", *said)
    if said:
        with pytest.raises(UserError, match="unseen in training"):
            _read(request)
        return
    roles = _read(request)
    assert roles.label_names == ["a", "b", "c"]
    assert roles.test.labels.sum() == 350
    assert any("7 classes are put together of 3 names" in line for line in roles.report.lines())
    request.tree["data"]["validation_size"] = 5
    fewer = _roles(request)
    assert len(fewer.validation) == 5
    assert fewer.report.notes[-1] == roles.report.notes[-1], "of fewer rows to choose by, too"
