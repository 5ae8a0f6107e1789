"""A search over the tiny encoder whose trials take a second."""

import copy
import time

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


@pytest.fixture
def slower(monkeypatch):
    """Make every step take so many seconds more by the process's clocks, which nobody waits for."""
    from rankwise.training.loop import Loop

    step, passed = Loop._train_step, []
    now, counted = time.time, time.perf_counter
    monkeypatch.setattr(time, "time", lambda: now() + sum(passed))
    monkeypatch.setattr(time, "perf_counter", lambda: counted() + sum(passed))

    def by(seconds):
        def stepping(loop):
            step(loop)
            passed.append(seconds)

        monkeypatch.setattr(Loop, "_train_step", stepping)

    return by


@pytest.fixture(scope="session")
def larger(tiny_model, tmp_path_factory):
    """The tiny encoder with another layer, and twice as wide."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder, config = tmp_path_factory.mktemp("larger"), AutoConfig.from_pretrained(tiny_model)
    config.num_hidden_layers += 1
    config.hidden_size *= 2
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder
