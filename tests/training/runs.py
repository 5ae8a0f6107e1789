"""What tests of whole runs share: what a run has learnt, and how one is changed or interrupted."""

import os
import signal

import torch
from safetensors.torch import load_file

from rankwise.training import loop


def weights(run):
    return load_file(run.adapter / "adapter_model.safetensors")


def small(tiny_model, news, **train):
    """A run of a few steps on the tiny encoder, in plain torch."""
    return {
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": ["query", "value"], "rank": 4, "dropout": 0.1},
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"batch_size": 8, "learning_rate": 5e-3, "seed": 3, **train},
        "engine": "reference",
    }


def equal(one, other) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def interrupt_after(monkeypatch, steps: int) -> None:
    """Press Ctrl-C once the loop has done this many steps."""
    train_step = loop.Loop._train_step

    def counted(self):
        train_step(self)
        if self.state.step == steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Loop, "_train_step", counted)


def with_keys(config, **keys):
    """The configuration with `section__key` values set."""
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    for name, value in keys.items():
        section, _, key = name.partition("__")
        tree.setdefault(section, {})[key] = value
    return tree
