"""A backend: the kernels of one instruction set, called with tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_float, c_int, c_long, c_void_p
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankwise.engine import dropout
from rankwise.engine.fused import Lookup
from rankwise.engine.native.library import UnavailableError, library
from rankwise.engine.native.structures import SHARED, Batch, Change, LayerPass, Mask, Matrix, Sites
from rankwise.errors import UserError
from rankwise.machine.device import has_cuda
from rankwise.machine.isa import ISAS, Isa, candidates
from rankwise.machine.precision import DTYPES
from rankwise.machine.threads import of_kernels

WIDTH_STEP = 32
"""widths of layers and heads are multiples of it"""
_ADDRESS, _SIZE = c_void_p, c_long
_TAKES: dict[str, Sequence[Any]] = {
    "sizes": [_ADDRESS],
    "packed_size": [_SIZE, _SIZE],
    "pack": [_ADDRESS, _ADDRESS],
    "unpack": [_ADDRESS, _SIZE, _SIZE, _ADDRESS],
    "product_of": [_ADDRESS, c_int, _ADDRESS, _SIZE, _SIZE, _ADDRESS, _ADDRESS, _SIZE],
    "gelu_of_all": [_ADDRESS, _SIZE, _SIZE, _ADDRESS, _ADDRESS, _SIZE],
    "embedding": [
        *(_ADDRESS, _SIZE, _ADDRESS, _SIZE, _ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, c_float),
        *(_SIZE, _SIZE, _ADDRESS, _ADDRESS, _SIZE),
    ],
    "change_size": [_ADDRESS],
    "lay_out_change_of": [_ADDRESS, _ADDRESS, _ADDRESS, _SIZE],
    "layer_sizes": [_ADDRESS, _SIZE, _ADDRESS],
    "forward_pass": [_ADDRESS, _SIZE, _ADDRESS, _SIZE],
    "backward_pass": [_ADDRESS, _SIZE, _ADDRESS, _SIZE],
}
_COUNTS = ("packed_size", "change_size")
"""functions that return a number, the others a status"""
_NO_MEMORY, _BAD_ID = 1, 2


class Backend:
    """What computes layers outside torch."""

    def __init__(self, isa: Isa, loaded: ctypes.CDLL) -> None:
        """Raises: UnavailableError for a library whose structures are others than ours."""
        self.isa = isa
        self.precision = DTYPES[isa.precision]
        self.packs = isa.precision != "fp32"
        """whether frozen matrices are laid out once, in copies; in fp32 they stay as they are mapped from the model's file,
        shared with other processes, and each product lays out what it reads"""
        self._functions: dict[str, Callable[..., int]] = {}
        for name, takes in _TAKES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = takes, c_long if name in _COUNTS else c_int
            self._functions[name] = function
        sizes = (c_long * (1 + len(SHARED)))()
        self._functions["sizes"](sizes)
        if list(sizes) != [self.precision.itemsize, *(ctypes.sizeof(structure) for structure in SHARED)]:
            raise UnavailableError("the compiled kernels are of another version: their structures differ")

    def __reduce__(self) -> Any:
        return named, (self.isa.name,)

    def __deepcopy__(self, memo: Any) -> Backend:
        return self

    # --- frozen matrices --------------------------------------------------------------------------------------

    def pack(self, weights: Sequence[Tensor]) -> Tensor:
        """A matrix whose rows are those of the weights, laid out for products, as bytes. Shape of each: (d_out, d_in)"""
        matrix = self.matrix(weights)
        packed = torch.empty(self._functions["packed_size"](matrix.d_in, matrix.d_out), dtype=torch.uint8)
        self._functions["pack"](byref(matrix), packed.data_ptr())
        return packed

    def unpack(self, packed: Tensor, d_in: int, d_out: int) -> Tensor:
        """The matrix again, exactly, from what `pack` made of it; in int8 what its products are made with.

        Shape: (d_out, d_in)
        """
        matrix = torch.empty(d_out, d_in, dtype=self.precision)
        place_of(packed, torch.uint8, (self._functions["packed_size"](d_in, d_out),))
        self._functions["unpack"](packed.data_ptr(), d_in, d_out, matrix.data_ptr())
        return matrix

    def matrix(self, weights: Sequence[Tensor]) -> Matrix:
        """Up to three matrices, one upon another, where they are. Shape of each: (d_out, d_in)

        Raises: ValueError for what the kernels cannot read.
        """
        widths = (*{weight.shape[-1] for weight in weights}, *map(len, weights))
        if any(width % WIDTH_STEP for width in widths):
            raise ValueError(f"the kernels read a matrix of widths that are multiples of {WIDTH_STEP}, not {widths}")
        made = Matrix(d_in=weights[0].shape[1], d_out=sum(map(len, weights)), count=len(weights))
        for number, weight in enumerate(weights):
            shape = (len(weight), made.d_in)
            made.parts[number], made.rows[number] = place_of(weight, self.precision, shape), len(weight)
        return made

    def product(self, matrix: Matrix, x: Tensor, bias: Tensor | None, *, transposed: bool) -> Tensor:
        """x W^T + bias, or x W. Shape: x (tokens, depth), fp32 bias (columns,), result (tokens, columns)"""
        depth, columns = (matrix.d_out, matrix.d_in) if transposed else (matrix.d_in, matrix.d_out)
        x = x if x.stride(-1) == 1 and x.dtype == self.precision else x.to(self.precision).contiguous()
        place_of(x[:1], self.precision, (min(len(x), 1), depth))  # rows may lie apart
        y = x.new_empty(len(x), columns)
        bias = None if bias is None else bias.float().contiguous()
        rows = (x.data_ptr(), x.stride(0), len(x))
        self.call("product_of", byref(matrix), transposed, *rows, where(bias, (columns,)), address(y))
        return y

    # --- the rest ---------------------------------------------------------------------------------------------

    def lay_out_change(self, sites: Sites, to: Change) -> Tensor:
        """The adapters of linear layers that read the same input, as the kernels take them. Returns: the memory they lie in"""
        memory = torch.empty(self._functions["change_size"](byref(sites)), dtype=torch.uint8)
        self.call("lay_out_change_of", byref(sites), byref(to), memory.data_ptr())
        return memory

    def embedded(self, lookup: Lookup, mask: dropout.Mask | None) -> tuple[Tensor, Tensor]:
        """`fused.embedded`, for tables in fp32; in fp32 both results are one."""
        shape = (len(lookup.places[0]), lookup.tables[0].shape[1])
        x = lookup.weight.new_empty(shape)
        low = x.new_empty(shape, dtype=self.precision) if self.packs else None
        dropped = Mask()
        if mask is not None:
            dropped = Mask(mask.rows.data_ptr(), mask.columns.data_ptr(), *dropout.constants(mask.rate))
        self.call(
            "embedding",
            *(of for table in lookup.tables for of in (place_of(table, shape=(len(table), shape[1])), len(table))),
            *(place_of(places, torch.int64, shape[:1]) for places in lookup.places),
            byref(dropped),
            *(place_of(lookup.weight, shape=shape[1:]), where(lookup.bias, shape[1:]), lookup.epsilon),
            *(*shape, x.data_ptr(), address(low)),
        )
        return x, x if low is None else low

    def layer_sizes(self, layers: ctypes.Array[LayerPass], batch: Batch) -> None:
        """Have each say how many random numbers its masks take, and how many bytes it keeps for the backward pass."""
        _check(self._functions["layer_sizes"](layers, len(layers), byref(batch)))

    def call(self, name: str, *given: Any) -> None:
        """Call a kernel with as many threads as this thread may use.

        Raises: MemoryError; UserError for a token that the embedding does not have.
        """
        _check(self._functions[name](*given, of_kernels()))


class Choice(NamedTuple):
    """What layers are computed with, and why."""

    backend: Backend | None
    """None: torch"""
    reason: str


@cache
def _named(isa: Isa) -> Backend | UnavailableError:
    try:
        return Backend(isa, library(isa))
    except UnavailableError as error:
        return error


def named(name: str) -> Backend:
    """The backend of an instruction set.

    Raises: UnavailableError when it cannot be had here.
    """
    found = _named(ISAS[name])
    if isinstance(found, UnavailableError):
        raise found
    return found


def choose(precision: str, *widths: int) -> Choice:
    """The backend for products in a precision (bf16, fp32, int8) and layers of these widths, the fastest this machine has.

    Raises: UserError for a RANKWISE_ISA that cannot be taken.
    """
    if has_cuda():
        return Choice(None, "the model computes on the GPU")
    if any(width % WIDTH_STEP for width in widths):
        return Choice(None, f"the model's widths {', '.join(map(str, widths))} are not multiples of {WIDTH_STEP}")
    reasons: list[str] = []
    for isa in candidates(precision):
        found = _named(isa)
        if isinstance(found, Backend):
            return Choice(found, "; ".join([f"the processor has it, products in {precision}", *reasons]))
        reasons.append(f"not {isa.name}: {found}")
    return Choice(
        None, "; ".join(reasons) or f"this processor has no instructions for {precision} that there are kernels for"
    )


def place_of(tensor: Tensor, dtype: torch.dtype = torch.float32, shape: Sequence[int] | None = None) -> int:
    """Where the numbers of a tensor are that the kernels read one after the other.

    Raises: ValueError when they would read something else.
    """
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        layout = "" if tensor.is_contiguous() else " with gaps"
        raise ValueError(f"the kernels read {dtype} on the processor, not {tensor.dtype} on {tensor.device}{layout}")
    if shape is not None and tensor.shape != tuple(shape):
        raise ValueError(f"the kernels read a tensor of shape {tuple(shape)}, not {tuple(tensor.shape)}")
    return tensor.data_ptr()


def where(tensor: Tensor | None, shape: Sequence[int] | None = None) -> int | None:
    """Where the fp32 numbers of a tensor are, if there is one."""
    return None if tensor is None else place_of(tensor, shape=shape)


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are, of one whose kind is known."""
    return None if tensor is None else tensor.data_ptr()


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("the engine's kernels were given no memory for this batch: take a smaller one")
    if status == _BAD_ID:
        raise UserError("a text has a token or a position that the model's embedding does not have")
    if status:
        raise RuntimeError("the engine's kernels failed")
