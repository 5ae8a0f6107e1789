"""Which process this is, of the one or several that share a run, and the device it computes on."""

from __future__ import annotations

import atexit
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch import Tensor


def this_process() -> PartialState:
    """Accelerate's view of the processes, joined to the others on first use.

    Accelerate joins processes over gloo only when it is told that they compute on the processor; left to itself on a
    machine without a GPU, each of them believes that it is alone.
    """
    import torch
    from accelerate import PartialState

    process = PartialState(cpu=not torch.accelerator.is_available())
    if process.num_processes > 1:
        _leave_at_exit()
    return process


@cache
def _leave_at_exit() -> None:
    """Leave the others before the interpreter goes: gloo's threads must not be running when it does."""
    from accelerate import PartialState

    atexit.register(PartialState().destroy_process_group)


def summed(values: Tensor) -> Tensor:
    """The sum of all processes' tensors of one shape."""
    from accelerate.utils import reduce

    this_process()
    total: Tensor = reduce(values, "sum")
    return total


def agreed(*flags: bool) -> list[bool]:
    """Each flag, set where any process has it set: all of them must take the same turn."""
    import torch

    process = this_process()
    if process.num_processes == 1:
        return list(flags)
    mine = torch.tensor(flags, dtype=torch.float32, device=process.device)
    return [bool(count) for count in summed(mine).tolist()]
