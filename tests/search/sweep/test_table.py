"""Order, ties and what counts as better."""

import math

import pytest

from rankwise.search.sweep.study import Trial
from rankwise.search.sweep.table import best_of, better_first
from rankwise.search.sweep.trial import Outcome


def trial(number, accuracy, loss, status="done", step=10):
    made = Trial(key=number, number=number, point={}, round=0, status=status, total_steps=10)
    made.add(Outcome(number, "finished", step, {"accuracy": accuracy, "loss": loss, "macro_f1": 0.5, "step": step}))
    return made


@pytest.mark.parametrize(("metric", "order"), [("accuracy", [2, 0, 1, 3]), ("loss", [2, 1, 0, 3])])
def test_the_better_come_first_and_ties_go_to_the_lower_loss_then_the_earlier(metric, order):
    trials = [trial(0, 0.8, 0.5), trial(1, 0.7, 0.4), trial(2, 0.8, 0.3), trial(3, math.nan, math.nan)]
    assert [one.number for one in better_first(trials, metric)] == order
    assert [one.number for one in better_first([trial(5, 0.8, 0.3), trial(4, 0.8, 0.3)], metric)] == [4, 5]


def test_a_rung_compares_what_was_reached_there():
    early, late = trial(0, 0.9, 0.3, step=5), trial(1, 0.8, 0.3, step=5)
    late.add(Outcome(1, "finished", 10, {"accuracy": 0.95, "loss": 0.2, "macro_f1": 0.5, "step": 10}), rung=1)
    assert [one.number for one in better_first([early, late], "accuracy", 0)] == [0, 1]
    assert [one.number for one in better_first([early, late], "accuracy")] == [1, 0]


def test_a_whole_run_is_best_before_any_under_way():
    assert best_of([trial(0, 0.9, 0.1, "paused"), trial(1, 0.8, 0.3)], "accuracy").number == 1
    assert best_of([trial(0, 0.9, 0.1, "paused")], "accuracy").number == 0
    assert best_of([], "accuracy") is None
