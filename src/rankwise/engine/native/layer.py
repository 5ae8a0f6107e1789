"""An encoder layer as one call of the kernels, forward and one backward; `layer.EncoderLayer` in plain torch says what it is."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from ctypes import byref
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.engine.dropout import Stream, constants
from rankwise.engine.layer import EncoderLayer, Norm
from rankwise.engine.linear import Sites
from rankwise.engine.native import structures
from rankwise.engine.native.backend import Backend, address, place_of, where
from rankwise.engine.packing import Packed


class NativePass:
    """What all layers of one forward pass share, as the kernels take it."""

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
        groups = (structures.Group * len(batch.groups))()
        for made, group, bias in zip(groups, batch.groups, biases, strict=True):
            made.lengths, made.texts, made.longest = group.lengths.ctypes.data, group.texts, group.longest
            made.start, made.first_text = group.start, group.first_text
            if bias.shape[2] > 1:  # padding alone needs no table: the texts' lengths say it
                made.bias = bias.data_ptr()
                made.bias_text, made.bias_head, made.bias_query = bias.stride()[:3]
        self._groups = groups
        columns = None if stream is None else stream.columns.data_ptr()
        self.structure = structures.Batch(
            *(self.tokens, self.texts, len(groups), ctypes.addressof(groups), batch.firsts.data_ptr(), columns)
        )


class NativeLayer:
    """A layer's tensors where the kernels find them.

    Frozen ones are pointed to once, trained ones anew in every call, since they may be replaced. The structure is one for
    all calls, so that threads take turns.
    """

    def __init__(self, layer: EncoderLayer, backend: Backend) -> None:
        self.backend = backend
        self.structure = structures.Layer()
        self.turn = threading.Lock()
        self.hidden, self.firsts_only = layer.ffn_out.frozen.width, layer.firsts_only
        self.structure.hidden, self.structure.heads, self.structure.width = self.hidden, layer.heads, layer.head_width
        self.structure.source_count, self.structure.firsts_only = len(layer.sources), layer.firsts_only
        self.structure.probabilities = _dropout(layer.attention_dropout)
        self._trained: list[tuple[nn.Module, Any, str]] = []
        """of every tensor that may train its module, the structure that points to it and its gradient, and its name"""
        self._joint_biases: list[tuple[structures.Sites, Sites]] = []
        """those whose bias may train"""
        for made, sites in zip(self.structure.sources, layer.sources, strict=False):
            self._set_sites(made, sites)
        for name in ("attention_output", "ffn_in", "ffn_out"):
            self._set_sites(getattr(self.structure, name), getattr(layer, name))
        self._set_norm(self.structure.attention_norm, layer.attention_norm, layer.attention_output_dropout)
        self._set_norm(self.structure.ffn_norm, layer.ffn_norm, layer.hidden_dropout)

    def __call__(self, x: Tensor, low: Tensor, shared: NativePass) -> tuple[Tensor, Tensor]:
        """See `layer.EncoderLayer.forward`. In fp32 x and low are one, before and after."""
        trained = [getattr(module, name) for module, _, name in self._trained]
        low = low if self.backend.packs else x
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, low, *trained))
        if self.backend.packs:
            both: tuple[Tensor, Tensor] = Through.apply(self, shared, keep, x, low, *trained)  # type: ignore[no-untyped-call]
            return both
        out: Tensor = Through.apply(self, shared, keep, x, None, *trained)[0]  # type: ignore[no-untyped-call]
        return out, out

    def rows(self, shared: NativePass) -> int:
        """Of the result."""
        return shared.texts if self.firsts_only else shared.tokens

    def point(self, trained: Sequence[Tensor]) -> list[Tensor]:
        """Point to trained tensors. Returns: what must live while these are used"""
        for (_, place, name), tensor in zip(self._trained, trained, strict=True):
            if name != "bias" or isinstance(place, structures.Norm):  # a site's is part of its joint one
                setattr(place, name, where(tensor))
        joined = [sites.bias() for _, sites in self._joint_biases]
        for (made, _), bias in zip(self._joint_biases, joined, strict=True):
            made.bias = where(bias)
        return [bias for bias in joined if bias is not None]

    def point_to_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Where the trained tensors' gradients go; None: that one is not wanted."""
        for (_, place, name), gradient in zip(self._trained, gradients, strict=True):
            setattr(place, f"grad_{name}", address(gradient))

    def _set_sites(self, made: structures.Sites, sites: Sites) -> None:
        made.matrix, made.count = sites.frozen.native_matrix(), len(sites.parts)
        if sites.frozen_bias is None:
            self._joint_biases.append((made, sites))
        else:
            made.bias = where(sites.frozen_bias)
        for part, site in zip(made.parts, sites.parts, strict=False):
            part.d_out = site.columns.stop - site.columns.start
            part.scale, part.dropout = site.scale, _dropout(site.dropout)
            part.rank = 0 if site.lora_A is None else len(site.lora_A)
            part.squared_norms = where(site.squared_norms)
            for name in ("lora_A", "lora_B", "magnitude", "bias"):
                self._set(part, site, name)

    def _set_norm(self, made: structures.Norm, norm: Norm, dropout: float) -> None:
        made.weight, made.epsilon, made.dropout = where(norm.weight), norm.epsilon, _dropout(dropout)
        self._set(made, norm, "bias")

    def _set(self, place: Any, module: nn.Module, name: str) -> None:
        tensor = getattr(module, name)
        if isinstance(tensor, nn.Parameter):
            self._trained.append((module, place, name))
        if name != "bias" or isinstance(place, structures.Norm):
            setattr(place, name, where(tensor))


class Through(torch.autograd.Function):
    """A layer's forward and backward. Without `low` it is x, and so are the results' copies."""

    @staticmethod
    def forward(
        ctx: Any, layer: NativeLayer, shared: NativePass, keep: bool, x: Tensor, low: Tensor | None, *trained: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        backend = layer.backend
        numbers, size = backend.layer_sizes(layer.structure, shared.structure)
        drawn = None if shared.stream is None else shared.stream.draw(numbers)
        kept = torch.empty(size, dtype=torch.uint8) if keep else None
        x = x.contiguous()
        out = x.new_empty(layer.rows(shared), layer.hidden)
        out_low = None if low is None else torch.empty_like(out, dtype=low.dtype)
        low = x if low is None else low.contiguous()
        with layer.turn:
            alive = layer.point(trained)
            backend.call(
                "forward_pass",
                *(
                    byref(layer.structure),
                    byref(shared.structure),
                    address(drawn),
                    place_of(x),
                    place_of(low, backend.precision),
                ),
                *(address(kept), address(out), address(out_low)),
            )
            del alive
        if keep:
            ctx.layer, ctx.shared, ctx.both = layer, shared, out_low is not None
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
            layer.backend.call(
                "backward_pass",
                *(byref(layer.structure), byref(shared.structure), address(drawn), address(low), address(kept)),
                *(address(one) for one in (grad, grad_low, grad_x, grad_below)),
            )
        if not ctx.both:  # the gradient of x and low together
            grad_x, grad_below = grad_below, None
        return None, None, None, grad_x, grad_below, *gradients


def _dropout(rate: float) -> structures.Dropout:
    if rate == 0.0:
        return structures.Dropout()
    limit, bits = constants(rate)
    return structures.Dropout(limit, struct.unpack("<f", struct.pack("<i", bits))[0])
