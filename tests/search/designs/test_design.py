"""Designs that compete: each fits the budget, and none changes what is fixed."""

import json

import rankwise
from rankwise.config import load
from rankwise.search.designs.design import designs_for, usual_rate


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
