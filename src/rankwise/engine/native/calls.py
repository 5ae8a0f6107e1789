"""kernels.cpp called with tensors: frozen matrices and the embedding. Products are bf16 with fp32 sums."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from rankwise.engine.fused import Kernels, Lookup, MaskNumbers, Product
from rankwise.engine.native.library import library

BLOCK = 32
"""rows, columns and depth that the processor's tiles take at a time"""


class _Mask(ctypes.Structure):
    _fields_ = (("rows", c_void_p), ("columns", c_void_p), ("limit", c_int32), ("scale", c_float))


def usable(*sizes: int) -> bool:
    """Whether the kernels are here and the model's widths are ones they can compute with."""
    return all(size % BLOCK == 0 for size in sizes) and library() is not None


class TileLayout:
    """A frozen matrix as a panel of kernels.cpp, the right operand of its products; `frozen.Layout`."""

    def __init__(self, matrix: Tensor) -> None:
        """matrix: both sides multiples of 32. Shape: (d_out, d_in)"""
        depth, columns = matrix.t().shape
        split = matrix.t().reshape(depth // BLOCK, 16, 2, columns // BLOCK, 2, 16)
        self.tensor = split.permute(3, 0, 4, 1, 5, 2).contiguous()
        """bf16. Shape: (d_out / 32, d_in / 32, 2, 16, 16, 2)"""

    def matrix(self) -> Tensor:
        blocks, steps = self.tensor.shape[:2]
        return self.tensor.permute(1, 3, 5, 0, 2, 4).reshape(steps * BLOCK, blocks * BLOCK).t().contiguous()

    def product(self, work: Product) -> Tensor:
        """The bias is in fp32."""
        x = work.x if work.x.stride(-1) == 1 else work.x.contiguous()
        columns = self.tensor.shape[0] * BLOCK
        y = x.new_empty(x.shape[0], columns)
        loaded().linear(
            *(x.data_ptr(), x.stride(0), *x.shape, self.tensor.data_ptr(), columns, pointer(work.bias)),
            *(None, 0, None, y.data_ptr(), None, None),
        )
        return work.completed(y)

    def activated(self, work: Product, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        y = self.product(work)
        return work.kernels.activate_for_backward(y) if keep else (work.kernels.activate(y), None)


class NativeKernels(Kernels):
    """The embedding in one call; what is in layers, layer.cpp does."""

    def embedded(self, lookup: Lookup, mask: MaskNumbers, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        tables, places, weight, bias, epsilon = lookup
        plain = all(table.dtype == torch.float32 and table.is_contiguous() for table in tables)
        shape = (len(places[0]), tables[0].shape[1])
        # ELECTRA's embeddings have a width of their own.
        if not plain or shape[1] % BLOCK or bias is None or bias.requires_grad:
            return super().embedded(lookup, mask, precision)
        x, low = weight.new_empty(shape), weight.new_empty(shape, dtype=precision)
        loaded().embedded(
            *(tensor.data_ptr() for tensor in (*tables, *places)),
            *(_mask(mask), weight.data_ptr(), bias.data_ptr(), epsilon, *shape, x.data_ptr(), low.data_ptr()),
        )
        return x, low


@cache
def loaded() -> ctypes.CDLL:
    """The library, told what its functions take, so that plain numbers can be handed over."""
    found = library()
    assert found is not None
    address, size = c_void_p, c_long
    for name, takes in {
        "linear": (address, size, size, size, address, size, address, address, size, *[address] * 4),
        "embedded": (*[address] * 4, _Mask, address, address, c_float, size, size, address, address),
        "gelu": (address, size, address, address),
        "layer_sizes": [address] * 4,
        "layer_forward": [address] * 8,
        "layer_backward": [address] * 9,
    }.items():
        function = getattr(found, name)
        function.argtypes, function.restype = takes, None
    return found


def pointer(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are."""
    return None if tensor is None else tensor.data_ptr()


def _mask(numbers: MaskNumbers) -> _Mask:
    if numbers is None:
        return _Mask()
    rows, columns, limit, scale = numbers
    return _Mask(rows.data_ptr(), columns.data_ptr(), int(limit), float(scale.view(torch.float32)))
