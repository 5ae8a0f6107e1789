"""Frozen linear layers and the adapters on them: LoRA and DoRA, forward and backward.

Several layers that read the same input (query, key, value) run as one: each layer's frozen weight, and its adapter,
have their own columns of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.engine.dropout import Mask
from rankwise.engine.fused import Finish, Kernels, Term, numbers_of
from rankwise.engine.native.calls import TileLayout
from rankwise.engine.weights import Adapter, Dense

# Rows that oneDNN is told to expect when it packs a weight; any number runs.
TYPICAL_TOKENS = 1024


def hold(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Keep a tensor on a module: trained ones as the parameters they are, frozen ones outside its state."""
    if isinstance(value, nn.Parameter) and value.requires_grad:
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, None if value is None else value.detach(), persistent=False)


def columns_of(weights: Sequence[Tensor]) -> list[slice]:
    """The columns of the joint output that are each matrix's."""
    stops = list(accumulate(weight.shape[0] for weight in weights))
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN keeps this weight in its own blocked layout (private operators that Inductor calls too)."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class Layout(Protocol):
    """A frozen matrix laid out for products with it, W^T or W; what it takes and gives is `FrozenLinear`'s."""

    tensor: Tensor
    """what it keeps, in an order of its own"""

    def __init__(self, matrix: Tensor) -> None:
        """matrix: Shape: (d_out, d_in), where products are x matrix^T"""

    def matrix(self) -> Tensor:
        """The matrix, exactly. Shape: (d_out, d_in)"""

    def product(
        self,
        x: Tensor,
        bias: Tensor | None,
        kernels: Kernels | None,
        terms: Sequence[Term],
        finish: Finish | None = None,
    ) -> Tensor:
        """`FrozenLinear.forward`, or `FrozenLinear.backward` of the transposed matrix."""

    def activated(
        self, x: Tensor, bias: Tensor, kernels: Kernels, terms: Sequence[Term], *, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`FrozenLinear.activated`."""


class OneDnnLayout:
    """oneDNN's own blocked layout."""

    def __init__(self, matrix: Tensor) -> None:
        self.tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), TYPICAL_TOKENS)

    def matrix(self) -> Tensor:
        dense: Tensor = self.tensor.to_dense()
        return dense

    def product(
        self,
        x: Tensor,
        bias: Tensor | None,
        kernels: Kernels | None,
        terms: Sequence[Term],
        finish: Finish | None = None,
    ) -> Tensor:
        y = torch.ops.mkldnn._linear_pointwise(x, self.tensor, bias, "none", [], "")
        return _completed(y, kernels, terms, finish)

    def activated(
        self, x: Tensor, bias: Tensor, kernels: Kernels, terms: Sequence[Term], *, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        if not keep and not terms:  # erf, not tanh
            return torch.ops.mkldnn._linear_pointwise(x, self.tensor, bias, "gelu", [], "none"), None
        return _activated(self.product(x, bias, kernels, terms), kernels, keep=keep)


class FrozenLinear(nn.Module):
    """W of y = x W^T, never trained; the rows of W are those of several matrices, one upon another.

    On a CPU in bf16 they live in the layout of our own kernels (`native`) or of oneDNN, as one matrix, once for the
    forward pass and once transposed for the backward pass, where there is one: 10 to 40% faster a call than the plain
    matrix, which is not kept. On other devices they are joined as well. On a CPU in fp32 they stay the tensors they
    are, mapped from the model's file: nothing is copied, and processes of one machine share them. Joining them there
    would save 1 to 2% of the products.
    """

    def __init__(self, weights: Sequence[Tensor], precision: torch.dtype, *, native: bool = False) -> None:
        """weights: in any precision; kept in the one to compute in. Shape of each: (d_out, d_in)"""
        super().__init__()
        self.width = sum(weight.shape[0] for weight in weights)
        self.native = native
        self._count = 0
        self._packed: Layout | None = None
        self._packed_transposed: Layout | None = None
        self._keep([weight.detach().to(precision) for weight in weights])
        self._pack()

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        kernels: Kernels | None = None,
        terms: Sequence[Term] = (),
        finish: Finish | None = None,
    ) -> Tensor:
        """x W^T + bias + terms, finished. Terms and finish need `kernels`.

        Shape: x (tokens, d_in), bias (d_out,), result (tokens, d_out)
        """
        packed = self._pack()
        if packed is not None:
            return packed.product(x, bias, kernels, terms, finish)
        return _completed(self._product(x, bias), kernels, terms, finish)

    def activated(
        self, x: Tensor, bias: Tensor, kernels: Kernels, terms: Sequence[Term], *, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """gelu of `forward`, and if `keep` what `Kernels.gelu_backward` takes. Shape of both: (tokens, d_out)"""
        packed = self._pack()
        if packed is not None:
            return packed.activated(x, bias, kernels, terms, keep=keep)
        return _activated(self(x, bias, kernels, terms), kernels, keep=keep)

    def backward(
        self,
        grad: Tensor,
        kernels: Kernels | None = None,
        terms: Sequence[Term] = (),
        finish: Finish | None = None,
    ) -> Tensor:
        """The input's gradient, grad W + terms, finished. Shape: grad (tokens, d_out), result (tokens, d_in)"""
        self.prepare_backward()
        if self._packed_transposed is not None:
            return self._packed_transposed.product(grad, None, kernels, terms, finish)
        weights = self._plain()
        (first, weight), *others = zip(columns_of(weights), weights, strict=True)
        below = grad[:, first] @ weight
        for columns, weight in others:
            below.addmm_(grad[:, columns], weight)
        return _completed(below, kernels, terms, finish)

    def prepare_backward(self) -> None:
        """Make the transposed layout. Early, so that it does not lie scattered between a step's activations."""
        packed = self._pack()
        if packed is not None and self._packed_transposed is None:
            self._packed_transposed = type(packed)(packed.matrix().t())

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + bias of plain matrices. Shape: (tokens, d_out)"""
        weights = self._plain()
        if len(weights) == 1:
            return F.linear(x, weights[0], bias)
        y = x.new_empty(len(x), self.width)
        for columns, weight in zip(columns_of(weights), weights, strict=True):
            if bias is None:
                torch.mm(x, weight.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, weight.t(), out=y[:, columns])
        return y

    def _plain(self) -> list[Tensor]:
        """The matrices; one away from CPUs, where a launch for each would cost more than memory does."""
        weights = self._kept()
        if len(weights) > 1 and weights[0].device.type != "cpu":
            self._keep([torch.cat(weights)])
            return self._kept()
        return weights

    def _kept(self) -> list[Tensor]:
        return [getattr(self, f"weight_{number}") for number in range(self._count)]

    def _keep(self, weights: Sequence[Tensor]) -> None:
        for number in range(self._count):
            delattr(self, f"weight_{number}")
        for number, weight in enumerate(weights):
            hold(self, f"weight_{number}", weight)
        self._count = len(weights)

    def _pack(self) -> Layout | None:
        """The packed weight where there is one; the plain ones are given up for it."""
        weights = self._kept()
        if self._packed is None and weights:
            kind = self._layout(weights[0])
            if kind is not None:
                self._packed = kind(torch.cat(weights))
                self._keep([])
        return self._packed

    def _layout(self, weight: Tensor) -> type[Layout] | None:
        """How matrices such as this one are packed, if they are."""
        if self.native and weight.device.type == "cpu":
            return TileLayout
        return OneDnnLayout if can_pack(weight) else None

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenLinear:
        """Move (`nn.Module.to`): packed layouts stay behind and are made anew where they help."""
        probe = torch.empty(0, dtype=torch.bfloat16)
        moved = fn(probe)
        if self._packed is not None and (moved.device, moved.dtype) != (probe.device, probe.dtype):
            self._keep([self._packed.matrix()])
            self._packed = self._packed_transposed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _completed(y: Tensor, kernels: Kernels | None, terms: Sequence[Term], finish: Finish | None) -> Tensor:
    """A bare product with its terms, finished."""
    if terms or finish is not None:
        assert kernels is not None
        for term in terms:
            y = kernels.plus_term(y, term)
        y = y if finish is None else kernels.finished(y, finish)
    return y


def _activated(y: Tensor, kernels: Kernels, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    return kernels.gelu_for_backward(y) if keep else (kernels.gelu(y), None)


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
        cross = (B * crossed.t()).sum(1)
        quadratic = ((B @ (A @ A.t())) * B).sum(1)
        norms = (self.there("squared_norms") + 2 * cross + quadratic).sqrt()
        gain: Tensor = self.there("magnitude") / norms
        return gain


class Sites(nn.Module):
    """Linear layers that read the same input, run as one: x -> [y_1 | y_2 | ...].

    A DoRA layer runs alone, since its frozen weight also meets the dropped input.
    """

    def __init__(self, layers: Sequence[Dense], precision: torch.dtype, *, native: bool = False) -> None:
        super().__init__()
        self.d_in = layers[0].weight.shape[1]
        weights = [layer.weight for layer in layers]
        self.frozen = FrozenLinear(weights, precision, native=native)
        self.parts = tuple(Site(layer, place) for layer, place in zip(layers, columns_of(weights), strict=True))
        self.sites = nn.ModuleList(self.parts)
        self.bias_precision = torch.float32 if native else precision
        if not any(isinstance(site.bias, nn.Parameter) for site in self.parts):
            hold(self, "frozen_bias", self._joint_bias())
        else:
            self.frozen_bias = None

    @property
    def dora(self) -> bool:
        """Whether it is one DoRA layer."""
        return any(site.magnitude is not None for site in self.parts)

    def bias(self) -> Tensor:
        """The joint bias, as the frozen product takes it; every layer of these encoders has one. Shape: (d_out,)"""
        return self._joint_bias() if self.frozen_bias is None else self.frozen_bias

    def _joint_bias(self) -> Tensor:
        return torch.cat([site.there("bias").to(self.bias_precision) for site in self.parts])

    def forward(
        self,
        x: Tensor,
        masks: Sequence[Mask | None],
        kernels: Kernels,
        *,
        gelu: bool = False,
        activation: Tensor | None = None,
    ) -> Output:
        """x W^T + b and every site's adapter; or gelu of it all.

        x
            Shape: (tokens, d_in)
        masks
            dropout of each site's adapter input
        gelu, activation
            Two layers with gelu between: the first, asked for gelu, also returns what the second is given as
            `activation`. The gradient that the second hands down is then past gelu, and the first takes it as such:
            so it is multiplied with gelu's slope while it is made.
        """
        trained = [tensor for site in self.parts for tensor in site.trained]
        function = DoraLinear if self.dora else LoraLinear
        work = Work(self, masks, kernels, gelu, activation)
        return Output(*function.apply(x, work, *trained))  # type: ignore[no-untyped-call]


class Output(NamedTuple):
    """What `Sites` give."""

    y: Tensor
    """Shape: (tokens, d_out of all sites)"""
    activation: Tensor | None
    """for the layer that reads gelu's result; no gradient goes through it"""
    x: Tensor
    """The input, for the next that reads it: the gradients of both are then summed in a product as it is written, where
    autograd would make a pass of its own for the sum. Shape: (tokens, d_in)"""


class Work(NamedTuple):
    """What one pass through a `Sites` is given beside tensors."""

    layer: Sites
    masks: Sequence[Mask | None]
    kernels: Kernels
    gelu: bool
    activation: Tensor | None


class LoraLinear(torch.autograd.Function):
    """y = x W^T + b, and y_i += scale_i dropout_i(x) A_i^T B_i^T for every adapted site i (Hu et al. 2021, eq. 3);
    or gelu(y), whose gradient comes as y's (`Sites.forward`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, work: Work, *trained: Tensor | None) -> tuple[Tensor | None, ...]:
        layer, masks, kernels, gelu, activation = work
        terms, used = [], []
        for site, mask in zip(layer.parts, masks, strict=True):
            if site.adapted:
                down, up = site.down(x.dtype), site.up(x.dtype)
                terms.append(Term(kernels.down(x, down, numbers_of(mask)), up, site.columns))
                used.append((down, up))
        keep = any(ctx.needs_input_grad)
        kept: Tensor | None = None
        if gelu:
            y, kept = layer.frozen.activated(x, layer.bias(), kernels, terms, keep=keep)
        else:
            y = layer.frozen(x, layer.bias(), kernels, terms)
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
                grad_B = kernels.outer(low, above, None)[: len(up)].t() * site.scale
                grad_low = kernels.down(above, up, None)  # (tokens, rank)
                grad_A = kernels.outer(grad_low, x, numbers)[: len(up)]
                trained += [grad_A, grad_B, None]
                terms.append(Term(grad_low, down, slice(None), numbers))
            else:
                trained += [None, None, None]
            trained.append(above.sum(0, dtype=torch.float32) if needs_bias else None)
        finish = Finish(total=_undropped(grad_next), activation=activation)
        grad_x = layer.frozen.backward(grad, kernels, terms, finish) if need[0] else None
        return grad_x, None, *trained


def _outputs(ctx: Any, y: Tensor, activation: Tensor | None, x: Tensor) -> tuple[Tensor | None, ...]:
    ctx.set_materialize_grads(False)  # of results that nobody read
    if activation is not None:
        ctx.mark_non_differentiable(activation)
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
        layer, (mask,), kernels, gelu, activation = work
        (site,) = layer.parts
        gain, numbers = site.gain(layer.frozen, x.dtype), numbers_of(mask)  # gain: (d_out,)
        down, up = site.down(x.dtype), site.up(x.dtype)
        terms = [Term(kernels.down(x, down, numbers), up, slice(None))]
        z = layer.frozen(kernels.dropped(x, numbers), None, kernels, terms)  # (tokens, d_out)
        y: Tensor
        if mask is None:
            y = z * gain.to(x.dtype)
            y += layer.bias().to(x.dtype)
        else:
            # W d = z - scale B A d, so y = (W x + b + scale B A d) + (g - 1) z.
            y = layer.frozen(x, layer.bias(), kernels, terms, Finish(scaled=(z, gain - 1)))
        keep = any(ctx.needs_input_grad)
        if keep:
            ctx.work, ctx.used = work._replace(activation=None), (down, up)
            ctx.save_for_backward(x, terms[0].low, z, gain, activation)
        return _outputs(ctx, *(_activated(y, kernels, keep=keep) if gelu else (y, None)), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_next: Tensor | None) -> tuple[Any, ...]:
        x, low, z, gain, activation = ctx.saved_tensors
        (layer, (mask,), kernels, _, _), need = ctx.work, ctx.needs_input_grad
        (site,), (down, up), numbers = layer.parts, ctx.used, numbers_of(mask)
        # The gradient of z, what it has beyond W x's, and the gain's.
        scaled, beyond, grad_gain = kernels.gains_backward(grad, z, gain)
        grad_low = kernels.down(scaled, up, None)  # (tokens, rank)
        grad_A = kernels.outer(grad_low, x, numbers)[: len(up)]
        grad_B = kernels.outer(low, scaled, None)[: len(up)].t() * site.scale
        # d gain / d magnitude is gain / magnitude, the inverse norm.
        grad_magnitude = grad_gain * gain / site.there("magnitude")
        grad_bias = grad.sum(0, dtype=torch.float32) if need[5] else None
        grad_x = None
        if need[0]:
            terms = [Term(grad_low, down, slice(None), numbers)]
            if mask is None:
                finish = Finish(total=_undropped(grad_next), activation=activation)
                grad_x = layer.frozen.backward(scaled, kernels, terms, finish)
            else:
                total = layer.frozen.backward(grad, kernels, terms, Finish(total=_undropped(grad_next)))
                finish = Finish(total=(total, numbers), activation=activation)
                grad_x = layer.frozen.backward(beyond, kernels, (), finish)
        return grad_x, None, grad_A, grad_B, grad_magnitude, grad_bias
