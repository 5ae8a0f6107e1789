"""Training in somebody else's process: what is theirs is as it was."""

import logging
import os
import random
import signal
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import rankwise
from training.runs import equal, with_keys


def belongings():
    """What a host would miss: generators, settings of torch, handlers, filters, levels of logging."""
    numpy_state = np.random.get_state()
    loggers = {name: logging.getLogger(name) for name in ("", "transformers", "peft", "accelerate", "torch", "optuna")}
    return {
        "random": random.getstate(),
        "numpy": (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "handlers": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "filters": list(warnings.filters),
        "logging": {name: (logger.level, list(logger.handlers)) for name, logger in loggers.items()},
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize(
    "keys", [{}, {"head__probe_first": True}, {"adapter__init": "pissa"}, {"adapter__method": "probe"}]
)
def test_a_training_and_an_evaluation_leave_the_host_as_it_was(config, news, tmp_path, engine, keys):
    tree = with_keys(config, **keys, train__steps=4, train__eval_every=2) | {"engine": engine}
    rankwise.train(tree, out=tmp_path / "first")  # what libraries set up when they are first used is theirs
    before = belongings()
    run = rankwise.train(tree, out=tmp_path / "run")
    rankwise.evaluate(run, [f"data.test={news['test']}"])
    rankwise.load(run).predict(["the goal"])
    after = belongings()
    assert {name for name in before if before[name] != after[name]} == set()


HOSTS = {
    "without gradients": torch.no_grad,
    "in inference mode": torch.inference_mode,
    "under autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "with another type by default": lambda: by_default(torch.set_default_dtype, torch.float64, torch.float32),
    "with another device by default": lambda: torch.device("meta"),
}


@contextmanager
def by_default(setting, value, before):
    setting(value)
    try:
        yield
    finally:
        setting(before)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_computes_as_it_likes_and_so_do_we(config, tmp_path, engine, host):
    tree = with_keys(config, train__steps=4, train__eval_every=2, model__precision="fp32") | {"engine": engine}
    run = rankwise.train(tree, out=tmp_path / "run")
    expected = rankwise.load(run).logits(["the goal", "a bank"])
    with HOSTS[host]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device()
        settings = torch.is_autocast_enabled("cpu"), torch.get_default_dtype()
        other = rankwise.train(tree, out=tmp_path / "other")
        answers = [found.logits(["the goal", "a bank"]) for found in (rankwise.load(other), rankwise.load(run))]
        many = rankwise.load_many([run.path, other.path])
        answers += many.logits(["the goal", "a bank"]).values()
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device())
        assert settings == (torch.is_autocast_enabled("cpu"), torch.get_default_dtype())
    assert equal(run, other)
    for found in answers:
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_failed_training_gives_them_back_too(config, tmp_path):
    before = belongings()
    with pytest.raises(rankwise.errors.UserError):
        rankwise.train(
            with_keys(config, train__optimizer="sgd", train__max_grad_norm=None, train__learning_rate=1e30),
            out=tmp_path / "run",
        )
    after = belongings()
    assert all(before[name] == after[name] for name in ("random", "numpy", "torch", "handlers"))


def test_shuffled_splits_around_fits_are_all_different(tiny_model):
    from sklearn.model_selection import ShuffleSplit

    from rankwise import BudgetedTextClassifier

    texts = np.array([f"the goal {word}" for word in ("match", "bank", "cell", "team", "orbit", "coach")] * 4)
    labels = np.arange(len(texts)) % 2
    seen = set()
    for train, _ in ShuffleSplit(5, test_size=0.5, random_state=np.random.mtrand._rand).split(texts):
        seen.add(tuple(sorted(train)))
        fitted = BudgetedTextClassifier(model=str(tiny_model), steps=1, max_trainable=100_000, validation_size=None)
        fitted.fit(texts[train], labels[train])
    assert len(seen) == 5


def test_an_accelerator_of_another_precision_lives_beside_a_run(config, tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    before = dict(AcceleratorState._shared_state)
    try:
        AcceleratorState._shared_state.clear()
        host = Accelerator(mixed_precision="bf16", cpu=True)
        rankwise.train(with_keys(config, train__steps=2, train__eval_every=2), out=tmp_path / "run")
        assert host.mixed_precision == "bf16"
    finally:
        AcceleratorState._shared_state.clear()
        AcceleratorState._shared_state.update(before)
