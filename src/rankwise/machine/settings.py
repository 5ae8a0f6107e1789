"""How torch computes in this thread: in our own work as by default, whatever the host has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute in this block as a process of our own would; after it the host's settings hold again.

    A host may have switched gradients off, be under autocast, or make tensors by default of another type or on another
    device: a step would have no gradient, a score would be rounded, a weight would lie where nothing else does.
    """
    import torch

    from rankwise.machine.device import device

    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for kind in {"cpu", device().type}:
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        before = torch.get_default_dtype()
        if before != torch.float32:  # of all threads, so it is left alone where it is what it should be
            torch.set_default_dtype(torch.float32)
            settings.callback(torch.set_default_dtype, before)
        yield
