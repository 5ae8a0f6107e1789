"""Learning-rate schedules: those of transformers, torch's step and plateau, all behind a linear warm-up.

The number of steps is part of the run's identity: a resumed run follows the schedule of the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import StateDict

from rankwise.config import Train
from rankwise.errors import UserError


def warmup_steps(train: Train, total_steps: int) -> int:
    """Steps of linear warm-up; the papers' ratios are rounded up, as the Trainer does, and leave one step at least.

    Raises: UserError when `train.warmup_steps` leaves none.
    """
    if train.warmup_steps is not None:
        if train.warmup_steps >= total_steps:
            raise UserError(f"train.warmup_steps is {train.warmup_steps}, the whole run has {total_steps} steps")
        return train.warmup_steps
    ratio = train.warmup_ratio if train.warmup_ratio is not None else 0.0
    return min(-int(-ratio * total_steps // 1), total_steps - 1)


class Schedule:
    """The learning rate over a run: `step` after each optimizer step, `observe` after each evaluation."""

    def __init__(self, optimizer: torch.optim.Optimizer, train: Train, total_steps: int) -> None:
        self._warmup = warmup_steps(train, total_steps)
        self._by_step = _by_step(optimizer, train, self._warmup, total_steps)
        self._plateau = _Plateau(optimizer, train) if train.schedule == "plateau" else None
        self._step = 0

    def step(self) -> None:
        """Advance one optimizer step."""
        self._step += 1
        self._by_step.step()
        if self._plateau is not None:
            self._plateau.apply()

    def observe(self, validation_loss: float) -> None:
        """Tell the schedule an evaluation's loss; only plateau listens, and only after warm-up."""
        if self._plateau is not None and self._step >= self._warmup:
            self._plateau.observe(validation_loss)

    def state_dict(self) -> StateDict:
        """What a resumed run needs."""
        plateau = None if self._plateau is None else self._plateau.state_dict()
        return {"by_step": self._by_step.state_dict(), "plateau": plateau, "step": self._step}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken."""
        self._by_step.load_state_dict(state["by_step"])
        self._step = state["step"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])


class _Plateau:
    """Cuts every group's rate by a factor when the validation loss stops falling.

    The schedule by step writes each rate afresh, so the cuts made so far are kept as one factor, owned by torch's
    ReduceLROnPlateau over an optimizer of its own, and applied on top after every step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, train: Train) -> None:
        self._optimizer = optimizer
        self._own = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._decide = lr_scheduler.ReduceLROnPlateau(self._own, factor=train.decay, patience=train.plateau_patience)

    @property
    def factor(self) -> float:
        return float(self._own.param_groups[0]["lr"])

    def observe(self, loss: float) -> None:
        before = self.factor
        self._decide.step(loss)
        self._scale(self.factor / before)

    def apply(self) -> None:
        self._scale(self.factor)

    def _scale(self, factor: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] *= factor

    def state_dict(self) -> StateDict:
        return {"decide": self._decide.state_dict(), "factor": self.factor}

    def load_state_dict(self, state: StateDict) -> None:
        self._decide.load_state_dict(state["decide"])
        self._own.param_groups[0]["lr"] = state["factor"]


def _by_step(optimizer: torch.optim.Optimizer, train: Train, warmup: int, total: int) -> Any:
    """The part of the schedule that depends on the step alone: it rises to one, and then falls by the schedule's form."""
    form, left = _form(train, warmup, total), max(1, total - warmup)

    def multiplier(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return float(max(0.0, form(min(1.0, (step - warmup) / left))))

    return lr_scheduler.LambdaLR(optimizer, multiplier)


def _form(train: Train, warmup: int, total: int) -> Callable[[float], float]:
    """The multiplier by the share of the steps behind the warm-up, as transformers has those that it knows."""
    match train.schedule:
        case "linear":
            return lambda share: 1.0 - share
        case "cosine":
            return lambda share: 0.5 * (1.0 + math.cos(math.pi * share))
        case "cosine_restarts":
            return lambda share: 0.0 if share >= 1.0 else 0.5 * (1.0 + math.cos(math.pi * (train.cycles * share % 1.0)))
        case "polynomial":  # transformers' own ends at 1e-7, above the rates of some groups, and not at zero
            return lambda share: (1.0 - share) ** train.power
        case "step":
            left = max(1, total - warmup)
            every = max(1, left // (train.cycles + 1))
            return lambda share: train.decay ** min(train.cycles, round(share * left) // every)
        case "constant" | "plateau":
            return lambda share: 1.0
