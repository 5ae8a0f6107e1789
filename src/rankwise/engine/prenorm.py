"""An encoder layer whose norms come first (ModernBERT's), on packed tokens: rotary positions, windows, gates.

The residual stream alone runs between layers, in fp32; each half of a layer norms it and adds to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.encoders.family import Numbers, Rotary
from rankwise.engine.dropout import Mask
from rankwise.engine.frozen import hold
from rankwise.engine.fused import ACTIVATIONS, dropped
from rankwise.engine.layer import Pass
from rankwise.engine.linear import Sites
from rankwise.engine.weights import LayerWeights, NormWeights

# Added to scores of tokens out of a window: finite, in half precision too, so that a row of padding has a softmax.
OUT_OF_SIGHT = -3e4


class PlainNorm(nn.Module):
    """LayerNorm through ordinary autograd, its weight and bias trained or not."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: NormWeights, epsilon: float) -> None:
        super().__init__()
        hold(self, "weight", weights.weight)
        hold(self, "bias", weights.bias)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (rows, width)"""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


class PreNormLayer(nn.Module):
    """x += attention(norm(x)), x += gated feed-forward(norm(x)).

    firsts_only
        For the last layer: what comes after attention for the texts' first tokens alone, which is all the head reads.
    """

    def __init__(
        self, weights: LayerWeights, sizes: Numbers, precision: torch.dtype, *, rotary: Rotary, firsts_only: bool
    ) -> None:
        super().__init__()
        self.sizes, self.precision, self.rotary, self.firsts_only = sizes, precision, rotary, firsts_only
        # The first layer has none: the embedding's norm comes just before it.
        first = weights.attention_norm
        self.attention_norm = None if first is None else PlainNorm(first, sizes.epsilon)
        self.joint = Sites([weights.sites["query"]], precision)
        self.sources = (self.joint,)
        self.attention_output = Sites([weights.sites["attention_output"]], precision)
        self.ffn_norm = PlainNorm(weights.ffn_norm, sizes.epsilon)
        self.ffn_in = Sites([weights.sites["ffn_in"]], precision)
        self.ffn_out = Sites([weights.sites["ffn_out"]], precision)

    def forward(self, x: Tensor, low: Tensor, shared: Pass) -> tuple[Tensor, Tensor]:
        """One layer.

        x
            residual stream, fp32. Shape: (tokens, hidden)

        Returns: the stream after the layer, twice, since nobody reads another copy.
        Shape: (tokens, hidden), or (texts, hidden) when `firsts_only`
        """
        context = self._attend(self._normed(self.attention_norm, x), shared)
        if self.firsts_only:
            x, context = (one.index_select(0, shared.batch.firsts) for one in (x, context))
        update = shared.linear(self.attention_output, context).y
        x = x + shared.dropped(update.float(), self.sizes.attention_output_dropout)
        both = shared.linear(self.ffn_in, self._normed(self.ffn_norm, x)).y
        mask = shared.mask((len(both), both.shape[1] // 2), self.sizes.hidden_dropout)
        gated = Gated.apply(both, mask, self.sizes.activation)  # type: ignore[no-untyped-call]
        x = x + shared.linear(self.ffn_out, gated).y
        return x, x

    def _normed(self, norm: PlainNorm | None, x: Tensor) -> Tensor:
        return (x if norm is None else norm(x)).to(self.precision)

    def _attend(self, x: Tensor, shared: Pass) -> Tensor:
        """The context. Shape: (tokens, hidden)"""
        sizes, theta = self.sizes, self.rotary.theta
        angles = shared.once(("angles", theta), lambda: angles_of(shared.batch.positions, sizes.head_width, theta))
        joint: Tensor = Rotated.apply(shared.linear(self.joint, x).y, angles)  # type: ignore[no-untyped-call]
        biases = shared.once(("window", self.rotary.window), lambda: self._biases(shared))
        plain = self.rotary.window is None and shared.hides_only
        return shared.attend([joint], (3,), biases, sizes, plain=plain)

    def _biases(self, shared: Pass) -> list[Tensor]:
        """Padding, and what is out of the window, for every group. Shape of each: (texts, 1, 1 or longest, longest)"""
        window = self.rotary.window
        if window is None:
            return list(shared.biases)
        return [bias + out_of_window(bias.shape[-1], window, bias.device) for bias in shared.biases]


def out_of_window(length: int, window: int, device: torch.device) -> Tensor:
    """Added to scores: nothing within the window. Shape: (length, length)"""
    place = torch.arange(length, device=device)
    return torch.where((place[:, None] - place).abs() > window, OUT_OF_SIGHT, 0.0)


def angles_of(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine by position (Su et al. 2021, equation 15). Shape of both: (tokens, 1, 1, width / 2)"""
    rates = 1.0 / (theta ** (torch.arange(0, width, 2, device=positions.device).float() / width))
    angles = (positions[:, None].float() * rates)[:, None, None, :]
    return angles.cos(), angles.sin()


class Rotated(torch.autograd.Function):
    """Queries and keys turned by their positions; values as they are. Shape: (tokens, 3 * hidden)"""

    @staticmethod
    def forward(ctx: Any, joint: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        ctx.angles = angles
        return _turned(joint, *angles)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        cosine, sine = ctx.angles
        return _turned(grad, cosine, -sine), None


def _turned(joint: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair (i, i + width / 2) of a head's queries and keys turned. Shape: (tokens, 3 * hidden)"""
    half = cosine.shape[-1]
    heads = joint.view(len(joint), 3, -1, 2 * half)
    first, second = heads[:, :2, :, :half], heads[:, :2, :, half:]
    turned = torch.empty_like(heads)  # products with fp32 angles are fp32, and rounded once
    turned[:, :2, :, :half] = torch.mul(first, cosine).sub_(second * sine)
    turned[:, :2, :, half:] = torch.mul(second, cosine).add_(first * sine)
    turned[:, 2:] = heads[:, 2:]
    return turned.view(joint.shape)


class Gated(torch.autograd.Function):
    """dropout(activation(a) b) of a joint [a | b]; only the joint is kept. Shape: (tokens, 2 * width) -> (tokens, width)"""

    @staticmethod
    def forward(ctx: Any, joint: Tensor, mask: Mask | None, activation: str) -> Tensor:
        ctx.mask, ctx.activation = mask, ACTIVATIONS[activation]
        ctx.save_for_backward(joint)
        value, gate = joint.chunk(2, 1)
        return dropped(ctx.activation[0](value) * gate, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (joint,), (activate, backward) = ctx.saved_tensors, ctx.activation
        value, gate = (part.contiguous() for part in joint.chunk(2, 1))
        above = dropped(grad, ctx.mask)
        return torch.cat([backward(above * gate, value), above * activate(value)], 1), None, None
