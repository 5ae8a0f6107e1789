"""The elementwise arithmetic of a layer in plain torch, each region one function.

The functions know nothing of layers or autograd. It is what the backends (`native`) are held to, and what computes where
there is none: on GPUs, and without a compiler. Norms, softmax and sums are fp32 whatever comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rankwise.engine.dropout import Mask, multiplier

MaskNumbers = tuple[Tensor, Tensor, Tensor, Tensor] | None
"""rows, columns, limit, scale: see `dropout.Mask`"""


def numbers_of(mask: Mask | None) -> MaskNumbers:
    """A mask for the functions below."""
    return None if mask is None else mask.numbers


def dropped(x: Tensor, mask: MaskNumbers) -> Tensor:
    """Dropout. Shape: x (rows, columns), any precision; the result has it too"""
    if mask is None:
        return x
    return multiplier(*mask).mul_(x.float()).to(x.dtype)


def plus_dropped(total: Tensor, x: Tensor, mask: MaskNumbers) -> Tensor:
    """total + dropout(x), summed in fp32; total's memory may be reused. Shape: (rows, columns)"""
    if mask is None:
        return total + x
    return torch.addcmul(total.float(), x.float(), multiplier(*mask)).to(total.dtype)


def add_norm(
    update: Tensor, residual: Tensor, mask: MaskNumbers, weight: Tensor, bias: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """LayerNorm(residual + dropout(update)).

    update
        Shape: (tokens, hidden), compute precision
    residual
        Shape: (tokens, hidden), fp32

    Returns: the norm in fp32 and in update's precision; and for the backward pass the sum, its mean and inverse
    deviation.
    """
    if mask is None:
        total = residual + update
    else:
        total = torch.addcmul(residual, update.float(), multiplier(*mask))
    out, mean, deviation = torch.native_layer_norm(total, [total.shape[-1]], weight, bias, epsilon)
    return out, out.to(update.dtype, copy=True), total, mean, deviation


def add_norm_backward(
    grad: Tensor | None,
    grad_low: Tensor | None,
    saved: tuple[Tensor, ...],
    mask: MaskNumbers,
    weight: Tensor,
    low: torch.dtype,
    *,
    summed: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `add_norm` for both of its outputs' gradients.

    saved
        what it returned behind the norms

    Returns: those of update (low precision) and residual (fp32), and if `summed` the outputs' together, of which the
    bias's is the column sum.
    """
    total, mean, deviation = saved
    if grad is None or grad_low is None:
        above = (grad if grad is not None else grad_low).float()  # type: ignore[union-attr]
    else:
        above = grad + grad_low
    residual, _, _ = torch.ops.aten.native_layer_norm_backward(
        above, total, [total.shape[-1]], mean, deviation, weight, None, [True, False, False]
    )
    update = residual if mask is None else multiplier(*mask).mul_(residual)
    return update.to(low), residual, above if summed else None


def probabilities(
    scores: Tensor, bias: Tensor, scale: float, mask: MaskNumbers, low: torch.dtype
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
    return plain, multiplier(*mask).view(exact.shape).mul_(exact).to(low)


def probabilities_backward(grad: Tensor, plain: Tensor, scale: float, mask: MaskNumbers) -> Tensor:
    """Gradient of the scores from that of the dropped probabilities. Shape: (texts * heads, queries, keys)"""
    above = grad.float()
    if mask is not None:
        above = multiplier(*mask).view(above.shape).mul_(above)
    below = torch._softmax_backward_data(above, plain.float(), -1, torch.float32)
    return below.mul_(scale).to(grad.dtype)


Function = Callable[..., Tensor]


def _tanh_backward(grad: Tensor, x: Tensor) -> Tensor:
    below: Tensor = torch.ops.aten.tanh_backward(grad, torch.tanh(x))
    return below


def _relu_backward(grad: Tensor, x: Tensor) -> Tensor:
    below: Tensor = torch.ops.aten.threshold_backward(grad, x, 0)
    return below


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
    "relu": (torch.relu, _relu_backward),
    "silu": _SILU,
    "swish": _SILU,
    "tanh": (torch.tanh, _tanh_backward),
}
"""by `transformers`' word: a function, and its gradient from the result's and the argument. Shape of all: (tokens, width)"""


class Term(NamedTuple):
    """A low-rank term of a product: dropout(low up), added to some of its columns."""

    low: Tensor
    """as `Kernels.down` returns it. Shape: (tokens, rank)"""
    up: Tensor
    """Shape: (rank, columns)"""
    columns: slice
    mask: MaskNumbers = None


class Finish(NamedTuple):
    """What becomes of a product, in this order."""

    scaled: tuple[Tensor, Tensor] | None = None
    """added: the first times the second, by columns. Shape: (tokens, columns), fp32 (columns,)"""
    total: tuple[Tensor, MaskNumbers] | None = None
    """what the product, dropped out by this mask, is added to. Shape: (tokens, columns)"""
    activation: Tensor | None = None
    """The product is the gradient of the activation's result, and becomes that of what it was taken of; what
    `Kernels.activate_for_backward` kept. Shape: (tokens, columns)"""


class Kernels:
    """The functions of this module, and what is made of them: the elementwise regions of a layer in plain torch."""

    dropped: Callable[..., Tensor] = staticmethod(dropped)
    plus_dropped: Callable[..., Tensor] = staticmethod(plus_dropped)
    add_norm: Callable[..., Any] = staticmethod(add_norm)
    add_norm_backward: Callable[..., Any] = staticmethod(add_norm_backward)
    probabilities: Callable[..., Any] = staticmethod(probabilities)
    probabilities_backward: Callable[..., Tensor] = staticmethod(probabilities_backward)

    def __init__(self, activation: str = "gelu") -> None:
        """activation: of the feed-forward layers, one of `ACTIVATIONS`"""
        self.activation = activation

    def activate(self, x: Tensor) -> Tensor:
        """The activation. Shape: (tokens, intermediate)"""
        return ACTIVATIONS[self.activation][0](x)

    def activate_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """Its gradient; grad's memory may be reused. Shape: (tokens, intermediate)"""
        return ACTIVATIONS[self.activation][1](grad, x)

    def embedded(self, lookup: Lookup, mask: MaskNumbers, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        """dropout(LayerNorm(...)) of a lookup, through ordinary autograd, in fp32 and in the precision given.

        Shape of both: (tokens, hidden)
        """
        first, second = (table.index_select(0, rows) for table, rows in zip(lookup.tables, lookup.places, strict=True))
        total = (first + second).float()
        x = F.layer_norm(total, total.shape[-1:], lookup.weight, lookup.bias, lookup.epsilon)
        x = x if mask is None else x * multiplier(*mask)
        return x, x.to(precision, copy=True)

    def down(self, x: Tensor, A: Tensor, mask: MaskNumbers) -> Tensor:
        """dropout(x) A^T. Shape: x (tokens, d_in), A (rank, d_in), result (tokens, rank)"""
        return self.dropped(x, mask) @ A.t()

    def outer(self, low: Tensor, x: Tensor, mask: MaskNumbers) -> Tensor:
        """low^T dropout(x), summed over tokens, fp32. Shape: low (tokens, rank), x (tokens, d), result (rank, d)"""
        return (low.t() @ self.dropped(x, mask)).float()

    def activate_for_backward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`activate`, and what `activate_backward` takes beside the gradient. Shape of all: (tokens, intermediate)"""
        return self.activate(x), x

    def gains_backward(self, grad: Tensor, z: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """grad (gain - 1), and the sum over tokens of grad z, in fp32.

        Shape: grad and z (tokens, d_out), gain (d_out,); results (tokens, d_out), (d_out,)
        """
        return grad * (gain - 1).to(grad.dtype), (grad * z).sum(0, dtype=torch.float32)

    def finished(self, y: Tensor, finish: Finish) -> Tensor:
        """A product finished; its memory may be reused. Shape: (tokens, columns)"""
        if finish.scaled is not None:
            scaled, gain = finish.scaled
            y = y.addcmul_(scaled, gain.to(y.dtype))
        if finish.total is not None:
            total, mask = finish.total
            y = self.plus_dropped(total, y, mask)
        return y if finish.activation is None else self.activate_backward(y, finish.activation)

    def plus_term(self, total: Tensor, term: Term) -> Tensor:
        """A product with a term added; its memory may be reused. Shape: (tokens, all columns)"""
        update = term.low @ term.up
        if term.mask is not None:
            return self.plus_dropped(total, update, term.mask)  # masks are of all columns
        total[:, term.columns].add_(update)
        return total


class Product(NamedTuple):
    """A product with a frozen matrix: x W^T + bias + terms, finished."""

    x: Tensor
    """Shape: (tokens, depth)"""
    bias: Tensor | None = None
    """fp32. Shape: (columns,)"""
    terms: Sequence[Term] = ()
    finish: Finish = Finish()
    kernels: Kernels = Kernels()
    """what terms and finish are computed with"""

    def bias_as(self, precision: torch.dtype) -> Tensor | None:
        """The bias in the precision of a product. Shape: (columns,)"""
        return None if self.bias is None else self.bias.to(precision)

    def completed(self, y: Tensor) -> Tensor:
        """y = x W^T + bias with the terms, finished; its memory may be reused. Shape: (tokens, columns)"""
        for term in self.terms:
            y = self.kernels.plus_term(y, term)
        return self.kernels.finished(y, self.finish)


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
