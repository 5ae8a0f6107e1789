"""What a saved classifier changes of its base, apart from its head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rankwise.engine.linear import Site
from rankwise.engine.weights import Adapter, Dense, SavedWeights


@dataclass(frozen=True)
class Change:
    """Of one linear layer: y = outlet (W (inlet x) + scale B A x) + bias, with DoRA's magnitudes in place of an outlet."""

    adapter: Adapter | None
    frozen: Tensor
    """W. Shape: (d_out, d_in)"""
    bias: Tensor | None
    """in place of the base's, None where that is the same; fp32. Shape: (d_out,)"""
    inlet: Tensor | None = None
    """IA3's scaling of the input, fp32. Shape: (d_in,)"""
    outlet: Tensor | None = None
    """IA3's scaling of the output, fp32. Shape: (d_out,)"""


def changes_of(weights: SavedWeights, parts: Iterable[Site]) -> dict[str, Change]:
    """Those of the linear layers that a classifier changes, by their paths.

    parts
        The base's linear layers.
    """
    found = {part.path: _change(weights.dense(part.path), part.bias, weights.scaling(part.path)) for part in parts}
    return {path: change for path, change in found.items() if change is not None}


def _change(dense: Dense, base_bias: Tensor | None, scaling: Tensor | None) -> Change | None:
    bias = None if dense.bias is None else dense.bias.detach().float()
    if scaling is not None:  # (W x + b) l or W (l x) + b. Shape: (d_out, 1) or (1, d_in)
        if scaling.shape[0] == 1:
            return Change(None, dense.weight, None, inlet=scaling.flatten())
        outlet = scaling.flatten()
        return Change(None, dense.weight, None if bias is None else bias * outlet, outlet=outlet)
    if bias is not None and base_bias is not None and torch.equal(bias, base_bias.detach().float().to(bias.device)):
        bias = None
    if dense.adapter is None and bias is None:
        return None
    return Change(dense.adapter, dense.weight, bias)
