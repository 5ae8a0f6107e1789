"""The elementwise arithmetic of a layer in plain torch, each region one function.

The functions know nothing of layers or autograd. It is what the backends (`native`) are held to, and what computes where
there is none: on GPUs, and without a compiler. Norms, softmax and sums are fp32 whatever comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rankwise.engine.dropout import Mask


def dropped(x: Tensor, mask: Mask | None) -> Tensor:
    """Dropout. Shape: x (rows, columns), any precision; the result has it too"""
    if mask is None:
        return x
    return mask.multiplier().mul_(x.float()).to(x.dtype)


def plus_dropped(total: Tensor, x: Tensor, mask: Mask | None) -> Tensor:
    """total + dropout(x), summed in fp32, in total's precision. Shape: (rows, columns)"""
    if mask is None:
        return total + x
    return torch.addcmul(total.float(), x.float(), mask.multiplier()).to(total.dtype)


def probabilities(
    scores: Tensor, bias: Tensor, scale: float, mask: Mask | None, low: torch.dtype
) -> tuple[Tensor, Tensor]:
    """softmax(scale * scores + bias), plain and with dropout.

    scores
        Shape: (texts * heads, queries, keys), fp32
    bias
        Shape: (texts, 1 or heads, 1 or queries, keys), fp32

    Returns: two of scores' shape, in the precision to compute in.
    """
    texts = bias.shape[0]
    by_head = scores.view(texts, scores.shape[0] // texts, *scores.shape[1:])
    exact = torch.softmax(torch.add(bias, by_head, alpha=scale), -1).view(scores.shape)
    plain = exact.to(low)
    if mask is None:
        return plain, plain
    return plain, mask.multiplier().view(exact.shape).mul_(exact).to(low)


def probabilities_backward(grad: Tensor, plain: Tensor, scale: float, mask: Mask | None) -> Tensor:
    """Gradient of the scores from that of the dropped probabilities. Shape: (texts * heads, queries, keys)"""
    above = grad.float()
    if mask is not None:
        above = mask.multiplier().view(above.shape).mul_(above)
    below = torch._softmax_backward_data(above, plain.float(), -1, torch.float32)
    return below.mul_(scale).to(grad.dtype)


Function = Callable[..., Tensor]


# x times the normal distribution function, by erf and as approximated by tanh.
_GELU: tuple[Function, Function] = (F.gelu, torch.ops.aten.gelu_backward)
_GELU_TANH: tuple[Function, Function] = (
    partial(F.gelu, approximate="tanh"),
    partial(torch.ops.aten.gelu_backward, approximate="tanh"),
)
_SILU: tuple[Function, Function] = (F.silu, torch.ops.aten.silu_backward)
ACTIVATIONS: Mapping[str, tuple[Function, Function]] = {
    "gelu": _GELU,
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "relu": (torch.relu, lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0)),
    "silu": _SILU,
    "swish": _SILU,
    "tanh": (torch.tanh, lambda grad, x: torch.ops.aten.tanh_backward(grad, torch.tanh(x))),
}
"""by `transformers`' word: a function, and its gradient from the result's and the argument. Shape of all: (tokens, width)"""


class Lookup(NamedTuple):
    """An embedding: the sum of a row of each table, and its norm."""

    tables: tuple[Tensor, Tensor]
    """Shape: (words, hidden), (positions, hidden)"""
    places: tuple[Tensor, Tensor]
    """rows of each. Shape: (tokens,)"""
    weight: Tensor
    """Shape: (hidden,)"""
    bias: Tensor | None
    """Shape: (hidden,)"""
    epsilon: float


def embedded(lookup: Lookup, mask: Mask | None, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """dropout(LayerNorm(...)) of a lookup, through ordinary autograd, in fp32 and in the precision given.

    Shape of both: (tokens, hidden)
    """
    first, second = (table.index_select(0, rows) for table, rows in zip(lookup.tables, lookup.places, strict=True))
    total = (first + second).float()
    x = F.layer_norm(total, total.shape[-1:], lookup.weight, lookup.bias, lookup.epsilon)
    x = x if mask is None else x * mask.multiplier()
    return x, x.to(precision, copy=True)
