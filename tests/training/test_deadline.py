"""When training ends, so that what follows it is over in time: sooner on a machine that has become slower."""

import time
from itertools import count
from types import SimpleNamespace

import pytest

import rankwise
from rankwise import deadline
from rankwise.deadline import Deadline
from rankwise.training import loop
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
    assert Deadline.of(None) is deadline.NEVER
    assert deadline.NEVER.at(1e9) == deadline.NEVER.part(0.5).left_s() == float("inf")
    assert Deadline.of(5.0).at(1e9) == 5.0
    assert Deadline.of(Deadline(5.0, 2.0)).at() == 3.0
    assert Deadline(time.time() - 1).has_passed


def test_a_share_of_what_is_left_and_more_for_what_follows_make_it_come_sooner(monkeypatch):
    monkeypatch.setattr(deadline, "time", SimpleNamespace(time=lambda: 100.0))
    whole = Deadline(160.0, 10.0, 0.5)
    assert whole.part(0.4).left_s() == 20.0
    assert whole.part(0.4).left_s(1e9) == 20.0, "it is the time of a stage, of which nothing is kept"
    assert whole.keeping(5.0).left_s() == 45.0
    assert whole.keeping(5.0).left_s(1.0) == 30.0, "twice as much, of steps twice as slow"
    assert Deadline.after(7.0).at() == 107.0
    assert not whole.has_passed
    assert whole.keeping(50.0).has_passed
