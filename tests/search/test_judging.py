"""What a search says of its winner: ends of axes, finalists, what a resume and the clock change."""

import dataclasses
import time

import pytest

from rankwise.search import trial as trials
from rankwise.search.workers import InProcess
from support import pretend
from support import run_search as run


class Killed(Exception):
    pass


@pytest.mark.parametrize(("rates", "note"), [([1e-3, 2e-3], "0.002 is the highest tried"), ([1e-3, 5e-3, 1e-2], "")])
def test_an_optimum_at_the_edge_of_its_range_is_said_so(sweep, tmp_path, monkeypatch, rates, note):
    monkeypatch.setattr("rankwise.search.workers.carry_out", pretend)
    sweep["axes"] = {"train.learning_rate": rates}
    notes = " ".join(run(sweep, tmp_path / "s")["notes"])
    assert (note in notes) if note else ("tried" not in notes)
    assert f"{len(rates)} of {len(rates)} whole runs are not distinguishable" in notes


def test_a_base_that_wins_at_the_edge_is_said_so(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.search.workers.carry_out", pretend)
    sweep["base"]["train"]["learning_rate"] = 2e-3
    sweep["axes"], sweep["strategy"] = {"train.learning_rate": [5e-4, 1e-3, 2e-3]}, {"name": "one_at_a_time"}
    record = run(sweep, tmp_path / "s")
    assert record["winner"]["point"] == {}
    assert "the best value 0.002 is the highest tried" in " ".join(record["notes"])


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

    monkeypatch.setattr("rankwise.search.workers.carry_out", breaks)
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

    monkeypatch.setattr("rankwise.search.workers.carry_out", pretend)
    with pytest.raises(Killed):
        run(sweep, tmp_path / "s", workers=Interrupted())
    record = run(sweep, tmp_path / "s", resume=True)
    assert record["winner"]["point"] == {"train.learning_rate": 5e-3}
    assert [row["seeds"] for row in record["finalists"]] == [2, 2]


def test_a_length_that_no_model_has_is_refused_with_several_workers_too(sweep, tmp_path):
    sweep["axes"] = {"data.max_length": [16, 100_000]}
    record = run(sweep, tmp_path / "s", workers=Several())
    assert [row["status"] for row in record["table"]] == ["done", "refused"]


def test_no_trial_goes_on_after_the_deadline_once_one_is_whole(sweep, tmp_path):
    """The clock ended trial 1 in the first rung; trial 0 was better there."""
    sweep["axes"], sweep["halving"] = {"train.learning_rate": [5e-3, 1e-3]}, {"factor": 2, "rungs": 2}
    asked = []

    class Slow(InProcess):
        def run(self, tasks):
            asked.append([task.optional for task in tasks])
            for task in tasks:
                if len(asked) > 1:
                    yield trials.Outcome(task.number, "late")
                elif task.number == 0:
                    yield dataclasses.replace(pretend(task), status="paused", step=4)
                else:
                    yield pretend(task)

    record = run(sweep, tmp_path / "s", workers=Slow(), deadline=time.time() + 60)
    assert asked[:2] == [[False, True], [True]]
    assert record["winner"]["trial"] == 1


class Several(InProcess):
    count = 2
