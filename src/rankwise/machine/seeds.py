"""The random generators of torch, numpy and `random`: borrowed from the host, and given back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from rankwise.machine.device import device


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """Draw from generators seeded anew in this block; after it the process's own are bit for bit what they were.

    The libraries underneath draw from the process's global generators (a new head, a new adapter, dropout), and offer
    no others.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state(), _states_of_accelerator()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        _restore_accelerator(before[3])


def _accelerator() -> Any:
    """torch's module of the accelerator that is in use, None where there is none or it has drawn nothing yet."""
    if device().type == "cpu":
        return None
    module = torch.get_device_module(device())
    return module if getattr(module, "is_initialized", lambda: True)() else None


def _states_of_accelerator() -> list[torch.Tensor] | None:
    """The state of every accelerator's generator; MPS has one device, and takes no number."""
    module = _accelerator()
    if module is None:
        return None
    all_states = getattr(module, "get_rng_state_all", None)
    return list(all_states()) if all_states is not None else [module.get_rng_state()]


def _restore_accelerator(states: list[torch.Tensor] | None) -> None:
    module = _accelerator() if states is not None else None
    if module is None or states is None:
        return
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states)
    else:
        module.set_rng_state(states[0])
