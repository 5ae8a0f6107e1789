"""Frozen matrices: how each lies in memory, and the products with it, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.engine.fused import ACTIVATIONS
from rankwise.engine.native.backend import Backend
from rankwise.engine.native.structures import Matrix

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


class OneDnnLayout:
    """oneDNN's own blocked layout of a matrix, W^T or W; what it takes and gives is `FrozenLinear`'s."""

    def __init__(self, matrix: Tensor) -> None:
        self.tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), TYPICAL_TOKENS)

    def matrix(self) -> Tensor:
        dense: Tensor = self.tensor.to_dense()
        return dense

    def product(self, x: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
        bias = None if bias is None else bias.to(x.dtype)
        if activation == "gelu":
            gelu: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.tensor, bias, "gelu", [], "none")  # erf, not tanh
            return gelu
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.tensor, bias, "none", [], "")
        return y if activation is None else ACTIVATIONS[activation][0](y)


class PanelLayout:
    """A backend's own layout of a matrix, for both passes."""

    def __init__(self, backend: Backend, weights: Sequence[Tensor]) -> None:
        """weights: row by row. Shape of each: (d_out, d_in)"""
        self.backend, self.d_in, self.d_out = backend, weights[0].shape[1], sum(map(len, weights))
        self.tensor = backend.pack(weights)

    def matrix(self) -> Tensor:
        return self.backend.unpack(self.tensor, self.d_in, self.d_out)


class FrozenLinear(nn.Module):
    """W of y = x W^T, never trained; the rows of W are those of several matrices, one upon another.

    On a CPU in bf16 they live in the layout of a backend or of oneDNN, as one matrix, oneDNN's once more transposed for the
    backward pass, where there is one: 10 to 40% faster a call than the plain matrix, which is not kept. On other devices they are joined as well. On a CPU in fp32 they stay the tensors they are, mapped from the
    model's file: nothing is copied, and processes of one machine share them. Joining them there would save 1 to 2% of
    the products.
    """

    def __init__(self, weights: Sequence[Tensor], precision: torch.dtype) -> None:
        """weights: in any precision; kept in the one to compute in. Shape of each: (d_out, d_in)"""
        super().__init__()
        self.width = sum(weight.shape[0] for weight in weights)
        self.backend: Backend | None = None
        """whose kernels compute with it"""
        self._count = 0
        self._packed: OneDnnLayout | PanelLayout | None = None
        self._packed_transposed: OneDnnLayout | None = None
        self._keep([weight.detach().to(precision).contiguous() for weight in weights])

    def lay_out(self, backend: Backend | None = None) -> None:
        """Take the layout to compute in. backend: whose kernels will; None: torch"""
        self.backend = backend
        self._pack()

    def forward(self, x: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
        """x W^T + bias, or an activation of it, by its name. Shape: x (tokens, d_in), fp32 bias (d_out,), result (tokens, d_out)"""
        packed = self._pack()
        if isinstance(packed, OneDnnLayout):
            return packed.product(x, bias, activation)
        y = self._native(x, bias, backward=False)
        y = self._product(x, bias) if y is None else y
        return y if activation is None else ACTIVATIONS[activation][0](y)

    def backward(self, grad: Tensor) -> Tensor:
        """The input's gradient, grad W, in fresh memory. Shape: grad (tokens, d_out), result (tokens, d_in)"""
        if (native := self._native(grad, None, backward=True)) is not None:
            return native
        self.prepare_backward()
        if isinstance(self._packed_transposed, OneDnnLayout):
            return self._packed_transposed.product(grad, None, None)
        weights = self._plain()
        (first, weight), *others = zip(columns_of(weights), weights, strict=True)
        below = grad[:, first] @ weight
        for columns, weight in others:
            below.addmm_(grad[:, columns], weight)
        return below

    def native_matrix(self) -> Matrix:
        """The matrix as kernels take it; good for as long as it is not moved."""
        assert self.backend is not None
        packed = self._pack()
        if not isinstance(packed, PanelLayout):
            return self.backend.matrix(self._kept())
        return Matrix(d_in=packed.d_in, d_out=self.width, count=0, panel=packed.tensor.data_ptr())

    def prepare_backward(self) -> None:
        """Make oneDNN's transposed layout. Early, so that it does not lie scattered between a step's activations."""
        packed = self._pack()
        if isinstance(packed, OneDnnLayout) and self._packed_transposed is None:
            self._packed_transposed = OneDnnLayout(packed.matrix().t())

    def _native(self, x: Tensor, bias: Tensor | None, *, backward: bool) -> Tensor | None:
        """The product of either pass, where a backend makes it."""
        if self.backend is None or x.device.type != "cpu" or x.dtype != self.backend.precision:
            return None
        return self.backend.product(self.native_matrix(), x, bias, transposed=backward)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + bias in plain torch. Shape: (tokens, d_out)"""
        bias, weights = None if bias is None else bias.to(x.dtype), self._plain()
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

    def _pack(self) -> OneDnnLayout | PanelLayout | None:
        """The packed weight where there is one; the plain ones are given up for it."""
        weights = self._kept()
        if self._packed is not None or not weights or weights[0].device.type != "cpu":
            return self._packed
        if self.backend is not None and self.backend.packs and weights[0].dtype == self.backend.precision:
            self._packed = PanelLayout(self.backend, weights)
        elif self.backend is None and can_pack(weights[0]):
            self._packed = OneDnnLayout(torch.cat(weights))
        if self._packed is not None:
            self._keep([])
        return self._packed

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenLinear:
        """Move (`nn.Module.to`): packed layouts stay behind and are made anew where they help."""
        probe = torch.empty(0, dtype=torch.bfloat16)
        moved = fn(probe)
        if self._packed is not None and (moved.device, moved.dtype) != (probe.device, probe.dtype):
            self._keep([self._packed.matrix()])
            self._packed = self._packed_transposed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
