"""kernels.cpp called with tensors. Shapes are those of `fused`; products are bf16 with fp32 sums."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_int32, c_long, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rankwise.engine.attention import Call
from rankwise.engine.fused import Finish, Kernels, Lookup, MaskNumbers, Product, numbers_of
from rankwise.engine.native.library import library
from rankwise.engine.packing import Group

BLOCK = 32
"""rows, columns and depth that the processor's tiles take at a time"""


class _Mask(ctypes.Structure):
    _fields_ = (("rows", c_void_p), ("columns", c_void_p), ("limit", c_int32), ("scale", c_float))


class _Term(ctypes.Structure):
    _fields_ = (
        ("low", c_void_p),
        ("panel", c_void_p),
        ("depth", c_long),
        ("start", c_long),
        ("stop", c_long),
        ("mask", _Mask),
    )


class _Finish(ctypes.Structure):
    _fields_ = (*((name, c_void_p) for name in ("times", "scaled", "gain", "total")), ("mask", _Mask))


class _Heads(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((name, c_long) for name in ("query_stride", "key_stride", "value_stride")),
        ("lengths", c_void_p),
        *((name, c_long) for name in ("texts", "heads", "width", "longest")),
        ("firsts_only", c_int),
        ("bias", c_void_p),
        *((name, c_long) for name in ("bias_text", "bias_head", "bias_query")),
        ("scale", c_float),
        ("mask", _Mask),
    )


def usable(*sizes: int) -> bool:
    """Whether the kernels are here and the model's widths are ones they can compute with."""
    return all(size % BLOCK == 0 for size in sizes) and library() is not None


class TileLayout:
    """A frozen matrix as a panel of kernels.cpp, the right operand of its products; `linear.Layout`."""

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
        y = work.x.new_empty(work.x.shape[0], self.tensor.shape[0] * BLOCK)
        self._compute(work, y.data_ptr(), None, None)
        return y

    def activated(self, work: Product, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        y = work.x.new_empty(work.x.shape[0], self.tensor.shape[0] * BLOCK)
        slope = torch.empty_like(y) if keep else None
        self._compute(work, None, y.data_ptr(), _pointer(slope))
        return y, slope

    def _compute(self, work: Product, *results: int | None) -> None:
        """kernels.cpp's `linear`; results: its last three arguments. The bias is in fp32."""
        x = work.x if work.x.stride(-1) == 1 else work.x.contiguous()
        columns, terms = self.tensor.shape[0] * BLOCK, work.terms
        panels = [_small_panel(term.up) for term in terms]
        array = (_Term * len(terms))()
        for place, term, up in zip(array, terms, panels, strict=True):
            start, stop = term.columns.start or 0, columns if term.columns.stop is None else term.columns.stop
            place.low, place.panel, place.depth = term.low.data_ptr(), up.data_ptr(), term.low.shape[1]
            place.start, place.stop, place.mask = start, stop, _mask(term.mask)
        _library().linear(
            *(x.data_ptr(), x.stride(0), *x.shape, self.tensor.data_ptr(), columns, _pointer(work.bias)),
            *(byref(array) if terms else None, len(terms), _finish(work.finish), *results),
        )


class NativeKernels(Kernels):
    """The engine's regions, each one call. A low-rank input is padded to 32 columns, the depth of a tile."""

    def dropped(self, x: Tensor, mask: MaskNumbers) -> Tensor:
        if mask is None:
            return x
        x = x.contiguous()
        y = torch.empty_like(x)
        _library().dropped(x.data_ptr(), _mask(mask), *x.shape, y.data_ptr())
        return y

    def gains_backward(self, grad: Tensor, z: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        grad, z, gain = grad.contiguous(), z.contiguous(), gain.contiguous()
        beyond, along = torch.empty_like(grad), torch.empty_like(gain)
        _library().gains_backward(
            *(grad.data_ptr(), z.data_ptr(), gain.data_ptr(), *grad.shape, beyond.data_ptr(), along.data_ptr()),
        )
        return beyond, along

    def down(self, x: Tensor, A: Tensor, mask: MaskNumbers) -> Tensor:
        columns = -(-A.shape[0] // BLOCK) * BLOCK
        weight = x.new_empty(A.shape[1], columns)
        A = A.contiguous()
        _library().transposed_panel(A.data_ptr(), *A.shape, weight.data_ptr())
        low = x.new_empty(x.shape[0], columns)
        _library().down(x.data_ptr(), x.stride(0), *x.shape, _mask(mask), weight.data_ptr(), columns, low.data_ptr())
        return low

    def outer(self, low: Tensor, x: Tensor, mask: MaskNumbers) -> Tensor:
        out = torch.empty(low.shape[1], x.shape[1])
        _library().outer(low.data_ptr(), low.shape[1], x.data_ptr(), x.stride(0), *x.shape, _mask(mask), out.data_ptr())
        return out

    def embedded(self, lookup: Lookup, mask: MaskNumbers, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        tables, places, weight, bias, epsilon = lookup
        plain = all(table.dtype == torch.float32 and table.is_contiguous() for table in tables)
        shape = (len(places[0]), tables[0].shape[1])
        # ELECTRA's embeddings have a width of their own.
        if not plain or shape[1] % BLOCK or bias.requires_grad:
            return super().embedded(lookup, mask, precision)
        x, low = weight.new_empty(shape), weight.new_empty(shape, dtype=precision)
        _library().embedded(
            *(tensor.data_ptr() for tensor in (*tables, *places)),
            *(_mask(mask), weight.data_ptr(), bias.data_ptr(), epsilon, *shape, x.data_ptr(), low.data_ptr()),
        )
        return x, low

    def add_norm(
        self, update: Tensor, residual: Tensor, mask: MaskNumbers, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, ...]:
        update, residual = update.contiguous(), residual.contiguous()
        out, low, unit = torch.empty_like(residual), torch.empty_like(update), torch.empty_like(update)
        inverse = residual.new_empty(len(residual))
        _library().add_norm(
            *(update.data_ptr(), residual.data_ptr(), _mask(mask), weight.data_ptr(), bias.data_ptr(), epsilon),
            *(*update.shape, *(tensor.data_ptr() for tensor in (out, low, unit, inverse))),
        )
        return out, low, unit, inverse

    def add_norm_backward(
        self,
        grad: Tensor | None,
        grad_low: Tensor | None,
        saved: tuple[Tensor, ...],
        mask: MaskNumbers,
        weight: Tensor,
        low: torch.dtype,
        *,
        summed: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        grad, grad_low = (None if one is None else one.contiguous() for one in (grad, grad_low))
        update, residual = torch.empty_like(saved[0]), torch.empty_like(saved[0], dtype=torch.float32)
        above = torch.empty_like(residual) if summed else None
        _library().add_norm_backward(
            *(_pointer(grad), _pointer(grad_low), *(tensor.data_ptr() for tensor in saved)),
            *(_mask(mask), weight.data_ptr(), *residual.shape),
            *(update.data_ptr(), residual.data_ptr(), _pointer(above)),
        )
        return update, residual, above

    def gelu(self, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        _library().gelu(x.data_ptr(), x.numel(), y.data_ptr(), None)
        return y

    def gelu_for_backward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, slope = torch.empty_like(x), torch.empty_like(x)
        _library().gelu(x.data_ptr(), x.numel(), y.data_ptr(), slope.data_ptr())
        return y, slope

    def gelu_backward(self, grad: Tensor, kept: Tensor) -> Tensor:
        below = grad.contiguous()  # in place: the gradient of gelu's result is of no other use
        _library().multiplied(below.data_ptr(), kept.data_ptr(), kept.numel(), below.data_ptr())
        return below


class NativeAttention(torch.autograd.Function):
    """`attention.Attention`, text by text and head by head where the tokens lie: nothing is gathered or padded.

    Of the probabilities only each row's logarithm of summed exponentials is kept; the backward pass makes them again.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *sources: Tensor) -> Tensor:
        """sources: see `Call.parts`. Shape: (tokens, parts * hidden)

        Returns. Shape: (tokens, hidden), or (texts, hidden) when only first tokens ask
        """
        context = call.empty((sources[0].shape[0], call.heads * call.width), sources[0], queries=True)
        statistics = []
        for number, group in enumerate(call.groups):
            queries = 1 if call.firsts_only else group.longest
            kept = torch.empty(group.texts * call.heads * queries)
            heads = _heads(call, number, sources)
            target = _at(context, group.first_text if call.firsts_only else group.start)
            _library().attention(byref(heads), target, context.stride(0), kept.data_ptr())
            statistics.append(kept)
        if any(ctx.needs_input_grad):
            ctx.call = call
            ctx.save_for_backward(*sources, *statistics)
        return context

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        call: Call = ctx.call
        grad = grad.contiguous()
        sources, statistics = ctx.saved_tensors[: len(call.parts)], ctx.saved_tensors[len(call.parts) :]
        grads = [call.empty(source.shape, source, queries=number == 0) for number, source in enumerate(sources)]
        for number, (group, kept) in enumerate(zip(call.groups, statistics, strict=True)):
            heads = _heads(call, number, sources)
            above = _at(grad, group.first_text if call.firsts_only else group.start)
            targets = [place for place, _ in _places(call, group, grads)]
            _library().attention_backward(byref(heads), above, grad.stride(0), kept.data_ptr(), *targets)
        return None, *grads


def _heads(call: Call, number: int, sources: Sequence[Tensor]) -> _Heads:
    """A group of a call, as kernels.cpp takes it."""
    group, bias, mask = call.groups[number], call.biases[number], call.masks[number]
    places = _places(call, group, sources)
    made = _Heads()
    for name, (place, stride) in zip(("query", "key", "value"), places, strict=True):
        setattr(made, name, place)
        setattr(made, f"{name}_stride", stride)
    made.lengths = group.lengths.ctypes.data
    made.texts, made.heads, made.width, made.longest = group.texts, call.heads, call.width, group.longest
    made.firsts_only, made.scale, made.mask = call.firsts_only, call.scale, _mask(numbers_of(mask))
    if bias.shape[1] > 1:  # padding alone needs no table: the texts' lengths say it
        made.bias = bias.data_ptr()
        made.bias_text, made.bias_head, made.bias_query = bias.stride()[:3]
    return made


def _places(call: Call, group: Group, tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where a group's query, key and value begin, and how far apart their tokens are."""
    hidden, places = call.heads * call.width, []
    for number, (tensor, parts) in enumerate(zip(tensors, call.parts, strict=True)):
        row = group.first_text if call.firsts_only and number == 0 else group.start
        places += [(_at(tensor, row, part * hidden), tensor.stride(0)) for part in range(parts)]
    return places


@cache
def _library() -> ctypes.CDLL:
    """The library, told what its functions take, so that plain numbers can be handed over."""
    loaded = library()
    assert loaded is not None
    address, size = c_void_p, c_long
    for name, takes in {
        "rows_panel": (address, size, size, address),
        "transposed_panel": (address, size, size, address),
        "linear": (address, size, size, size, address, size, address, address, size, *[address] * 4),
        "down": (address, size, size, size, _Mask, address, size, address),
        "outer": (address, size, address, size, size, size, _Mask, address),
        "attention": (address, address, size, address),
        "attention_backward": (address, address, size, address, address, address, address),
        "gelu": (address, size, address, address),
        "multiplied": (address, address, size, address),
        "embedded": (*[address] * 4, _Mask, address, address, c_float, size, size, address, address),
        "add_norm": (address, address, _Mask, address, address, c_float, size, size, *[address] * 4),
        "add_norm_backward": (*[address] * 4, _Mask, address, size, size, *[address] * 3),
        "dropped": (address, _Mask, size, size, address),
        "gains_backward": (address, address, address, size, size, address, address),
    }.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = takes, None
    return loaded


def _at(tensor: Tensor, row: int, column: int = 0) -> int:
    return tensor.data_ptr() + (row * tensor.stride(0) + column) * tensor.element_size()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _small_panel(matrix: Tensor) -> Tensor:
    """A panel of a few rows, padded to 32. Shape of matrix: (rank, columns)"""
    made = matrix.new_empty(-(-matrix.shape[0] // BLOCK) * BLOCK, matrix.shape[1])
    matrix = matrix.contiguous()
    _library().rows_panel(matrix.data_ptr(), *matrix.shape, made.data_ptr())
    return made


def _finish(finish: Finish) -> Any:
    """A reference to it; None when there is nothing to do."""
    if all(part is None for part in finish):
        return None
    made = _Finish(times=_pointer(finish.activation))
    if finish.scaled is not None:
        made.scaled, made.gain = (tensor.data_ptr() for tensor in finish.scaled)
    if finish.total is not None:
        made.total, made.mask = finish.total[0].data_ptr(), _mask(finish.total[1])
    return byref(made)


def _mask(numbers: MaskNumbers) -> _Mask:
    if numbers is None:
        return _NOTHING
    rows, columns, limit, scale = numbers
    return _Mask(rows.data_ptr(), columns.data_ptr(), *_values(limit, scale))


@cache
def _values(limit: Tensor, scale: Tensor) -> tuple[int, float]:
    """Of a rate's two tensors, which `dropout` makes once a rate."""
    return int(limit), float(scale.view(torch.float32))


_NOTHING = _Mask()
