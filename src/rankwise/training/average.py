"""The mean of the weights over steps (Izmailov et al. 2018): of a few rows, steps that are too many cost it little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.optimizer import StateDict


class Average:
    """The weights' mean since a step, and the weights themselves where they go on from.

    named
        What trains, whose values it changes in place.
    first
        The first step, from 1, whose weights count.
    """

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]], first: int) -> None:
        self._parameters = dict(named)
        self._first = first
        self._mean = {name: value.detach().clone() for name, value in named}
        self._is_put = False

    def step(self, step: int) -> None:
        """Count the weights after a step; those before the first are the mean until then."""
        share = 1 / max(step - self._first + 1, 1)
        for name, value in self._parameters.items():
            self._mean[name].lerp_(value.detach(), share)

    def put(self) -> None:
        """Let the mean be the weights, until they are taken back."""
        if not self._is_put:
            self._exchange()

    def take_back(self) -> None:
        """Let the weights be those that steps go on from."""
        if self._is_put:
            self._exchange()

    def _exchange(self) -> None:
        self._is_put = not self._is_put
        with torch.no_grad():
            for name, value in self._parameters.items():
                own = value.detach().clone()
                value.copy_(self._mean[name])
                self._mean[name] = own

    def state_dict(self) -> StateDict:
        """Plain values and tensors."""
        return {"mean": self._mean}

    def load_state_dict(self, state: StateDict) -> None:
        """Go on from such a state."""
        for name, value in state["mean"].items():
            self._mean[name].copy_(value)
