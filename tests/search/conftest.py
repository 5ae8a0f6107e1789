"""A search over the tiny encoder whose trials take a second."""

import copy

import pytest


@pytest.fixture
def sweep(config):
    """A small factorial search: change what a test is about."""
    base = copy.deepcopy(config)
    base["train"] |= {"steps": 12, "eval_every": 4}
    return {
        "base": base,
        "axes": {"adapter.scope": [["query"], ["query", "value"]], "train.learning_rate": [2e-3, 1e-2]},
        "strategy": {"name": "factorial"},
    }
