"""Some thousand rows are judged by folds where the clock has the time for them and for all rows."""

import json
import time
from types import SimpleNamespace

import pytest

import rankwise
from rankwise.cli import main
from rankwise.runs.folder import Run
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.contenders import of_more_rows
from rankwise.search.folds import comparison, lines
from rankwise.search.folds import plan as planning
from rankwise.search.folds.standing import Standing
from support import sentences, write_csv


def planned(rows, step_s, minutes=3, batch=16, steps=None):
    config = rankwise.config.from_dict(
        {"model": {"name": "packaged:all-MiniLM-L6-v2"}, "train": {"batch_size": batch, "steps": steps}}
    )
    held = rows // 10
    roles = SimpleNamespace(train=range(rows - held), validation=range(held), test=None, label_names=list("abcd"))
    speed = Speed(step_s=step_s, score_s=step_s / 50, setup_s=0.5)
    return planning.planned(config, roles, speed, Clock(time.time() - 10, 60 * minutes))


def test_the_clock_decides_between_folds_and_rows_held_out():
    plan = planned(1_000, 0.04)
    assert (plan.steps, plan.epochs) == (625, 10.0)
    assert 2 <= plan.folds <= 5
    assert (plan.folds + 1) * plan.run_s + plan.reserve_s < 170
    assert planned(1_000, 0.04, minutes=10).folds == 5
    shorter = planned(1_000, 0.08)
    assert (312 <= shorter.steps < 625, shorter.folds) == (True, 2), "steps come before folds"
    assert planned(1_000, 0.3) is None
    assert planned(1_000, 0.3, minutes=30) is not None
    assert planned(2_000, 0.06) is None
    assert planned(2_000, 0.06, minutes=15) is not None
    assert planned(6_000, 0.001, minutes=60) is None, "a tenth of so many is enough to choose by"


def test_what_folds_leave_of_the_clock_goes_to_the_run_on_all_rows():
    plan = planned(1_000, 0.08)
    contender = of_more_rows(set(), plan.steps)[0]
    chosen = Standing(contender, [], [], [[], []], [], 2 * plan.run_s)
    longer = plan.on_all_rows(chosen, 1.2 * plan.run_s).contender
    assert longer.steps == pytest.approx(0.9 * 1.2 * plan.steps, abs=1)
    most = plan.on_all_rows(chosen, 100 * plan.run_s).contender
    assert most.steps == 625
    assert most.design["train.learning_rate"] < contender.design["train.learning_rate"]
    assert plan.on_all_rows(chosen, plan.run_s) is chosen
    assert planned(1_000, 0.04, steps=50).on_all_rows(chosen, 1e4) is chosen
    solved = Standing(of_more_rows(set(), 9)[1], [], [], [[]], [], 1.0)
    assert plan.on_all_rows(solved, 1e4) is solved


def test_steps_that_the_user_fixed_are_those_of_every_run():
    assert planned(1_000, 0.04, steps=50).steps == 50
    assert planned(1_000, 0.04, steps=5_000) is None


@pytest.mark.slow
@pytest.mark.usefixtures("measured_soon")
def test_no_row_is_held_out_where_the_clock_has_time(tiny_model, tmp_path, capsys, monkeypatch):
    for module in (planning, comparison, lines):
        monkeypatch.setattr(module, "FOLDS", 2)
    train, test = write_csv(tmp_path / "m.csv", sentences(520, 0)), write_csv(tmp_path / "test.csv", sentences(60, 1))
    out = tmp_path / "a"
    words = [f"model.name={tiny_model}", f"data.test={test}", "train.steps=6", "train.batch_size=16"]
    assert main(["auto", str(train), *words, "--max-params", "20k", "--max-minutes", "60", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    record = json.loads((out / "search.json").read_text())
    folds, winner = record["auto"]["folds"], record["winner"]
    assert [one["design"] for one in folds[:4]] == [
        "LoRA from a fitted head",
        "frozen features and logistic regression",
        "frozen features (first token and mean) and logistic regression",
        "TF-IDF and logistic regression",
    ]
    assert all(one["examples"] == 520 for one in folds)
    assert "2 of 2 folds choose, then all rows are fitted: runs of 6 steps" in shown.out
    assert shown.err.count("2 of 2 folds choose") == 1
    run = Run(out / winner["run"])
    assert run.record.data["train"].rows == 520
    assert winner["trainable"] <= 20_000
    assert winner["test"]["accuracy"] > 0.9
    assert rankwise.load(out).predict(["the striker scored a goal for the team"]) == ["sport"]
