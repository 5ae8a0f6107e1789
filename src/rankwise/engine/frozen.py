"""Frozen matrices: how each lies in memory, and the products with it, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.engine.fused import Kernels, Product
from rankwise.engine.native.calls import TileLayout

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

    def product(self, work: Product) -> Tensor:
        """`FrozenLinear.forward`, or `FrozenLinear.backward` of the transposed matrix."""

    def activated(self, work: Product, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        """`FrozenLinear.activated`."""


class OneDnnLayout:
    """oneDNN's own blocked layout."""

    def __init__(self, matrix: Tensor) -> None:
        self.tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), TYPICAL_TOKENS)

    def matrix(self) -> Tensor:
        dense: Tensor = self.tensor.to_dense()
        return dense

    def product(self, work: Product) -> Tensor:
        return work.completed(torch.ops.mkldnn._linear_pointwise(work.x, self.tensor, work.bias, "none", [], ""))

    def activated(self, work: Product, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        if not keep and not work.terms and work.kernels.activation == "gelu":  # erf, not tanh
            return torch.ops.mkldnn._linear_pointwise(work.x, self.tensor, work.bias, "gelu", [], "none"), None
        return activated(self.product(work), work.kernels, keep=keep)


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

    def forward(self, work: Product) -> Tensor:
        """x W^T + bias + terms, finished. Shape: x (tokens, d_in), bias (d_out,), result (tokens, d_out)"""
        packed = self._pack()
        return work.completed(self._product(work.x, work.bias)) if packed is None else packed.product(work)

    def activated(self, work: Product, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        """The activation of `forward`, and if `keep` what `Kernels.activate_backward` takes. Shape of both: (tokens, d_out)"""
        packed = self._pack()
        return activated(self(work), work.kernels, keep=keep) if packed is None else packed.activated(work, keep=keep)

    def backward(self, work: Product) -> Tensor:
        """The input's gradient, x W + terms, finished; x is y's gradient. Shape: x (tokens, d_out), result (tokens, d_in)"""
        self.prepare_backward()
        if self._packed_transposed is not None:
            return self._packed_transposed.product(work)
        grad, weights = work.x, self._plain()
        (first, weight), *others = zip(columns_of(weights), weights, strict=True)
        below = grad[:, first] @ weight
        for columns, weight in others:
            below.addmm_(grad[:, columns], weight)
        return work.completed(below)

    def packed(self) -> int:
        """Where the packed layout is, for what computes with it itself (`native.layer`)."""
        packed = self._pack()
        assert packed is not None
        return packed.tensor.data_ptr()

    def packed_transposed(self) -> int:
        """The same of W for the backward pass."""
        self.prepare_backward()
        assert self._packed_transposed is not None
        return self._packed_transposed.tensor.data_ptr()

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


def activated(y: Tensor, kernels: Kernels, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The activation of y, and if `keep` what its gradient is made of. Shape of all: (tokens, d_out)"""
    return kernels.activate_for_backward(y) if keep else (kernels.activate(y), None)
