"""Which process this is, of the one or several that share a run, and the device it computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def this_process() -> PartialState:
    """Accelerate's view of the processes, joined to the others on first use.

    Accelerate joins processes over gloo only when it is told that they compute on the processor; left to itself on a
    machine without a GPU, each of them believes that it is alone.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())
