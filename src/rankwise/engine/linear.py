"""Linear layers with adapters on frozen matrices: LoRA and DoRA, forward and backward.

Several layers that read the same input (query, key, value) run as one: each layer's frozen weight, and its adapter,
have their own columns of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rankwise.engine.dropout import Mask
from rankwise.engine.frozen import FrozenLinear, activated, columns_of, hold
from rankwise.engine.fused import Finish, Kernels, Product, Term, numbers_of
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
        crossed = frozen(Product(A.to(precision))).float()  # A W^T. Shape: (rank, d_out)
        added = torch.addmm(crossed.t(), B, A @ A.t(), beta=2.0).mul_(B).sum(1)
        return added.add_(self.there("squared_norms")).rsqrt_().mul_(self.there("magnitude"))


class Sites(nn.Module):
    """Linear layers that read the same input, run as one: x -> [y_1 | y_2 | ...].

    A DoRA layer runs alone, since its frozen weight also meets the dropped input.
    """

    frozen_bias: Tensor | None
    """the joint bias in fp32, unless one of them trains"""

    def __init__(self, layers: Sequence[Dense], precision: torch.dtype) -> None:
        super().__init__()
        self.d_in = layers[0].weight.shape[1]
        weights = [layer.weight for layer in layers]
        self.frozen = FrozenLinear(weights, precision)
        self.parts = tuple(Site(layer, place) for layer, place in zip(layers, columns_of(weights), strict=True))
        self.sites = nn.ModuleList(self.parts)
        self.number = 0
        """of its changes, where rows are for several classifiers (`native.several`)"""
        self.mixed: Mixed | None = None
        """answers in place of its own adapters, where they are and torch computes (`mixed`)"""
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
        kernels: Kernels,
        *,
        activate: bool = False,
        activation: Tensor | None = None,
    ) -> Output:
        """x W^T + b and every site's adapter; or the activation of it all.

        x
            Shape: (tokens, d_in)
        masks
            dropout of each site's adapter input
        activate, activation
            Two layers with an activation between: the first, asked to activate, also returns what the second is given as
            `activation`. The gradient that the second hands down is then past it, and the first takes it as such.
        """
        if self.mixed is not None:
            return self.mixed(x, kernels, activate=activate)
        trained = [tensor for site in self.parts for tensor in site.trained]
        function = DoraLinear if self.dora else LoraLinear
        work = Work(self, masks, kernels, activate, activation)
        return Output(*function.apply(x, work, *trained))  # type: ignore[no-untyped-call]


class Output(NamedTuple):
    """What `Sites` give."""

    y: Tensor
    """Shape: (tokens, d_out of all sites)"""
    activation: Tensor | None
    """for the layer that reads the activation's result; no gradient goes through it"""
    x: Tensor
    """The input, for the next that reads it, whose gradient is then added where this one's is made.
    Shape: (tokens, d_in)"""


class Mixed(Protocol):
    """`Sites.forward` for rows of several adapters, without gradients."""

    def __call__(self, x: Tensor, kernels: Kernels, *, activate: bool) -> Output:
        """Shape: x (rows, d_in)"""


class Work(NamedTuple):
    """What one pass through a `Sites` is given beside tensors."""

    layer: Sites
    masks: Sequence[Mask | None]
    kernels: Kernels
    activate: bool
    activation: Tensor | None


class LoraLinear(torch.autograd.Function):
    """y = x W^T + b, and y_i += scale_i dropout_i(x) A_i^T B_i^T for every adapted site i (Hu et al. 2021, eq. 3);
    or its activation, whose gradient comes as y's (`Sites.forward`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, work: Work, *trained: Tensor | None) -> tuple[Tensor | None, ...]:
        layer, masks, kernels, activate, activation = work
        terms, used = [], []
        for site, mask in zip(layer.parts, masks, strict=True):
            if site.adapted:
                down, up = site.down(x.dtype), site.up(x.dtype)
                terms.append(Term(kernels.down(x, down, numbers_of(mask)), up, site.columns))
                used.append((down, up))
        keep = any(ctx.needs_input_grad)
        kept: Tensor | None = None
        product = Product(x, layer.bias(), terms, kernels=kernels)
        if activate:
            y, kept = layer.frozen.activated(product, keep=keep)
        else:
            y = layer.frozen(product)
        if keep:
            ctx.work, ctx.used = work._replace(activation=None), used
            ctx.save_for_backward(x if terms else None, activation, *(term.low for term in terms))
        return _outputs(ctx, y, kept, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_next: Tensor | None) -> tuple[Any, ...]:
        x, activation, *lows = ctx.saved_tensors
        (layer, masks, kernels, _, _), need = ctx.work, ctx.needs_input_grad
        trained: list[Tensor | None] = []
        terms: list[Term] = []
        remaining = zip(lows, ctx.used, strict=True)
        for site, mask in zip(layer.parts, masks, strict=True):
            needs_bias = need[2 + len(trained) + 3]
            above = grad[:, site.columns]  # (tokens, d_out)
            if site.adapted:
                (low, (down, up)), numbers = next(remaining), numbers_of(mask)
                grad_B = kernels.outer(low, above, None).t() * site.scale
                grad_low = kernels.down(above, up, None)  # (tokens, rank)
                grad_A = kernels.outer(grad_low, x, numbers)
                trained += [grad_A, grad_B, None]
                terms.append(Term(grad_low, down, slice(None), numbers))
            else:
                trained += [None, None, None]
            trained.append(above.sum(0, dtype=torch.float32) if needs_bias else None)
        finish = Finish(total=_undropped(grad_next), activation=activation)
        grad_x = layer.frozen.backward(Product(grad, None, terms, finish, kernels)) if need[0] else None
        return grad_x, None, *trained


def _outputs(ctx: Any, y: Tensor, activation: Tensor | None, x: Tensor) -> tuple[Tensor | None, ...]:
    ctx.set_materialize_grads(False)  # of results that nobody read
    # Handed on from where nothing trains below, x is as free of gradients as it came.
    free = [activation, None if ctx.needs_input_grad[0] else x]
    ctx.mark_non_differentiable(*(tensor for tensor in free if tensor is not None))
    return y, activation, x


def _undropped(total: Tensor | None) -> tuple[Tensor, None] | None:
    """For `Finish.total`, where nothing is dropped out."""
    return None if total is None else (total, None)


class DoraLinear(torch.autograd.Function):
    """One DoRA layer as PEFT computes it (Liu et al. 2024, eq. 5; the norm counts as a constant, section 4.3).

    With g = magnitude / |W + scale B A| by rows and z = W d + scale B A d of the dropped input d:
    y = W x + b + g z - W d. Without dropout d = x, and y = g z + b.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, work: Work, *trained: Tensor | None) -> tuple[Tensor | None, ...]:
        layer, (mask,), kernels, activate, activation = work
        (site,) = layer.parts
        gain, numbers = site.gain(layer.frozen, x.dtype), numbers_of(mask)  # gain: (d_out,)
        down, up = site.down(x.dtype), site.up(x.dtype)
        terms = [Term(kernels.down(x, down, numbers), up, slice(None))]
        z = layer.frozen(Product(kernels.dropped(x, numbers), None, terms, kernels=kernels))  # (tokens, d_out)
        y: Tensor
        if mask is None:
            y = z * gain.to(x.dtype)
            bias = layer.bias()
            y = y if bias is None else y.add_(bias.to(x.dtype))
        else:
            # W d = z - scale B A d, so y = (W x + b + scale B A d) + (g - 1) z.
            y = layer.frozen(Product(x, layer.bias(), terms, Finish(scaled=(z, gain - 1)), kernels))
        keep = any(ctx.needs_input_grad)
        if keep:
            ctx.work, ctx.used = work._replace(activation=None), (down, up)
            ctx.save_for_backward(x, terms[0].low, z, gain, activation)
        return _outputs(ctx, *(activated(y, kernels, keep=keep) if activate else (y, None)), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_next: Tensor | None) -> tuple[Any, ...]:
        x, low, z, gain, activation = ctx.saved_tensors
        (layer, (mask,), kernels, _, _), need = ctx.work, ctx.needs_input_grad
        (site,), (down, up), numbers = layer.parts, ctx.used, numbers_of(mask)
        # The gradient of z is gain grad: `beyond` is what it has beyond that of W x. It is not made itself: the gain is
        # multiplied into what is smaller, B^T before and B's gradient after.
        beyond, grad_gain = kernels.gains_backward(grad, z, gain)
        grad_low = kernels.down(grad, up * gain.to(up.dtype), None)  # (tokens, rank)
        grad_A = kernels.outer(grad_low, x, numbers)
        grad_B = kernels.outer(low, grad, None).t() * (site.scale * gain[:, None])
        # d gain / d magnitude is gain / magnitude, the inverse norm.
        grad_magnitude = grad_gain * gain / site.there("magnitude")
        grad_bias = grad.sum(0, dtype=torch.float32) if need[5] else None
        grad_x = None
        if need[0]:
            terms = [Term(grad_low, down, slice(None))]
            if mask is None:
                finish = Finish(total=_undropped(grad_next), activation=activation)
                grad_x = layer.frozen.backward(Product(grad * gain.to(grad.dtype), None, terms, finish, kernels))
            else:
                product = Product(grad, finish=Finish(total=_undropped(grad_next)), kernels=kernels)
                finish = Finish(total=(layer.frozen.backward(product), numbers), activation=activation)
                grad_x = layer.frozen.backward(Product(beyond, None, terms, finish, kernels))
        return grad_x, None, grad_A, grad_B, grad_magnitude, grad_bias
