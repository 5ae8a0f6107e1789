"""AdaLoRA's ranks: every step moves them to where they matter, until the last third of the run.

PEFT leaves this to the training loop; without it an AdaLoRA adapter keeps its first rank everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Allocation:
    """The budget of ranks over the layers of an AdaLoRA model (Zhang et al. 2023, sections 3.1 to 3.3)."""

    def __init__(self, model: Any) -> None:
        self._tuner = model.base_model
        self._config = model.peft_config["default"]
        self._step = 0

    @property
    def settled(self) -> bool:
        """Whether the ranks are final: weights kept from before would lack what was cut off later, or the reverse."""
        return bool(self._step >= self._config.total_step - self._config.tfinal)

    def penalty(self) -> Tensor:
        """How far the singular vectors are from orthogonal, weighted for the loss (equation 4). Shape: ()"""
        pairs = [(name, value) for name, value in self._named() if "lora_A" in name or "lora_B" in name]
        apart = [_from_orthogonal(value if "lora_A" in name else value.T) for name, value in pairs]
        weight: float = self._config.orth_reg_weight
        return torch.stack(apart).mean() * weight

    def step(self, step: int) -> None:
        """Weigh every rank by its gradient and drop those over the budget of this step.

        step
            The optimizer step just made, from 1; its gradients must still be there.
        """
        self._step = step
        self._tuner.update_and_allocate(step)

    def ranks(self) -> dict[str, int]:
        """Ranks left, by the name of the adapted layer's singular values."""
        return {name: int((value != 0).sum()) for name, value in self._named() if "lora_E" in name}

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self._tuner.named_parameters() if ".default" in name]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the importances so far, and which ranks are left."""
        allocator = self._tuner.rankallocator
        kept = {name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        return {"importance": kept, "rank_pattern": self._config.rank_pattern, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name, values in state["importance"].items():
            setattr(self._tuner.rankallocator, name, values)
        self._config.rank_pattern = state["rank_pattern"]
        self._step = state["step"]


def _from_orthogonal(rows: Tensor) -> Tensor:
    """Frobenius norm of P Pᵀ − I. Shape: rows (rank, width), result ()"""
    distance: Tensor = (rows @ rows.T - torch.eye(len(rows), device=rows.device)).norm()
    return distance


def allocation_of(model: Any) -> Allocation | None:
    """The allocation of an AdaLoRA model; None for every other method."""
    return Allocation(model) if hasattr(model.base_model, "rankallocator") else None
