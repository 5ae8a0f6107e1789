"""What is left of a clock after its trials: a run of the winner's design for longer, where it fits."""

from types import SimpleNamespace

import pytest

import rankwise
from rankwise.deadline import Deadline
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.search.after import longer
from rankwise.search.sweep.trial import Outcome


def test_steps_as_fast_as_planned_keep_the_end_as_it_was_planned(monkeypatch):
    """However long the winner's evaluations and head took beside its steps."""
    timing = SimpleNamespace(steps=100, train_s=10.0, eval_s=30.0)
    run = SimpleNamespace(record=SimpleNamespace(timing=timing), config=None)
    asked = []

    def carry_out(task):
        asked.append(task.config["train"]["steps"])
        return Outcome(task.number, "failed")

    monkeypatch.setattr(longer, "Run", lambda path: run)
    run.config = SimpleNamespace(train=SimpleNamespace(seed=0, select=SimpleNamespace(metric="accuracy")))
    monkeypatch.setattr(longer.configuration, "to_dict", lambda config: {"train": {}})
    monkeypatch.setattr(longer, "carry_out", carry_out)
    monkeypatch.setattr("rankwise.deadline.time.time", lambda: 0.0)
    winner = SimpleNamespace(run="trials/0000", mean=0.5)
    for step_s, steps in ((0.1, 180), (0.05, 135)):
        assert longer.longer(winner, longer.Path("nowhere"), Deadline(100.0, 20.0, step_s)) is None
        assert asked.pop() == steps


@pytest.mark.parametrize(("value", "better"), [(0.5, True), (2.0, False)])
def test_the_longer_run_is_the_winner_where_it_is_better(config, tmp_path, value, better):
    """A real one, of as many steps as the clock is said to have."""
    before = rankwise.train({**config, "train": {**config["train"], "steps": 6, "eval_every": 6}}, out=tmp_path / "one")
    timing, scores = before.record.timing, before.record.metrics.validation
    accuracy, interval = scores.accuracy, scores.accuracy_ci95
    winner = Winner(run="one", peak=accuracy, chosen=accuracy, chosen_ci95=interval, final=accuracy, mean=value - 0.5)
    step_s = (timing.train_s + timing.eval_s) / timing.steps
    found = longer.longer(winner, tmp_path, Deadline.after(12.5 * step_s / longer.SURE))
    again = Run(tmp_path / longer.FOLDER)
    assert (found is not None) is better
    assert again.config.train.seed == before.config.train.seed + 1
    if found is not None:
        assert (found.run, found.steps) == (longer.FOLDER, again.record.timing.steps)
        assert (found.chosen, found.mean) == (again.record.metrics.validation.accuracy,) * 2
        assert found.final == again.record.metrics.validation_last.accuracy
    assert longer.longer(winner, tmp_path, Deadline.after(1e-3)) is None, "hardly a step fits"
