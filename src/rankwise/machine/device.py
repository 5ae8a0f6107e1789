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


def forget_peak() -> None:
    """Let `peak_allocated` count from what is allocated now, where there is a count."""
    found = device()
    forget = getattr(torch.get_device_module(found), "reset_peak_memory_stats", None) if found.type != "cpu" else None
    if forget is not None:
        forget()


def accelerator_bytes() -> int | None:
    """The accelerator's memory; None where there is none, or torch does not say (MPS, whose memory is the machine's)."""
    found = device()
    ask = getattr(torch.get_device_module(found), "get_device_properties", None) if found.type != "cpu" else None
    total = getattr(ask(), "total_memory", None) if ask is not None else None
    return None if total is None else int(total)


def wait() -> None:
    """Until the accelerator has done all that it was told, where there is one: the host only tells it what to do."""
    if device().type != "cpu":
        torch.accelerator.synchronize()


def has_cuda() -> bool:
    """Whether the device is one of CUDA's, ROCm's among them."""
    return device().type == "cuda"
