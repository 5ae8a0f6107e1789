"""Whole searches on a tiny encoder: what is started, what is not, what is chosen, and that a kill changes nothing."""

import json
import shutil

import msgspec
import psutil
import pytest
from rich.console import Console

import processes
import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.search.driver import search
from rankwise.search.sweep import spec
from rankwise.search.sweep import trial as trials
from rankwise.search.sweep.table import better_first
from rankwise.search.sweep.workers import InProcess
from support import pretend
from support import run_search as run

QUIET = Console(quiet=True)


def by_status(record, status):
    return [row for row in record["table"] if row["status"] == status]


def test_a_factorial_search_ends_with_table_groups_and_winner(sweep, news, tmp_path):
    sweep["base"]["data"]["test"] = str(news["test"])
    sweep["seeds"], sweep["finalists"] = 2, 2
    record = run(sweep, tmp_path / "s")
    assert record["status"] == "finished"
    assert [row["status"] for row in record["table"]] == ["done"] * 4
    assert all(row["chosen"] <= row["peak"] and row["final"] is not None for row in record["table"])
    assert record["winner"]["trial"] in record["groups"][0]
    assert [row["seeds"] for row in record["finalists"]] == [2, 2]
    assert record["winner"]["mean"] == max(row["mean"] for row in record["finalists"])
    assert record["winner"]["test"]["looks"] == 1
    assert record["counts"]["steps"] == 6 * 12
    assert {row["trials"] for rows in record["effects"].values() for row in rows} == {2}
    assert json.loads((tmp_path / "s" / "search.json").read_text()) == record
    assert rankwise.load(tmp_path / "s").predict(["the striker scored a goal for the team"])
    again = run(sweep, tmp_path / "s", resume=True)
    assert (again["table"], again["winner"]) == (record["table"], record["winner"])


def test_points_over_budget_or_repeated_are_never_started(sweep, tmp_path, monkeypatch):
    started = []
    carry_out = trials.carry_out
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", lambda task: started.append(task) or carry_out(task))
    sweep["base"]["budget"]["max_trainable"] = 2000
    sweep["base"]["adapter"]["rank"] = "max"
    sweep["axes"] = {"adapter.scope": [["query"]], "adapter.rank": ["max", 14, 500, 1]}
    sweep["constraints"] = ["adapter.rank > 1"]
    record = run(sweep, tmp_path / "s")
    # 2 layers of rank * (32 + 32) beside a head of 99: 14 is the largest rank under 2,000.
    assert [(row["status"], row["rank"]) for row in record["table"]] == [
        ("done", 14),
        ("duplicate", 14),
        ("refused", 500),
        ("refused", 1),
    ]
    assert "the largest rank that fits is 14" in record["table"][2]["why"]
    assert record["table"][3]["why"] == "constraint not met: adapter.rank > 1"
    assert len(started) == 1
    assert [path.name for path in (tmp_path / "s" / "trials").iterdir()] == ["0000"]


def test_one_at_a_time_goes_on_from_the_winner_and_runs_nothing_twice(sweep, tmp_path):
    sweep["strategy"] = {"name": "one_at_a_time"}
    sweep["axes"] = {"train.learning_rate": [1e-4, 5e-3, 2e-2], "adapter.scope": [["query"], ["query", "value"]]}
    record = run(sweep, tmp_path / "s")
    rows = sorted(record["table"], key=lambda row: row["trial"])
    assert [len(row["point"]) for row in rows] == [0, 1, 1, 1, *[len(rows[4]["point"])] * 2]
    assert by_status(record, "duplicate"), "the base's own rate and scope come up again"
    best_rate = max(rows[:4], key=lambda row: (row["chosen"] or 0, -(row["loss"] or 9)))
    assert all(best_rate["point"].items() <= row["point"].items() for row in rows[4:])


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_sampled_searches_repeat_and_stay_in_their_ranges(sweep, tmp_path, name, monkeypatch):
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    sweep["axes"]["train.learning_rate"] = {"low": 1e-3, "high": 2e-2, "log": True}
    sweep["axes"]["adapter.rank"] = {"low": 1, "high": 8}
    sweep["strategy"] = {"name": name, "trials": 6, "seed": 3}
    one, again = (run(sweep, tmp_path / folder) for folder in "ab")
    assert one["table"] == again["table"]
    rates = [row["point"]["train.learning_rate"] for row in one["table"]]
    assert len(set(rates)) == 6
    assert all(1e-3 <= rate <= 2e-2 for rate in rates)
    assert {type(row["point"]["adapter.rank"]) for row in one["table"]} == {int}
    other = run({**sweep, "strategy": {"name": name, "trials": 6, "seed": 4}}, tmp_path / "c")
    assert other["table"] != one["table"]


def test_tpe_learns_where_the_good_rates_are(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", pretend)
    sweep["axes"] = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    sweep["strategy"], sweep["metric"] = {"name": "tpe", "trials": 32, "batch": 1}, "loss"
    rows = sorted(run(sweep, tmp_path / "s")["table"], key=lambda row: row["trial"])
    distances = [row["loss"] for row in rows]
    # A third of the range lies within half a decade of the best rate: chance would give about five of sixteen.
    assert sum(distance < 0.5 for distance in distances[-16:]) >= 9


def test_halving_promotes_the_better_and_they_end_as_if_never_stopped(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 3}
    record = run(sweep, tmp_path / "s")
    assert [row["status"] for row in record["table"]] == ["done", "halved", "halved", "halved"]
    assert [row["steps"] for row in record["table"]] == [12, 6, 3, 3]
    assert record["counts"]["steps"] == 12 + 6 + 3 + 3
    winner = record["winner"]
    straight = rankwise.train(
        sweep["base"],
        [f"train.learning_rate={winner['point']['train.learning_rate']}", "train.evaluate_at=[3, 6]"],
        out=tmp_path / "straight",
    )
    promoted = rankwise.Run(tmp_path / "s" / winner["run"])
    assert promoted.history == straight.history
    assert promoted.result["metrics"] == straight.result["metrics"]


def test_halving_keeps_at_least_so_many_and_the_best_of_them_by_the_final_score_wins(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 3, "least": 3}
    record = run(sweep, tmp_path / "s")
    assert sorted(row["steps"] for row in record["table"]) == [3, 12, 12, 12]
    assert record["counts"]["done"] == 3
    done = [row for row in record["table"] if row["status"] == "done"]
    assert record["winner"]["chosen"] == max(row["chosen"] for row in done)


def test_rates_take_turns_at_a_rung(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-5, 1e-2], "adapter.rank": [1, 2]}
    sweep["halving"] = {"factor": 2, "rungs": 2, "within": "train.learning_rate"}
    record = run(sweep, tmp_path / "s")
    done = [row["point"]["train.learning_rate"] for row in record["table"] if row["status"] == "done"]
    assert sorted(done) == [1e-5, 1e-2]
    plain = run(sweep | {"halving": {"factor": 2, "rungs": 2}}, tmp_path / "plain")
    kept = {row["point"]["train.learning_rate"] for row in plain["table"] if row["status"] == "done"}
    assert len(kept) == 1, "without turns both that go on are of one rate"


def test_rungs_are_judged_by_the_loss_unless_an_axis_changes_it(sweep, tmp_path, monkeypatch):
    judged = []

    def spied(trials, metric, rung=None):
        judged.extend([metric] if rung is not None else [])
        return better_first(trials, metric, rung)

    monkeypatch.setattr("rankwise.search.driver.better_first", spied)
    sweep["axes"] = {"train.learning_rate": [1e-4, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 2}
    record = run(sweep, tmp_path / "loss")
    histories = [rankwise.Run(tmp_path / "loss" / trial["run"]).history for trial in record["trials"]]
    losses = [next(row["validation_loss"] for row in history if row["step"] == 6) for history in histories]
    assert record["winner"]["trial"] == int(losses[1] < losses[0])
    run(sweep | {"halving": {**sweep["halving"], "by": "metric"}}, tmp_path / "metric")
    run(sweep | {"axes": {"train.label_smoothing": [0.0, 0.2]}}, tmp_path / "smoothing")
    assert judged == ["last_loss", "accuracy", "accuracy"]


def test_hyperband_gives_fewer_trials_a_longer_start(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": {"low": 1e-3, "high": 2e-2, "log": True}}
    sweep["strategy"] = {"name": "random", "trials": 7}
    sweep["halving"] = {"kind": "hyperband", "factor": 2, "rungs": 2}
    record = run(sweep, tmp_path / "s")
    rounds = [[t for t in record["trials"] if t["round"] == number] for number in (0, 1)]
    assert [len(each) for each in rounds] == [4, 3]
    assert {t["status"] for t in rounds[1]} == {"done"}
    assert sorted(t["status"] for t in rounds[0]) == ["done", "done", "halved", "halved"]


def test_a_trial_that_fails_is_told_and_the_search_goes_on(sweep, tmp_path, monkeypatch):
    from rankwise.training.loop import Loop

    step = Loop._train_step

    def breaks(self):
        if self.train.learning_rate == 1e-2:
            raise FloatingPointError("on purpose")
        step(self)

    monkeypatch.setattr(Loop, "_train_step", breaks)
    record = run(sweep, tmp_path / "s")
    assert [row["why"] for row in by_status(record, "failed")] == ["FloatingPointError: on purpose"] * 2
    assert len(by_status(record, "done")) == 2
    sweep["axes"] = {"train.learning_rate": [1e-2]}
    with pytest.raises(UserError, match="no trial of the search came to its end; the first reason: FloatingPoint"):
        run(sweep, tmp_path / "none")


def test_a_point_without_evaluation_is_refused(sweep, tmp_path):
    sweep["axes"] = {"train.evaluate": [True, False]}
    record = run(sweep, tmp_path / "s")
    assert [row["status"] for row in record["table"]] == ["done", "refused"]
    assert "a search needs train.evaluate: true" in record["table"][1]["why"]


def test_folds_hold_no_rows_out_for_a_search(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-3]}
    with pytest.raises(UserError, match="data.folds holds none out"):
        search(sweep, ["data.folds=2", "data.validation=null"], out=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    sweep["axes"] = {"folds": [{"data.folds": 2}, {"data.folds": 3}]}
    with pytest.raises(UserError, match=r"axes\.folds varies data\.folds"):
        search(sweep, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_failed_trial_is_tried_again_by_a_resume_from_where_it_was(sweep, tmp_path, monkeypatch):
    from rankwise.training.loop import Loop

    sweep["axes"] = {"train.learning_rate": [1e-4, 1e-3, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 2}
    whole = run(sweep, tmp_path / "whole")
    step, steps, failed = Loop._train_step, [], []

    def full_disk(self):
        if self.state.step == 10 and not failed:
            failed.append(True)
            raise OSError("no space left on device")
        steps.append(self.state.step)
        step(self)

    class UntilTheEnd(InProcess):
        def run(self, tasks):
            if all(task.stop_at_step is None for task in tasks):
                monkeypatch.setattr(Loop, "_train_step", full_disk)
                outcomes = list(super().run(tasks))
                assert outcomes[0].status == "failed"
                yield outcomes[0]
                raise Killed
            yield from super().run(tasks)

    with pytest.raises(Killed):
        run(sweep, tmp_path / "s", workers=UntilTheEnd())
    steps.clear()
    again = run(sweep, tmp_path / "s", resume=True)
    assert min(steps) == 8  # the rung it had come to
    assert again["table"] == whole["table"]
    assert again["counts"]["failed"] == 0


def test_a_search_that_is_over_keeps_its_failed_trials(sweep, tmp_path, monkeypatch):
    from rankwise.training.loop import Loop

    step, tried = Loop._train_step, []

    def breaks(self):
        if self.train.learning_rate == 1e-2:
            tried.append(self.state.step)
            raise OSError("no space left on device")
        step(self)

    monkeypatch.setattr(Loop, "_train_step", breaks)
    first = run(sweep, tmp_path / "s")
    before = len(tried)
    again = run(sweep, tmp_path / "s", resume=True)
    assert len(tried) == before > 0
    assert again["table"] == first["table"]


def test_halving_resumes_alike_when_two_rungs_fall_on_one_step(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
    sweep["base"]["train"]["eval_every"] = 6  # rungs at 3 and 6 steps: both at 6
    sweep["halving"] = {"factor": 2, "rungs": 3}
    whole = run(sweep, tmp_path / "whole")
    assert whole["counts"]["done"] == 2

    class UntilTheLastRung(InProcess):
        def run(self, tasks):
            if any(task.stop_at_step is None for task in tasks):
                raise Killed
            yield from super().run(tasks)

    with pytest.raises(Killed):
        search(sweep, out=tmp_path / "cut", console=QUIET, workers=UntilTheLastRung())
    resumed = run(sweep, tmp_path / "cut", resume=True)
    assert resumed["table"] == whole["table"]
    assert resumed["counts"] == whole["counts"]


def test_adalora_can_be_halved_before_its_ranks_are_final(sweep, tmp_path):
    sweep["base"]["adapter"] |= {"method": "adalora", "rank": 4}
    sweep["axes"] = {"train.learning_rate": [1e-3, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 2}
    record = run(sweep, tmp_path / "s")
    assert sorted(row["status"] for row in record["table"]) == ["done", "halved"]


def test_the_classes_are_those_of_the_data(sweep, tmp_path):
    sweep["base"]["data"]["num_labels"] = 7
    sweep["axes"] = {"train.learning_rate": [1e-2]}
    record = run(sweep, tmp_path / "s")
    result = rankwise.Run(tmp_path / "s" / record["winner"]["run"]).result
    assert record["winner"]["trainable"] == result["parameters"]["trainable"]
    assert result["labels"] == ["business", "science", "sport"]


def test_a_folder_belongs_to_one_search(sweep, tmp_path):
    sweep["axes"] = {"train.learning_rate": [1e-2]}
    run(sweep, tmp_path / "s")
    with pytest.raises(UserError, match=r"there is no search at .*typo to go on with"):
        run(sweep, tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    with pytest.raises(UserError, match="holds a search already: go on with --resume"):
        run(sweep, tmp_path / "s")
    with pytest.raises(UserError, match="started with another search file"):
        run({**sweep, "seeds": 2}, tmp_path / "s", resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not a search's folder"):
        run(sweep, tmp_path / "mine")


def test_two_searches_do_not_share_a_folder(sweep, tmp_path):
    from filelock import FileLock

    folder = tmp_path / "s"
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another search is running in"):
        run(sweep, folder)


@pytest.mark.parametrize("storage", ["sqlite:///{}/own.db", "{}/own.journal"])
def test_state_goes_where_the_file_says(sweep, tmp_path, storage):
    sweep["axes"] = {"train.learning_rate": [1e-2]}
    sweep["storage"] = storage.format(tmp_path)
    record = run(sweep, tmp_path / "s")
    assert not (tmp_path / "s" / "study.db").exists()
    assert run(sweep, tmp_path / "s", resume=True)["table"] == record["table"]
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(UserError, match="holds trials of a search"):
        run(sweep, tmp_path / "s")
    with pytest.raises(UserError, match="cannot be opened"):
        run({**sweep, "storage": "sqlite:////nowhere/at/all.db"}, tmp_path / "t")


# --- killed ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_with_its_workers_at_work_a_search_ends_with_the_same_table(sweep, tmp_path):
    sweep["base"]["train"] |= {"steps": 40, "eval_every": 10}
    sweep["axes"] = {"train.learning_rate": [2e-3, 1e-2]}
    sweep["halving"] = {"factor": 2, "rungs": 2}
    whole = run(sweep, tmp_path / "whole")
    file = tmp_path / "sweep.yaml"
    file.write_text(msgspec.yaml.encode(sweep).decode())
    with processes.Process("search", file, "--out", tmp_path / "cut", "--workers", "2") as process:
        process.wait_for(lambda: list((tmp_path / "cut").glob("trials/*/checkpoints/step-*")))
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) == 2
    # A resumed search must not meet an orphan in a trial's folder.
    assert not psutil.wait_procs(workers, timeout=30)[1]
    before = (
        json.loads((tmp_path / "cut" / "search.json").read_text()) if (tmp_path / "cut/search.json").exists() else {}
    )
    assert before.get("status") != "finished"
    done = processes.finished("search", file, "--out", tmp_path / "cut", "--resume", "--json")
    assert done.returncode == 0, done.err
    record = json.loads(done.out)
    assert record["table"] == whole["table"]
    assert record["groups"] == whole["groups"]
    assert record["counts"] == whole["counts"]


def test_the_command_takes_the_workers_it_is_told():
    from rankwise.cli.search import _workers
    from rankwise.search.sweep.workers import Processes

    assert _workers(1, None, spec.Resources()) is None
    made = _workers(2, None, spec.Resources())
    assert isinstance(made, Processes)
    assert made.count == 2


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_prints_a_table_or_one_json_object(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sweep["axes"] = {"train.learning_rate": [1e-4, 1e-2]}
    sweep["metric"] = "loss"
    file = tmp_path / "sweep.yaml"
    file.write_text(msgspec.yaml.encode(sweep).decode())
    assert main(["search", str(file), "train.steps=8", "--out", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr()
    table = [line for line in shown.out.splitlines() if line.startswith(("tri", "* ", "- "))][:3]
    assert table[0].endswith("final    loss"), "the metric has a column of its own"
    assert {line.split()[2] for line in table[1:]} == {"0.0001", "0.01"}
    assert max(map(len, table)) <= 80
    assert "winner: trial " in shown.out
    assert "2/2  trial 1 done at step 8" in shown.err
    assert "about 0 s left" in shown.err
    assert main(["search", "--resume", "--out", str(tmp_path / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "finished"
    assert main(["search", str(file), "--workers", "0"]) == 2
    assert main(["search"]) == 2
    assert "which search?" in capsys.readouterr().err
