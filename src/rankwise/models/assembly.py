"""What a configuration put together is: a base, its adapter and its head, by the plan's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rankwise.engine.weights import SavedWeights
from rankwise.planning import Plan
from rankwise.planning.ledger import LOW_RANK_HEAD_SCALE

Batches = Callable[[], Iterable[Mapping[str, Any]]]
"""makes an iterable of `{"input_ids", "attention_mask"}` batches, of which EVA takes the activations"""


@dataclass(frozen=True)
class Assembly:
    """What trains, and what must be known to compute and to save it. Names are those of the plan's entries."""

    plan: Plan
    label_names: tuple[str, ...]
    trainable: dict[str, nn.Parameter]
    frozen: dict[str, Tensor]
    """copies of tensors that are saved though they do not train: a random dense layer, VeRA's projections"""
    initial: dict[str, Tensor]
    """A and B as initialised, where the initialisation changed the frozen weight (PiSSA, OLoRA)"""
    base_name: str | None
    """how the saved adapter names its base"""
    base: dict[str, Tensor] | None = None
    """the frozen weights, until the engine takes them; None where `model` holds them"""
    model: Any = None
    """the PEFT model, where that is what was made"""

    def weights(self) -> SavedWeights:
        """All of it for the engine, which releases what it copies: the frozen weights are handed over, once."""
        assert self.base
        base = dict(self.base)
        self.base.clear()
        config, family = self.plan.config, self.plan.encoder.family
        alphas = {place.site.module: place.alpha for place in self.plan.places}

        def scale(module: str, rank: int) -> float:
            if module not in alphas:
                return float(LOW_RANK_HEAD_SCALE)
            return alphas[module] / (math.sqrt(rank) if config.adapter.rslora else rank)

        return SavedWeights(
            base,
            {**self.frozen, **self.trainable},
            scale,
            family.prefix,
            dropout=lambda module: config.adapter.dropout if module in alphas else 0.0,
        )
