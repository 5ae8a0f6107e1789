"""What a search says of its winner: ends of axes, finalists, what a resume and the clock change."""

import dataclasses
import time
from types import SimpleNamespace

import pytest

import rankwise
from rankwise import deadline
from rankwise.search import driver
from rankwise.search.sweep import trial as trials
from rankwise.search.sweep.workers import InProcess
from rankwise.training import loop
from support import pretend
from support import run_search as run


class Killed(Exception):
    pass


def test_a_search_leaves_the_hosts_optuna_as_talkative_as_it_was(sweep, tmp_path, monkeypatch):
    optuna = pytest.importorskip("optuna")
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.DEBUG)
        run(sweep, tmp_path / "s")
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


@pytest.mark.parametrize(("rates", "note"), [([1e-3, 2e-3], "0.002 is the highest tried"), ([1e-3, 5e-3, 1e-2], "")])
def test_an_optimum_at_the_edge_of_its_range_is_said_so(sweep, tmp_path, monkeypatch, rates, note):
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    sweep["axes"] = {"train.learning_rate": rates}
    notes = " ".join(run(sweep, tmp_path / "s")["notes"])
    assert (note in notes) if note else ("tried" not in notes)
    assert f"{len(rates)} of {len(rates)} whole runs are not distinguishable" in notes


def test_a_base_that_wins_at_the_edge_is_said_so(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    sweep["base"]["train"]["learning_rate"] = 2e-3
    sweep["axes"], sweep["strategy"] = {"train.learning_rate": [5e-4, 1e-3, 2e-3]}, {"name": "one_at_a_time"}
    record = run(sweep, tmp_path / "s")
    assert record["winner"]["point"] == {}
    assert "the best value 0.002 is the highest tried" in " ".join(record["notes"])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("metric", ["loss", "macro_f1", "accuracy"])
def test_the_best_group_is_by_the_wanted_score_and_holds_the_winner(sweep, tmp_path, metric):
    sweep["metric"], sweep["axes"] = metric, {"train.learning_rate": [1e-7, 2e-7, 1e-2]}
    sweep["base"]["train"] |= {"steps": 100, "eval_every": 50, "batch_size": 16}
    record = run(sweep, tmp_path / "s")
    assert record["groups"][0][0] == record["winner"]["trial"] == 2
    values = [row[metric] if metric != "accuracy" else row["chosen"] for row in record["table"]]
    assert values == sorted(values, reverse=metric != "loss")
    assert record["groups"] == [[2]], "one that learned nothing is told apart"


def test_finalists_on_other_rows_are_not_compared(sweep, tmp_path):
    sweep["axes"], sweep["seeds"] = {"data.validation_size": [8, 12]}, 2
    sweep["base"]["data"].pop("validation", None)
    record = run(sweep, tmp_path / "s")
    assert [row["trial"] for row in record["finalists"]] == [record["winner"]["trial"]]
    assert "1 trials were scored on other validation rows" in " ".join(record["notes"])


def test_a_finalist_that_lacks_a_seed_cannot_win(sweep, tmp_path, monkeypatch):
    sweep["axes"], sweep["seeds"] = {"train.learning_rate": [5e-3, 1e-3]}, 2

    def breaks(task):
        if task.number >= 2 and task.config["train"]["learning_rate"] == 5e-3:  # its second seed
            return trials.Outcome(task.number, "failed", error="no memory")
        return pretend(task)

    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", breaks)
    record = run(sweep, tmp_path / "s")
    assert record["winner"]["point"] == {"train.learning_rate": 1e-3}
    assert "1 finalists have fewer seeds" in " ".join(record["notes"])


def test_a_late_finalist_is_repeated_too(sweep, tmp_path, monkeypatch):
    sweep["axes"], sweep["seeds"], sweep["finalists"] = {"train.learning_rate": [5e-3, 1e-3, 3e-4]}, 2, 2
    repeats = []

    class Interrupted(InProcess):
        def run(self, tasks):
            for task in tasks:
                if task.number >= 3:  # while the finalists' second seeds run
                    repeats.append(task.number)
                    if len(repeats) > 1:
                        raise Killed
                best = task.config["train"]["learning_rate"] == 5e-3
                yield trials.Outcome(task.number, "failed", error="no space") if best else pretend(task)

    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    with pytest.raises(Killed):
        run(sweep, tmp_path / "s", workers=Interrupted())
    record = run(sweep, tmp_path / "s", resume=True)
    assert record["winner"]["point"] == {"train.learning_rate": 5e-3}
    assert [row["seeds"] for row in record["finalists"]] == [2, 2]


def test_a_length_that_no_model_has_is_refused_with_several_workers_too(sweep, tmp_path):
    sweep["axes"] = {"data.max_length": [16, 100_000]}
    record = run(sweep, tmp_path / "s", workers=Several())
    assert [row["status"] for row in record["table"]] == ["done", "refused"]


def test_a_trial_that_the_clock_cut_does_not_beat_better_ones_that_pause(sweep, tmp_path):
    """The clock ended trial 1 in the first rung; trial 0 was better there, so it is the one that is made whole."""
    sweep["axes"], sweep["halving"] = {"train.learning_rate": [5e-3, 1e-3]}, {"factor": 2, "rungs": 2}
    asked = []

    class Slow(InProcess):
        def run(self, tasks):
            asked.extend((task.number, task.stop_at_step, task.optional) for task in tasks)
            for task in tasks:
                if task.optional and len(asked) > 2:
                    yield trials.Outcome(task.number, "late")
                elif task.stop_at_step is None:
                    yield dataclasses.replace(seen[task.number], status="stopped_early")
                else:
                    seen[task.number] = pretend(task)
                    yield dataclasses.replace(seen[task.number], status="paused", step=6 - 2 * task.number)

    seen = {}
    record = run(sweep, tmp_path / "s", workers=Slow(), deadline=time.time() - 1)
    assert asked == [(0, 6, False), (1, 6, True), (0, None, False)]
    assert record["winner"]["trial"] == 0
    assert [row["status"] for row in record["table"]] == ["done", "halved"]


@pytest.mark.parametrize("cut", [0, 1])
def test_the_clock_ends_a_search_of_real_runs_with_its_best(sweep, tmp_path, monkeypatch, cut):
    """The clock ends inside a rung, in the worse trial's first steps or in the better one's."""
    rates = [1e-2, 1e-6] if cut else [1e-6, 1e-2]
    sweep["base"]["train"] |= {"steps": 80, "eval_every": 80}
    sweep["axes"], sweep["halving"] = {"train.learning_rate": rates}, {"factor": 2, "rungs": 2}
    step, clock = loop.Loop._train_step, {"now": 1000.0}

    def ticking(self):
        step(self)
        clock["now"] += 1

    monkeypatch.setattr(loop.Loop, "_train_step", ticking)
    for module in (loop, deadline, driver):
        monkeypatch.setattr(
            module,
            "time",
            SimpleNamespace(time=lambda: clock["now"], perf_counter=time.perf_counter, monotonic=time.monotonic),
        )
    record = run(sweep, tmp_path / "s", deadline=1000.0 + 70)
    assert record["winner"]["point"] == {"train.learning_rate": 1e-2}
    steps = {row["trial"]: row["steps"] for row in record["table"]}
    assert (steps[0], steps[1]) == (40, 30)
    assert [row["status"] for row in record["table"]] == ["done", "halved"]


def test_rungs_stand_where_the_schedule_says_whatever_the_evaluations(sweep, tmp_path):
    sweep["base"]["train"] |= {"steps": 12, "eval_every": 12}
    sweep["axes"], sweep["halving"] = {"train.learning_rate": [1e-2, 1e-3, 1e-4, 1e-5]}, {"factor": 2, "rungs": 3}
    record = run(sweep, tmp_path / "s")
    reached = sorted([rung["reached"] for rung in trial["rungs"]] for trial in record["trials"])
    assert reached == [[3], [3], [3, 6], [3, 6, 12]]
    winner = rankwise.Run(tmp_path / "s" / record["winner"]["run"])
    assert winner.config.train.evaluate_at == [3, 6]
    assert [row["step"] for row in winner.history] == [3, 6, 12]


def test_nobody_is_halved_twice_on_one_step(sweep, tmp_path):
    sweep["base"]["train"] |= {"steps": 2, "eval_every": 1}
    sweep["axes"], sweep["halving"] = {"train.learning_rate": [1e-2, 1e-3, 1e-4, 1e-5]}, {"factor": 2, "rungs": 3}
    record = run(sweep, tmp_path / "s")  # rungs at 1, 1 and 2
    assert sorted(row["steps"] for row in record["table"]) == [1, 1, 2, 2]


class Several(InProcess):
    count = 2
