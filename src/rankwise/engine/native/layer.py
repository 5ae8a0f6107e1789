"""An encoder layer as one call of layer.cpp, forward and one backward; `layer.EncoderLayer` in plain torch says what it is."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_int32, c_long, c_void_p
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rankwise.engine.dropout import Stream, constants
from rankwise.engine.native.calls import loaded, pointer
from rankwise.engine.packing import Packed

if TYPE_CHECKING:
    from rankwise.engine.layer import EncoderLayer, Norm
    from rankwise.engine.linear import Sites


class _Dropout(ctypes.Structure):
    _fields_ = (("limit", c_int32), ("scale", c_float))


class _Site(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("d_out", "rank")),
        *((name, c_void_p) for name in ("lora_A", "lora_B", "magnitude", "squared_norms")),
        ("scale", c_float),
        ("dropout", _Dropout),
        *((name, c_void_p) for name in ("grad_lora_A", "grad_lora_B", "grad_magnitude", "grad_bias")),
    )


class _Sites(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("panel", "transposed", "bias")),
        *((name, c_long) for name in ("d_in", "d_out", "count")),
        ("parts", _Site * 3),
    )


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias")),
        ("epsilon", c_float),
        ("dropout", _Dropout),
        ("grad_bias", c_void_p),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("hidden", "heads", "width", "source_count")),
        ("firsts_only", c_int),
        ("probabilities", _Dropout),
        ("sources", _Sites * 3),
        *((name, _Sites) for name in ("attention_output", "ffn_in", "ffn_out")),
        *((name, _Norm) for name in ("attention_norm", "ffn_norm")),
    )


class _Group(ctypes.Structure):
    _fields_ = (
        ("lengths", c_void_p),
        *((name, c_long) for name in ("texts", "longest", "start", "first_text")),
        ("bias", c_void_p),
        *((name, c_long) for name in ("bias_text", "bias_head", "bias_query")),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("tokens", "texts", "group_count")),
        *((name, c_void_p) for name in ("groups", "firsts", "columns")),
    )


class NativePass:
    """What all layers of one forward pass share, as layer.cpp takes it."""

    def __init__(self, batch: Packed, biases: Sequence[Tensor], stream: Stream | None) -> None:
        """
        biases
            of attention scores, one a group. Shape: (texts, 1 or heads, 1 or longest, longest)
        stream
            dropout masks; None when nothing is dropped
        """
        self.tokens = len(batch.positions)
        """idle ones among them"""
        self.texts, self.stream = len(batch.firsts), stream
        self._alive = (batch, biases, None if stream is None else stream.columns)  # pointers go into them
        groups = (_Group * len(batch.groups))()
        for made, group, bias in zip(groups, batch.groups, biases, strict=True):
            made.lengths, made.texts, made.longest = group.lengths.ctypes.data, group.texts, group.longest
            made.start, made.first_text = group.start, group.first_text
            if bias.shape[2] > 1:  # padding alone needs no table: the texts' lengths say it
                made.bias = bias.data_ptr()
                made.bias_text, made.bias_head, made.bias_query = bias.stride()[:3]
        self._groups = groups
        columns = None if stream is None else stream.columns.data_ptr()
        self.structure = _Batch(
            *(self.tokens, self.texts, len(groups), ctypes.addressof(groups), batch.firsts.data_ptr(), columns)
        )


class NativeLayer:
    """A layer's tensors where layer.cpp finds them.

    Frozen ones are pointed to once, trained ones anew in every call, since they may be replaced. The structure is one for
    all calls, so that threads take turns.
    """

    def __init__(self, layer: EncoderLayer) -> None:
        self.structure = _Layer()
        self.turn = threading.Lock()
        self.hidden, self.firsts_only = layer.ffn_out.frozen.width, layer.firsts_only
        self.structure.hidden, self.structure.heads, self.structure.width = self.hidden, layer.heads, layer.head_width
        self.structure.source_count, self.structure.firsts_only = len(layer.sources), layer.firsts_only
        self.structure.probabilities = _dropout(layer.attention_dropout)
        self._trained: list[tuple[nn.Module, Any, str]] = []
        """of every tensor that may train its module, the structure that points to it and its gradient, and its name"""
        self._sites: list[tuple[_Sites, Sites]] = []
        self._joint_biases: list[tuple[_Sites, Sites]] = []
        """those whose bias may train"""
        for made, sites in zip(self.structure.sources, layer.sources, strict=False):
            self._set_sites(made, sites)
        for name in ("attention_output", "ffn_in", "ffn_out"):
            self._set_sites(getattr(self.structure, name), getattr(layer, name))
        self._set_norm(self.structure.attention_norm, layer.attention_norm, layer.attention_output_dropout)
        self._set_norm(self.structure.ffn_norm, layer.ffn_norm, layer.hidden_dropout)

    def __call__(self, x: Tensor, low: Tensor, shared: NativePass) -> tuple[Tensor, Tensor]:
        """See `layer.EncoderLayer.forward`."""
        trained = [getattr(module, name) for module, _, name in self._trained]
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, low, *trained))
        both: tuple[Tensor, Tensor] = Through.apply(self, shared, keep, x, low, *trained)  # type: ignore[no-untyped-call]
        return both

    def rows(self, shared: NativePass) -> int:
        """Of the result."""
        return shared.texts if self.firsts_only else shared.tokens

    def sizes(self, shared: NativePass) -> tuple[int, int]:
        """How many random numbers a pass's masks take, and how many bytes it keeps for the backward pass."""
        numbers, size = c_long(), c_long()
        loaded().layer_sizes(byref(self.structure), byref(shared.structure), byref(numbers), byref(size))
        return numbers.value, size.value

    def point(self, trained: Sequence[Tensor]) -> list[Tensor]:
        """Point to trained tensors. Returns: what must live while these are used"""
        for (_, place, name), tensor in zip(self._trained, trained, strict=True):
            if name != "bias" or isinstance(place, _Norm):  # a site's is part of its joint one
                setattr(place, name, numbers_at(tensor))
        joined = [sites.bias() for _, sites in self._joint_biases]
        for (made, _), bias in zip(self._joint_biases, joined, strict=True):
            made.bias = numbers_at(bias)
        return [bias for bias in joined if bias is not None]

    def point_to_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Where the trained tensors' gradients go; None: that one is not wanted."""
        if not self._sites[-1][0].transposed:  # what only predicts never has the second layout
            for made, sites in self._sites:
                made.transposed = sites.frozen.packed_transposed()
        for (_, place, name), gradient in zip(self._trained, gradients, strict=True):
            setattr(place, f"grad_{name}", pointer(gradient))

    def _set_sites(self, made: _Sites, sites: Sites) -> None:
        self._sites.append((made, sites))
        made.panel = sites.frozen.packed()
        made.d_in, made.d_out, made.count = sites.d_in, sites.frozen.width, len(sites.parts)
        if sites.frozen_bias is None:
            self._joint_biases.append((made, sites))
        else:
            made.bias = numbers_at(sites.frozen_bias)
        for part, site in zip(made.parts, sites.parts, strict=False):
            part.d_out = site.columns.stop - site.columns.start
            part.scale, part.dropout = site.scale, _dropout(site.dropout)
            part.rank = 0 if site.lora_A is None else len(site.lora_A)
            part.squared_norms = numbers_at(site.squared_norms)
            for name in ("lora_A", "lora_B", "magnitude", "bias"):
                self._set(part, site, name)

    def _set_norm(self, made: _Norm, norm: Norm, dropout: float) -> None:
        made.weight, made.epsilon, made.dropout = numbers_at(norm.weight), norm.epsilon, _dropout(dropout)
        self._set(made, norm, "bias")

    def _set(self, place: Any, module: nn.Module, name: str) -> None:
        tensor = getattr(module, name)
        if isinstance(tensor, nn.Parameter):
            self._trained.append((module, place, name))
        if name != "bias" or isinstance(place, _Norm):
            setattr(place, name, numbers_at(tensor))


def numbers_at(tensor: Tensor | None) -> int | None:
    """Where the numbers of a tensor are that layer.cpp reads in fp32, one after the other."""
    assert tensor is None or (tensor.dtype == torch.float32 and tensor.is_contiguous())
    return pointer(tensor)


class Through(torch.autograd.Function):
    """A layer's forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, layer: NativeLayer, shared: NativePass, keep: bool, x: Tensor, low: Tensor, *trained: Tensor
    ) -> tuple[Tensor, Tensor]:
        numbers, size = layer.sizes(shared)
        drawn = None if shared.stream is None else shared.stream.draw(numbers)
        kept = torch.empty(size, dtype=torch.uint8) if keep else None
        out = x.new_empty(layer.rows(shared), layer.hidden)
        out_low = torch.empty_like(out, dtype=low.dtype)
        x, low = x.contiguous(), low.contiguous()
        with layer.turn:
            alive = layer.point(trained)
            loaded().layer_forward(
                *(byref(layer.structure), byref(shared.structure), pointer(drawn), x.data_ptr(), low.data_ptr()),
                *(pointer(kept), out.data_ptr(), out_low.data_ptr()),
            )
            del alive
        if keep:
            ctx.layer, ctx.shared = layer, shared
            ctx.save_for_backward(low, kept, drawn, *trained)
            ctx.set_materialize_grads(False)
        return out, out_low

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_low: Tensor | None) -> tuple[Any, ...]:
        layer, shared = ctx.layer, ctx.shared
        low, kept, drawn, *trained = ctx.saved_tensors
        _, _, _, needs_x, needs_low, *needs = ctx.needs_input_grad
        grad, grad_low = (None if one is None else one.contiguous() for one in (grad, grad_low))
        gradients = [torch.empty_like(one) if need else None for one, need in zip(trained, needs, strict=True)]
        below = needs_x or needs_low
        grad_x = torch.empty_like(low, dtype=torch.float32) if below else None
        grad_below = torch.empty_like(low) if below else None
        with layer.turn:
            layer.point(trained)
            layer.point_to_gradients(gradients)
            loaded().layer_backward(
                *(byref(layer.structure), byref(shared.structure), pointer(drawn), low.data_ptr(), kept.data_ptr()),
                *(pointer(one) for one in (grad, grad_low, grad_x, grad_below)),
            )
        return None, None, None, grad_x, grad_below, *gradients


def _dropout(rate: float) -> _Dropout:
    if rate == 0.0:
        return _Dropout()
    limit, bits = constants(rate)
    return _Dropout(limit, struct.unpack("<f", struct.pack("<i", bits))[0])
