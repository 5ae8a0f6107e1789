"""The device that models compute on: asked here, once for all."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The machine's accelerator where torch has one (CUDA, MPS, XPU), else its processor."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else found


def accelerator_name() -> str | None:
    """What the accelerator calls itself, or its kind where torch does not ask it; None where there is none."""
    found = device()
    if found.type == "cpu":
        return None
    ask = getattr(torch.get_device_module(found), "get_device_name", None)
    return str(ask()) if ask is not None else found.type.upper()


def peak_allocated() -> int | None:
    """The most bytes that torch has had allocated on the accelerator; None where there is none, or it keeps no count (MPS,
    whose memory is the process's own)."""
    found = device()
    count = getattr(torch.get_device_module(found), "max_memory_allocated", None) if found.type != "cpu" else None
    return None if count is None else int(count())


def has_cuda() -> bool:
    """Whether the device is one of CUDA's, ROCm's among them."""
    return device().type == "cuda"
