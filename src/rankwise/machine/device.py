"""The device that models compute on: asked here, once for all."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The machine's accelerator where torch has one (CUDA, MPS, XPU), else its processor."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else found


def has_cuda() -> bool:
    """Whether the device is one of CUDA's, ROCm's among them."""
    return device().type == "cuda"
