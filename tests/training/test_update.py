"""A run's updates where scaled losses meet a resume on another device, and a process without rows."""

from types import SimpleNamespace

import pytest
import torch

from rankwise.config import Train
from rankwise.training import update
from rankwise.training.optimizers import optimizer
from rankwise.training.update import Update
from training.test_optimizers import parameters


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_run_begun_without_scaled_losses_goes_on_with_them(name):
    """As from a processor on a GPU without bf16, whose SGD is one kernel that looks for itself whether gradients are finite."""

    def made(*, scaled: bool):
        named = parameters()
        optimizing = optimizer(named, Train(optimizer=name, learning_rate=0.01, momentum=0.9))
        for group in optimizing.param_groups if scaled and name == "sgd" else ():
            group["fused"] = True
        return named, Update(optimizing, [value for _, value in named], max_grad_norm=1.0, scaled=scaled)

    def step(named, updating):
        updating.backward(sum((value**2).sum() for _, value in named))
        updating.apply()
        updating.clear()

    named, there = made(scaled=False)
    step(named, there)
    own, here = made(scaled=True)
    kernels = [group.get("fused") for group in here.optimizer.param_groups]
    here.load_state_dict(there.state_dict())
    assert [group.get("fused") for group in here.optimizer.param_groups] == kernels
    before = [value.detach().clone() for _, value in own]
    step(own, here)
    assert not any(torch.equal(value, old) for (_, value), old in zip(own, before, strict=True))
    there.load_state_dict(here.state_dict())  # and back
    step(named, there)


def test_a_process_without_rows_in_its_first_step_takes_the_others_scaled_gradients(monkeypatch):
    """As of a run that goes on at the short last batch of an epoch."""
    named = parameters()
    values = [value for _, value in named]
    updating = Update(optimizer(named, Train(learning_rate=0.01)), values, max_grad_norm=1.0, scaled=True)
    monkeypatch.setattr(update, "this_process", lambda: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(update, "summed", torch.ones_like)
    before = [value.detach().clone() for value in values]
    updating.apply()
    assert not any(torch.equal(value, old) for value, old in zip(values, before, strict=True))
