"""To a device and back without waiting for it: what the host knows is sent behind the device's work, what it asks is read later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on a device; the host goes on at once. Shape: as given

    From memory that may be paged out a copy waits for all the device has to do, so CUDA is given pinned memory.
    """
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def sent_together(arrays: Sequence[npt.NDArray[Any]], device: torch.device | str) -> list[Tensor]:
    """Whole numbers on a device, away from the processor in one copy: each costs as much as a small kernel. Shapes: (length,)"""
    if torch.device(device).type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    whole = sent(torch.from_numpy(np.concatenate(arrays)), device)
    return list(torch.split(whole, [len(array) for array in arrays]))


class Reading:
    """Numbers on their way from a device: `read` waits for what made them, not for what the device was told since."""

    def __init__(self, values: Tensor) -> None:
        self._made: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = pinned.copy_(values, non_blocking=True)
            self._made = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._made.record()
        self._values = values

    def read(self) -> Any:
        """The numbers, as lists of the tensor's shape."""
        if self._made is not None:
            self._made.synchronize()
        return self._values.tolist()
