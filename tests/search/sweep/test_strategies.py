"""Rounds, rungs and what they cost."""

import pytest

from rankwise.errors import UserError
from rankwise.search.sweep import spec
from rankwise.search.sweep.space import Space
from rankwise.search.sweep.spec import Halving
from rankwise.search.sweep.strategies import Round, Walk, cost, in_turns, stops, survivors


def walk(sweep, **changes) -> Walk:
    search = spec.load({**sweep, **changes})
    return Walk.of(search, Space.of(search))


def test_factorial_lists_every_point_once_and_in_order(sweep):
    made = walk(sweep)
    points = made.points(made.rounds[0], {})
    assert [(point["adapter.scope"], point["train.learning_rate"]) for point in points] == [
        ("query", 2e-3),
        ("query", 1e-2),
        ("query+value", 2e-3),
        ("query+value", 1e-2),
    ]


def test_grid_takes_a_seeded_part_of_the_same_points(sweep):
    whole = walk(sweep).listed
    one, again, other = (walk(sweep, strategy={"name": "grid", "trials": 3, "seed": seed}).listed for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == 3
    assert all(point in whole for point in one)


def test_one_at_a_time_freezes_each_axis_at_the_best_so_far(sweep):
    made = walk(sweep, strategy={"name": "one_at_a_time"})
    assert [each.count for each in made.rounds] == [1, 2, 2]
    assert made.points(made.rounds[0], {}) == [{}]
    best = {"adapter.scope": "query"}
    assert made.points(made.rounds[2], best) == [best | {"train.learning_rate": rate} for rate in (2e-3, 1e-2)]


def test_a_range_cannot_be_listed(sweep):
    sweep["axes"]["train.learning_rate"] = {"low": 1e-4, "high": 1e-2, "log": True}
    with pytest.raises(UserError, match="a range without 'step' cannot be listed"):
        walk(sweep)
    assert walk(sweep, strategy={"name": "random", "trials": 7}).rounds[0].count == 7


def test_tpe_proposes_in_batches_and_hyperband_in_brackets(sweep):
    sweep["axes"]["train.learning_rate"] = {"low": 1e-4, "high": 1e-2, "log": True}
    batches = walk(sweep, strategy={"name": "tpe", "trials": 10, "batch": 4}).rounds
    assert [each.count for each in batches] == [4, 4, 2]
    hyperband = {"kind": "hyperband", "factor": 3, "rungs": 3}
    brackets = walk(sweep, strategy={"name": "tpe", "trials": 16}, halving=hyperband).rounds
    assert [each.rungs for each in brackets] == [3, 2, 1]
    assert sum(each.count for each in brackets) == 16
    assert brackets[0].count > brackets[1].count > brackets[2].count


def test_rungs_are_the_schedules_own_and_end_with_the_run():
    thirds = Halving(factor=3)
    assert stops(180, 3, thirds) == [20, 60, 180]
    assert stops(300, 3, thirds) == [34, 100, 300]
    assert stops(60, 4, thirds) == [3, 7, 20, 60]
    assert stops(2, 3, thirds) == [1, 1, 2]
    assert [survivors(count, thirds) for count in (27, 9, 3, 1)] == [9, 3, 1, 1]


def test_at_least_so_many_go_on():
    four = Halving(factor=3, least=4)
    assert [survivors(count, four) for count in (27, 9, 4, 3)] == [9, 4, 4, 3]
    # 24 trials to a 27th, 8 of them on to a ninth, 4 from there to the end.
    assert cost([Round(0, 24, 4)], four) == pytest.approx(24 / 27 + 8 * (3 - 1) / 27 + 4 * 8 / 9)


def test_values_take_turns_by_rank():
    ranked = ["a1", "a2", "a3", "b1", "c1", "b2"]
    assert in_turns(ranked, lambda name: name[0]) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert in_turns(ranked, lambda name: "same") == ranked
    assert in_turns([], str) == []


def test_the_cost_of_halving_counts_each_step_once(sweep):
    made = walk(sweep, strategy={"name": "random", "trials": 4}, halving={"factor": 2, "rungs": 3})
    # 4 trials to a quarter, 2 of them on to a half, 1 to the end: 4/4 + 2/4 + 1/2 runs.
    assert cost(made.rounds, Halving(factor=2)) == pytest.approx(2.0)
