"""One update of what trains: gradients added up over the processes, clipped, applied; in fp16 scaled.

What trains is small, so its gradients travel as one vector, once a step; nothing frozen is ever sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.optimizer import StateDict

from rankwise.machine.processes import summed, this_process


class Update:
    """An optimizer, and how gradients come to it.

    scaled
        Losses are scaled up and gradients down again, so that small ones survive fp16 (Micikevicius et al. 2018).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        *,
        max_grad_norm: float | None,
        scaled: bool,
    ) -> None:
        self.optimizer = optimizer
        self._parameters = parameters
        self._max_grad_norm = max_grad_norm
        device = parameters[0].device.type if parameters else "cpu"
        self._scaler = torch.amp.GradScaler(device, enabled=scaled)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def apply(self) -> None:
        """Update the parameters by the sum of all processes' gradients, which stay until `clear`."""
        if this_process().num_processes > 1:
            self._add_up()
        if self._max_grad_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def clear(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def _add_up(self) -> None:
        """A process that had no row of a short last batch adds nothing."""
        own = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self._parameters]
        total = summed(torch.cat([gradient.reshape(-1) for gradient in own]))
        self._scaler.scale(total[:0])  # a scale is made by the first loss, which may be none here
        for parameter, piece in zip(self._parameters, torch.split(total, [g.numel() for g in own]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def state_dict(self) -> StateDict:
        """What a resumed run needs."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, on another device and in another arithmetic, too: with this one's kernels, and where
        losses were not scaled there, with the scale that a run begins with.
        """
        fused = [group.get("fused") for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, fused, strict=True):
            if "fused" in group:
                group["fused"] = own
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
