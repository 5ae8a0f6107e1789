"""How fast a machine is, when it is measured and by now."""

import pytest

from rankwise.config import load
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.sweep.trial import load_data


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


def test_speed_is_measured_whatever_the_start(config):
    # EVA's start needs activations of training texts, which a measurement has no use for.
    tree = {**config, "adapter": {**config["adapter"], "init": "eva"}}
    found = load_data(load(tree).data, ["train", "validation"])
    assert measure(load(tree), found, 0.2).step_s > 0
