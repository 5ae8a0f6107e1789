"""The random generators of torch, numpy and `random`."""

from __future__ import annotations

import torch
import transformers


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and random."""
    transformers.set_seed(seed)
    torch.manual_seed(seed)
