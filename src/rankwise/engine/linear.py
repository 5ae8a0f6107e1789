"""Linear layers with adapters on frozen matrices: LoRA and DoRA, forward and backward.

Several layers that read the same input (query, key, value) run as one: each layer's frozen weight, and its adapter,
have their own columns of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rankwise.engine.dropout import Mask
from rankwise.engine.frozen import FrozenLinear, columns_of, hold
from rankwise.engine.fused import ACTIVATIONS, dropped, plus_dropped
from rankwise.engine.weights import Adapter, Dense


class Site(nn.Module):
    """One linear layer's own part of a `Sites`: its bias and its adapter, if any."""

    lora_A: Tensor | None
    lora_B: Tensor | None
    magnitude: Tensor | None
    bias: Tensor | None
    squared_norms: Tensor | None

    def __init__(self, dense: Dense, columns: slice) -> None:
        """columns: of the joint output that are this layer's."""
        super().__init__()
        adapter = dense.adapter or Adapter.absent()
        self.columns = columns
        self.path = dense.path
        self.scale = adapter.scale
        self.dropout = adapter.dropout
        for name, value in zip(
            ("lora_A", "lora_B", "magnitude", "bias"),
            (adapter.A, adapter.B, adapter.magnitude, dense.bias),
            strict=True,
        ):
            hold(self, name, value)
        squares = dense.weight.detach().float().square().sum(1) if adapter.magnitude is not None else None
        hold(self, "squared_norms", squares)

    @property
    def trained(self) -> tuple[Tensor | None, ...]:
        """A (rank, d_in), B (d_out, rank), magnitude (d_out,) and bias (d_out,), trained or not."""
        return self.lora_A, self.lora_B, self.magnitude, self.bias

    def there(self, name: str) -> Tensor:
        """A tensor that this site is known to have."""
        value = getattr(self, name)
        assert isinstance(value, Tensor)
        return value.detach()

    @property
    def adapted(self) -> bool:
        """Whether it carries an adapter."""
        return self.lora_A is not None

    def down(self, precision: torch.dtype) -> Tensor:
        """A, in the precision to compute in. Shape: (rank, d_in)"""
        return self.there("lora_A").to(precision)

    def up(self, precision: torch.dtype) -> Tensor:
        """scale B^T, in the precision to compute in. Shape: (rank, d_out)"""
        return (self.there("lora_B").t() * self.scale).to(precision)

    def gain(self, frozen: FrozenLinear, precision: torch.dtype) -> Tensor:
        """DoRA's magnitude over the norm of every row of W + scale B A.

        The norm is in Gram form, neither B A nor a second W is made: for a row w of W and b of scale B,
        |w + b A|^2 = |w|^2 + 2 b (A w) + b (A A^T) b^T. (PEFT calls it the column norm, after the paper's W^T.)

        Returns: fp32. Shape: (d_out,)
        """
        A, B = self.there("lora_A"), self.there("lora_B") * self.scale
        crossed = frozen(A.to(precision)).float()  # A W^T. Shape: (rank, d_out)
        added = torch.addmm(crossed.t(), B, A @ A.t(), beta=2.0).mul_(B).sum(1)
        return added.add_(self.there("squared_norms")).rsqrt_().mul_(self.there("magnitude"))


class Sites(nn.Module):
    """Linear layers that read the same input, run as one: x -> [y_1 | y_2 | ...].

    A DoRA layer runs alone, since its frozen weight also meets the dropped input.
    """

    frozen_bias: Tensor | None
    """the joint bias in fp32, unless one of them trains"""

    def __init__(self, layers: Sequence[Dense], precision: torch.dtype, activation: str = "") -> None:
        """activation: of `ACTIVATIONS`, for those that are asked to activate their result, or read what has been activated"""
        super().__init__()
        self.activation = activation
        self.d_in = layers[0].weight.shape[1]
        weights = [layer.weight for layer in layers]
        self.frozen = FrozenLinear(weights, precision)
        self.parts = tuple(Site(layer, place) for layer, place in zip(layers, columns_of(weights), strict=True))
        self.sites = nn.ModuleList(self.parts)
        self.number = 0
        """of its changes, where rows are for several classifiers (`native.several`)"""
        if not any(isinstance(site.bias, nn.Parameter) for site in self.parts):
            hold(self, "frozen_bias", self._joint_bias())
        else:
            self.frozen_bias = None

    @property
    def dora(self) -> bool:
        """Whether it is one DoRA layer."""
        return any(site.magnitude is not None for site in self.parts)

    def bias(self) -> Tensor | None:
        """The joint bias, in fp32; None where the layers have none. Shape: (d_out,)"""
        return self._joint_bias() if self.frozen_bias is None else self.frozen_bias

    def _joint_bias(self) -> Tensor | None:
        if self.parts[0].bias is None:
            return None
        return torch.cat([site.there("bias").float() for site in self.parts])

    def forward(
        self,
        x: Tensor,
        masks: Sequence[Mask | None],
        *,
        activate: bool = False,
        taken_of: Tensor | None = None,
    ) -> Output:
        """x W^T + b and every site's adapter; or the activation of it all.

        x
            Shape: (tokens, d_in)
        masks
            dropout of each site's adapter input
        activate, taken_of
            Two layers with an activation between: the first, asked to activate, also returns what that was taken of, which
            the second is given. The gradient that the second hands down is then past it, and the first takes it as such.
        """
        trained = [tensor for site in self.parts for tensor in site.trained]
        function = DoraLinear if self.dora else LoraLinear
        return Output(*function.apply(x, (self, masks, activate), taken_of, *trained))  # type: ignore[no-untyped-call]


class Output(NamedTuple):
    """What `Sites` give."""

    y: Tensor
    """Shape: (tokens, d_out of all sites)"""
    taken_of: Tensor | None
    """what an activation was taken of, for the layer that reads its result; no gradient goes through it"""
    x: Tensor
    """The input, for the next that reads it, whose gradient is then added where this one's is made.
    Shape: (tokens, d_in)"""


Work = tuple[Sites, Sequence[Mask | None], bool]
"""what one pass through a `Sites` is given beside tensors"""


class LoraLinear(torch.autograd.Function):
    """y = x W^T + b, and y_i += scale_i dropout_i(x) A_i^T B_i^T for every adapted site i (Hu et al. 2021, eq. 3);
    or its activation, whose gradient comes as y's (`Sites.forward`)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, work: Work, taken_of: Tensor | None, *trained: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layer, masks, activate = work
        terms = []
        for site, mask in zip(layer.parts, masks, strict=True):
            if site.adapted:
                down, up = site.down(x.dtype), site.up(x.dtype)
                terms.append((dropped(x, mask) @ down.t(), down, up, site.columns))
        keep = any(ctx.needs_input_grad)
        at_once = activate and not keep and not terms
        y = layer.frozen(x, layer.bias(), layer.activation if at_once else None)
        for low, _, up, columns in terms:
            y[:, columns].add_(low @ up)
        if keep:
            ctx.layer, ctx.masks, ctx.factors = layer, masks, [(down, up) for _, down, up, _ in terms]
            ctx.save_for_backward(x if terms else None, taken_of, *(low for low, *_ in terms))
        return _outputs(ctx, layer, x, y, activate=activate and not at_once)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_next: Tensor | None) -> tuple[Any, ...]:
        x, taken_of, *lows = ctx.saved_tensors
        layer, need = ctx.layer, ctx.needs_input_grad
        trained: list[Tensor | None] = []
        terms = []
        remaining = zip(lows, ctx.factors, strict=True)
        for site, mask in zip(layer.parts, ctx.masks, strict=True):
            needs_bias = need[3 + len(trained) + 3]
            above = grad[:, site.columns]  # (tokens, d_out)
            if site.adapted:
                low, (down, up) = next(remaining)
                grad_low = above @ up.t()  # (tokens, rank)
                trained += [(grad_low.t() @ dropped(x, mask)).float(), (low.t() @ above).float().t() * site.scale, None]
                terms.append((grad_low, down, mask))
            else:
                trained += [None, None, None]
            trained.append(above.sum(0, dtype=torch.float32) if needs_bias else None)
        grad_x = None
        if need[0]:
            grad_x = layer.frozen.backward(grad)
            for grad_low, down, mask in terms:
                update = grad_low @ down
                grad_x = grad_x.add_(update) if mask is None else plus_dropped(grad_x, update, mask)
            grad_x = _handed_down(layer, grad_x, grad_next, taken_of)
        return grad_x, None, None, *trained


def _outputs(ctx: Any, layer: Sites, x: Tensor, y: Tensor, *, activate: bool) -> tuple[Tensor | None, ...]:
    """What `Sites` give, with the activation of y where it is still to be taken."""
    taken_of = y if activate and any(ctx.needs_input_grad) else None
    y = ACTIVATIONS[layer.activation][0](y) if activate else y
    ctx.set_materialize_grads(False)  # of results that nobody read
    # Handed on from where nothing trains below, x is as free of gradients as it came.
    free = [taken_of, None if ctx.needs_input_grad[0] else x]
    ctx.mark_non_differentiable(*(tensor for tensor in free if tensor is not None))
    return y, taken_of, x


def _handed_down(layer: Sites, below: Tensor, total: Tensor | None, taken_of: Tensor | None) -> Tensor:
    """The input's gradient with that of the next who reads it; past the activation that the input is of, if it is."""
    below = below if total is None else total + below
    return below if taken_of is None else ACTIVATIONS[layer.activation][1](below, taken_of)


class DoraLinear(torch.autograd.Function):
    """One DoRA layer as PEFT computes it (Liu et al. 2024, eq. 5; the norm counts as a constant, section 4.3).

    With g = magnitude / |W + scale B A| by rows and z = W d + scale B A d of the dropped input d:
    y = W x + b + g z - W d. Without dropout d = x, and y = g z + b.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, work: Work, taken_of: Tensor | None, *trained: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layer, masks, activate = work
        (site,), (mask,) = layer.parts, masks
        bias = layer.bias()
        gain = site.gain(layer.frozen, x.dtype)  # (d_out,)
        down, up = site.down(x.dtype), site.up(x.dtype)
        low = dropped(x, mask) @ down.t()
        update = low @ up
        z = layer.frozen(dropped(x, mask)).add_(update)  # (tokens, d_out)
        y: Tensor
        if mask is None:
            y = z * gain.to(x.dtype)
            y = y if bias is None else y.add_(bias.to(x.dtype))
        else:
            # W d = z - scale B A d, so y = (W x + b + scale B A d) + (g - 1) z.
            y = layer.frozen(x, bias).add_(update).addcmul_(z, (gain - 1).to(x.dtype))
        if any(ctx.needs_input_grad):
            ctx.layer, ctx.mask, ctx.factors = layer, mask, (down, up)
            ctx.save_for_backward(x, low, z, gain, taken_of)
        return _outputs(ctx, layer, x, y, activate=activate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_next: Tensor | None) -> tuple[Any, ...]:
        x, low, z, gain, taken_of = ctx.saved_tensors
        layer, mask, (down, up), need = ctx.layer, ctx.mask, ctx.factors, ctx.needs_input_grad
        (site,) = layer.parts
        # The gain is multiplied into what is smaller than the gradient: B^T before, and B's gradient after.
        grad_low = grad @ (up * gain.to(up.dtype)).t()  # (tokens, rank)
        grad_A = (grad_low.t() @ dropped(x, mask)).float()
        grad_B = (low.t() @ grad).float().t() * (site.scale * gain[:, None])
        # d gain / d magnitude is gain / magnitude, the inverse norm.
        grad_magnitude = (grad * z).sum(0, dtype=torch.float32) * gain / site.there("magnitude")
        grad_bias = grad.sum(0, dtype=torch.float32) if need[6] else None
        grad_x = None
        if need[0]:
            # The gradient of z is gain grad. With dropout it has (gain - 1) grad beyond that of W x.
            of_frozen = grad * (gain if mask is None else gain - 1).to(grad.dtype)
            grad_x = layer.frozen.backward(of_frozen).add_(grad_low @ down)
            if mask is not None:
                undropped = layer.frozen.backward(grad)
                undropped = undropped if grad_next is None else grad_next + undropped
                grad_x, grad_next = plus_dropped(undropped, grad_x, mask), None
            grad_x = _handed_down(layer, grad_x, grad_next, taken_of)
        return grad_x, None, None, grad_A, grad_B, grad_magnitude, grad_bias
