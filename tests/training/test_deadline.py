"""When training ends, so that what follows it is over in time: sooner on a machine that has become slower."""

import time
from itertools import count
from types import SimpleNamespace

import pytest

import rankwise
from rankwise.training import deadline, loop
from rankwise.training.deadline import Deadline
from training.runs import small


@pytest.mark.parametrize(
    ("step_s", "steps"),
    [(float("inf"), 50), (1.0, 50), (0.5, 40), (0.1, 32)],
    ids=["not asked", "as planned", "twice as slow", "no time left once it is known"],
)
def test_the_slower_the_steps_the_sooner_they_end(tiny_model, news, tmp_path, monkeypatch, step_s, steps):
    """Every step takes a second; ten are kept of sixty."""
    step, now = loop.Loop._train_step, [1000.0]
    clock = SimpleNamespace(time=lambda: now[0], perf_counter=count().__next__, monotonic=time.monotonic)

    def ticking(self):
        step(self)
        now[0] += 1

    monkeypatch.setattr(loop.Loop, "_train_step", ticking)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(deadline, "time", clock)
    model = small(tiny_model, news, steps=80, evaluate=False)
    run = rankwise.train(model, out=tmp_path / "run", deadline=Deadline(1060.0, 10.0, step_s))
    assert run.record.timing.steps == steps


def test_a_time_is_a_deadline_after_which_nothing_follows():
    assert Deadline.of(None) is None
    assert Deadline.of(5.0).at(1e9) == 5.0
    assert Deadline.of(Deadline(5.0, 2.0)).at() == 3.0
    assert Deadline(time.time() - 1).left_s() < 0
