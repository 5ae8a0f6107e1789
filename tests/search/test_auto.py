"""auto: columns are found, the clock is planned and kept, and the choice is explained."""

import dataclasses
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import rankwise
from conftest import sentences
from rankwise.cli import main
from rankwise.config import load
from rankwise.errors import UserError
from rankwise.search.auto import _read, auto
from rankwise.search.clock import plan as clock
from rankwise.search.clock.forecast import of_auto
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.designs.design import designs_for, usual_rate
from rankwise.search.driver import Sweep
from rankwise.search.request import base_tree as base_of
from rankwise.search.request import request_of, smoothing_of
from rankwise.search.sweep.strategies import Round, cost
from rankwise.search.sweep.trial import Task, carry_out, load_data
from rankwise.training.deadline import Deadline
from rankwise.training.interrupt import StopRequest

_NEXT = "next      rankwise predict {0} new.csv labels.csv  |  rankwise report {0}"


def roles(train, validation, test=0):
    return SimpleNamespace(train=range(train), validation=range(validation), test=range(test) if test else None)


@pytest.mark.parametrize(("minutes", "designs"), [(30, 9), (5, 6), (4, 3), (3, 1), (0.5, 1)])
def test_fewer_designs_compete_when_the_clock_is_short(minutes, designs):
    speed = Speed(step_s=0.2, score_s=0.002, setup_s=0.5)
    schedule = clock.plan_clock(speed, roles(2000, 200), 16, 60 * minutes, 60 * minutes)
    assert schedule.designs == designs
    # What is planned, with setting up and the end, is within the clock.
    rungs, evaluations = (3, 9) if designs > 1 else (1, -(-schedule.steps // schedule.eval_every))
    work = cost([Round(0, designs, rungs)], clock.HALVING) * (schedule.steps * 0.2 + evaluations * 200 * 0.002)
    work += min(designs, 2) * 1.3 * 2000 * 0.002  # heads fitted first, on features shared
    assert work == pytest.approx(schedule.train_s, rel=0.02)
    assert work + schedule.reserve_s <= (0.95 if designs > 1 else 1) * 60 * minutes


@pytest.mark.parametrize(("seconds", "evaluations"), [(27, 1), (80, 2), (600, 4)])
def test_a_clock_that_has_hardly_time_to_score_is_spent_on_steps(seconds, evaluations):
    """Of 1,000 rows an evaluation takes two seconds here, and so does a head of 1,000 rows, the least there is."""
    fits = clock.plan_clock(Speed(0.1, 0.002, 0.5), roles(30_000, 1_000), 32, seconds, seconds, available=lambda _: 1)
    assert -(-fits.steps // fits.eval_every) == evaluations


@pytest.mark.parametrize(
    ("before", "looks", "times"),
    [(1.0, [3.0, 3.0], 3), (1.0, [3.0, 2.0], 2), (1.0, [5.0, 1.0], 1), (1.0, [1.05], 1), (3.0, [1.0], 1)],
)
def test_a_machine_is_slower_where_two_looks_say_so(monkeypatch, before, looks, times):
    """A tenth of a second beside a program that passes by planned a fifth of the steps, or none."""
    monkeypatch.setattr("rankwise.machine.crowding.crowding", lambda: looks.pop(0))
    now = Speed(0.1, 0.002, 0.5, 0.3, before).now()
    assert now == Speed(times * 0.1, times * 0.002, times * 0.5, times * 0.3, times * before)
    assert not looks


def test_more_is_kept_for_the_end_beside_other_programs():
    alone, beside = Speed(0.1, 0.002, 0.5), Speed(0.1, 0.002, 0.5, crowding=3.0)
    plans = [clock.plan_clock(one, roles(2_000, 200), 16, 180, 180, available=lambda _: 1) for one in (alone, beside)]
    assert plans[1].reserve_s == pytest.approx(plans[0].reserve_s + 8)
    assert plans[1].end_s == pytest.approx(plans[0].end_s + 4)
    assert beside.at(0.5).crowding == 3.0


@pytest.mark.parametrize(
    ("held_out", "seconds", "expected"), [(2_600, 30, 1_000), (2_600, 180, 2_600), (5_000, 60, 1_200), (300, 30, 300)]
)
def test_no_more_rows_are_held_out_than_a_clock_can_score(held_out, seconds, expected):
    assert clock.choosing_rows(held_out, seconds) == expected


@pytest.mark.parametrize(
    ("rows", "share", "expected"), [(1_000, 0.01, None), (10**6, 0.01, 9_000), (10**6, 10.0, 2_048)]
)
def test_heads_are_fitted_on_as_many_rows_as_a_share_of_the_clock_scores(rows, share, expected):
    assert clock.probe_rows(rows, Speed(1.0, share, 1.0), 900) == expected


@pytest.mark.parametrize(("there", "designs"), [(1, 1), (2, 2), (3, 3), (5, 5), (20, 9)])
def test_time_is_planned_for_no_more_designs_than_there_are(there, designs):
    speed = Speed(step_s=0.2, score_s=0.002, setup_s=0.5)
    schedule = clock.plan_clock(speed, roles(2000, 200), 16, 1800, 1800, available=lambda steps: there)
    assert schedule.designs == designs
    alone = clock.plan_clock(speed, roles(2000, 200), 16, 600, 600, available=lambda steps: 1)
    crowd = clock.plan_clock(speed, roles(2000, 200), 16, 600, 600)
    assert alone.steps > crowd.steps


def test_a_clock_too_short_for_anything_is_refused():
    with pytest.raises(UserError, match="the clock is too short"):
        clock.plan_clock(Speed(2.0, 0.01, 1.0), roles(2000, 200), 16, 20, 20)


@pytest.mark.parametrize(
    ("second_a_token", "steps", "expected"),
    [
        (0.0005, None, [200]),
        (0.0012, None, [200, 128]),
        (0.004, None, [200, 64]),
        (0.002, 24, [200]),
        (0.006, 24, [200, 128]),
    ],
)
def test_long_texts_are_cut_shorter_when_there_is_no_time_for_them(
    config, monkeypatch, second_a_token, steps, expected
):
    lengths = []

    def measured(config, roles, seconds):
        lengths.append(config.data.max_length)
        return Speed(step_s=second_a_token * config.data.max_length, score_s=1e-3, setup_s=0.1)

    monkeypatch.setattr(clock, "measure", measured)
    texts = SimpleNamespace(max_length=200, full_lengths=np.full(240, 400), positions=512)
    monkeypatch.setattr("rankwise.training.examples.tokenised", lambda *_: texts)
    tree = {**config, "data": {**config["data"], "max_length": None}, "train": {**config["train"], "steps": steps}}
    found = load_data(load(tree).data, ["train", "validation"])
    planned, speed = clock.fit_clock(tree, found, time.time() + 30, 30)
    assert lengths == expected, "measured at the longest and at the chosen one"
    assert planned.data.max_length == expected[-1]
    if steps is not None:
        fits = clock.plan_clock(speed, found, 16, 30, 30, steps=planned.train.steps)
        assert fits.steps == steps, "the user's own number of steps is kept"


def test_designs_fit_the_budget_differ_and_leave_alone_what_is_fixed(tiny_model):
    config = load({"model": {"name": str(tiny_model)}, "budget": {"max_trainable": 3000}})
    designs = designs_for(config, set(), 3, steps=600)
    for design in designs:
        words = [f"{key}={json.dumps(value)}" for key, value in {"adapter.rank": "max", **design}.items()]
        plan = rankwise.plan(config, words, num_labels=3)
        assert plan.fits
        assert plan.rank == plan.largest_rank
    assert len({json.dumps(design, sort_keys=True) for design in designs}) == len(designs) >= 6
    fixed = designs_for(config, {"train.learning_rate", "adapter.scope"}, 3, steps=600)
    assert all("train.learning_rate" not in design and "adapter.scope" not in design for design in fixed)


def test_shorter_runs_start_from_higher_rates():
    assert [usual_rate(steps) for steps in (1, 60, 600, 2400, 10**6)] == [3e-3, 3e-3, 1e-3, 5e-4, 3e-4]


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


def test_speed_is_measured_whatever_the_start(config):
    # EVA's start needs activations of training texts, which a measurement has no use for.
    tree = {**config, "adapter": {**config["adapter"], "init": "eva"}}
    found = load_data(load(tree).data, ["train", "validation"])
    assert measure(load(tree), found, 0.2).step_s > 0


def test_what_is_left_of_the_clock_is_forecast_to_go_to_the_winner_where_it_is_enough():
    speed = Speed(step_s=0.1, score_s=0.001, setup_s=1.0)
    plan = clock.ClockPlan(designs=1, steps=500, epochs=1.0, eval_every=100, train_s=50.0, reserve_s=20.0)
    most = of_auto(plan, speed, 1000, 100, 10.0, 80.0)[0]
    more = of_auto(plan, speed, 1000, 100, 10.0, 180.0)[0]
    assert 60 / 60 < most < 75 / 60, "nothing is left that is worth a second run"
    assert 140 / 60 < more < 165 / 60, "a second run takes nine tenths of the rest"
    assert of_auto(plan, speed, 1000, 100, 10.0, 60.0)[0] <= 60 / 60, "never beyond the clock"


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


def test_near_the_end_of_the_clock_fewer_go_on(tmp_path):
    def affordable(seconds_left):
        outcome = SimpleNamespace(step=10, seconds=10.0)  # a second a step
        ranked = [SimpleNamespace(total_steps=90, eval_every=10, outcome=outcome) for _ in range(9)]
        deadline = None if seconds_left is None else Deadline(time.time() + seconds_left)
        sweep = SimpleNamespace(trials=ranked, deadline=deadline, halving=clock.HALVING)
        return Sweep._affordable(sweep, ranked, 0, 3)

    # Each to step 30, and the best of them to step 90: 20 s a trial, and 60 s.
    assert [affordable(seconds) for seconds in (None, 1000, 110, 50)] == [3, 3, 2, 1]
    late = Task(0, {}, str(tmp_path / "late"), until=10, deadline=Deadline(time.time() - 1), optional=True)
    assert carry_out(late).status == "late"
    assert not (tmp_path / "late").exists()


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
