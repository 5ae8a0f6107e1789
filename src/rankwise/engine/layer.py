"""One post-norm encoder layer on packed tokens, put together from its parts.

Two tensors run between layers: the residual stream in fp32, and its copy in the precision of the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from rankwise.encoders import Numbers
from rankwise.engine.attention import Attention, Call, fused_attention, ragged_attention
from rankwise.engine.dropout import Mask, Stream
from rankwise.engine.frozen import hold
from rankwise.engine.fused import dropped, plus_dropped
from rankwise.engine.linear import Output, Sites
from rankwise.engine.native.backend import Backend
from rankwise.engine.packing import Packed
from rankwise.engine.weights import LayerWeights, NormWeights

Way = Literal["explicit", "rectangles", "ragged"]
"""of attention: products of our own, the library's of rectangles, the library's of texts as long as they are"""


class Mixed(Protocol):
    """Several classifiers, whose rows share a pass, without gradients (`mixed`)."""

    @property
    def owners(self) -> Any:
        """As a backend's kernels take it whose the rows of tokens and of texts are (`native.several`)."""

    def linear(self, sites: Sites, x: Tensor, *, activate: bool) -> Output:
        """As `Sites.forward`, by each row's own adapter. Shape: x (rows, d_in)"""

    def normed(self, path: str, x: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """The results of a norm, brought to each row's own bias. Shape: (rows, hidden), in fp32 and in low's precision"""


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share."""

    batch: Packed
    biases: Sequence[Tensor]
    """of attention scores, one a group. Shape: (texts, 1 or heads, 1 or longest, longest)"""
    hides_only: bool
    """whether the biases hide padding and no more"""
    backend: Backend | None
    """whose kernels compute the embeddings and the layers; None: torch"""
    stream: Stream | None
    """dropout masks; None when nothing is dropped"""
    attention: Way = "explicit"
    """by which of `engine.attention`'s ways"""
    mixed: Mixed | None = None
    """whose the rows are, where they are several classifiers'"""
    made: dict[Any, Any] = field(default_factory=dict)
    """see `once`"""

    def once(self, name: Any, make: Callable[[], Any]) -> Any:
        """What several layers of the pass need and the first of them makes."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def mask(self, shape: Sequence[int], rate: float) -> Mask | None:
        """A fresh dropout mask of a shape (rows, columns), if anything is dropped."""
        return None if self.stream is None else self.stream.mask(shape[0], shape[1], rate)

    def dropped(self, x: Tensor, rate: float) -> Tensor:
        """Dropout through ordinary autograd. Shape: (rows, columns)"""
        mask = self.mask(x.shape, rate)
        return x if mask is None else x * mask.multiplier()

    def linear(self, sites: Sites, x: Tensor, *, activate: bool = False, taken_of: Tensor | None = None) -> Output:
        """`Sites` with fresh masks for their adapters. Shape: x (tokens, d_in), y (tokens, d_out)"""
        if self.mixed is not None:
            return self.mixed.linear(sites, x, activate=activate)
        masks = [self.mask(x.shape, site.dropout) if site.adapted else None for site in sites.parts]
        output: Output = sites(x, masks, activate=activate, taken_of=taken_of)
        return output

    def norm(self, norm: Norm, update: Tensor, residual: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """`Norm` with a fresh mask, in fp32 and in update's precision. Shape of all: (tokens, hidden)"""
        both: tuple[Tensor, Tensor] = norm(update, residual, self.mask(update.shape, rate))
        return both if self.mixed is None else self.mixed.normed(norm.path, *both)

    def masks(self, sizes: Numbers, *, firsts_only: bool = False) -> list[Mask | None]:
        """Fresh masks for the probabilities of every group. Rows: texts * heads * queries; columns: longest"""
        rate = sizes.attention_dropout
        return [
            self.mask((group.texts * sizes.heads * (1 if firsts_only else group.longest), group.longest), rate)
            for group in self.batch.groups
        ]

    def attend(
        self,
        sources: Sequence[Tensor],
        parts: tuple[int, ...],
        biases: Sequence[Tensor],
        sizes: Numbers,
        *,
        plain: bool,
        firsts_only: bool = False,
    ) -> Tensor:
        """The context of queries, keys and values: see `Call`. Shape: (tokens, hidden) or (texts, hidden)

        plain
            Whether the biases hide padding and no more.
        """
        masks = self.masks(sizes, firsts_only=firsts_only) if self.attention == "explicit" else []
        rows = len(self.batch.firsts if firsts_only else self.batch.ids)
        call = Call(self.batch.groups, biases, masks, parts, sizes.heads, sizes.head_width, firsts_only, rows)
        rate = 0.0 if self.stream is None else sizes.attention_dropout
        if self.attention == "ragged" and plain:
            return ragged_attention(call, self.batch, rate, *sources)
        if self.attention != "explicit":
            return fused_attention(call, rate, *sources)
        context: Tensor = Attention.apply(call, *sources)  # type: ignore[no-untyped-call]
        return context


class Norm(nn.Module):
    """LayerNorm(residual + dropout(update))."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: NormWeights, epsilon: float) -> None:
        super().__init__()
        assert weights.bias is not None
        hold(self, "weight", weights.weight.detach())
        hold(self, "bias", weights.bias)
        self.epsilon, self.path = epsilon, weights.path
        self.number = 0
        """of its biases, where rows are for several classifiers (`native.several`)"""

    def forward(self, update: Tensor, residual: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
        """update (tokens, hidden) in compute precision, residual (tokens, hidden) in fp32 -> the norm in both."""
        both: tuple[Tensor, Tensor] = AddNorm.apply(  # type: ignore[no-untyped-call]
            update, residual, self.bias, self.weight, mask, self.epsilon
        )
        return both


class AddNorm(torch.autograd.Function):
    """`Norm`'s arithmetic, in fp32, with its backward; the norm's weight is frozen."""

    @staticmethod
    def forward(
        ctx: Any, update: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, mask: Mask | None, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total = plus_dropped(residual, update, mask)
        out, mean, deviation = torch.native_layer_norm(total, [total.shape[-1]], weight, bias, epsilon)
        if any(ctx.needs_input_grad):
            ctx.mask, ctx.low = mask, update.dtype
            ctx.save_for_backward(weight, total, mean, deviation)
            ctx.set_materialize_grads(False)
        return out, out.to(update.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_low: Tensor | None) -> tuple[Any, ...]:
        weight, total, mean, deviation = ctx.saved_tensors
        # One of the two is there, or autograd would not have come here.
        both = [one for one in (grad, grad_low) if one is not None]
        above = both[0].float() if len(both) == 1 else both[0] + both[1]
        residual, _, _ = torch.ops.aten.native_layer_norm_backward(
            above, total, [total.shape[-1]], mean, deviation, weight, None, [True, False, False]
        )
        bias = above.sum(0) if ctx.needs_input_grad[2] else None
        return dropped(residual, ctx.mask).to(ctx.low), residual, bias, None, None, None


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, the residual sum and a norm.

    firsts_only
        For the last layer: compute the outputs of the texts' first tokens alone, which is all the head reads.
    """

    splits_firsts = True
    """whether queries of first tokens alone are made, apart from keys and values"""

    def __init__(
        self,
        weights: LayerWeights,
        sizes: Numbers,
        precision: torch.dtype,
        *,
        firsts_only: bool,
    ) -> None:
        super().__init__()
        self.sizes, self.firsts_only = sizes, firsts_only
        assert weights.attention_norm is not None
        self.sources = tuple(
            Sites([weights.sites[word] for word in words], precision)
            for words in _joint(weights, firsts_only and self.splits_firsts)
        )
        self.inputs = nn.ModuleList(self.sources)
        self.attention_output = Sites([weights.sites["attention_output"]], precision)
        self.attention_norm = Norm(weights.attention_norm, sizes.epsilon)
        self.ffn_in = Sites([weights.sites["ffn_in"]], precision, sizes.activation)
        self.ffn_out = Sites([weights.sites["ffn_out"]], precision, sizes.activation)
        self.ffn_norm = Norm(weights.ffn_norm, sizes.epsilon)

    def forward(self, x: Tensor, low: Tensor, shared: Pass) -> tuple[Tensor, Tensor]:
        """One layer.

        x
            residual stream, fp32. Shape: (tokens, hidden)
        low
            the same in compute precision

        Returns: both after the layer. Shape: (tokens, hidden), or (texts, hidden) when `firsts_only`
        """
        context = self._attend(low, shared)
        if self.firsts_only:
            x = x.index_select(0, shared.batch.firsts)
        update = shared.linear(self.attention_output, context).y
        x, low = shared.norm(self.attention_norm, update, x, self.sizes.attention_output_dropout)
        activated, taken_of, _ = shared.linear(self.ffn_in, low, activate=True)
        update = shared.linear(self.ffn_out, activated, taken_of=taken_of).y
        return shared.norm(self.ffn_norm, update, x, self.sizes.hidden_dropout)

    def _attend(self, low: Tensor, shared: Pass) -> Tensor:
        """Queries, keys, values, and the context. Shape: (tokens, hidden) or (texts, hidden)"""
        sources: list[Tensor] = []
        for number, sites in enumerate(self.sources):
            if number == 0 and self.firsts_only:
                asking = low.index_select(0, shared.batch.firsts)
                sources.append(shared.linear(sites, asking).y)
            else:
                y, _, low = shared.linear(sites, low)
                sources.append(y)
        biases = [bias[:, :, :1] for bias in shared.biases] if self.firsts_only else shared.biases
        parts = tuple(len(sites.parts) for sites in self.sources)
        plain = shared.hides_only
        return shared.attend(sources, parts, biases, self.sizes, plain=plain, firsts_only=self.firsts_only)


def _joint(weights: LayerWeights, firsts_only: bool) -> Sequence[Sequence[str]]:
    """Which of query, key and value run as one product."""
    words = ("query", "key", "value")
    if any(weights.sites[word].has_dora for word in words):
        return tuple((word,) for word in words)
    return (("query",), ("key", "value")) if firsts_only else (words,)
