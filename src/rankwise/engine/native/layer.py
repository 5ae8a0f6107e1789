"""An encoder layer as one call of the kernels, forward and one backward; `layer` and `prenorm` say in plain torch what it is."""

from __future__ import annotations

import ctypes
import itertools
import struct
import threading
import weakref
from collections.abc import Sequence
from ctypes import byref
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.engine.disentangled import DisentangledLayer, Distances, RelativeEmbedding
from rankwise.engine.dropout import constants
from rankwise.engine.layer import EncoderLayer, Norm, Pass
from rankwise.engine.linear import Sites
from rankwise.engine.native import structures
from rankwise.engine.native.backend import Backend, address, place_of, where
from rankwise.engine.native.several import PassOwners
from rankwise.engine.prenorm import PlainNorm, PreNormLayer, angles_of
from rankwise.machine.threads import in_forked_processes


class NativePass:
    """What all layers of one forward pass share, as the kernels take it."""

    def __init__(self, shared: Pass, owners: PassOwners | None = None) -> None:
        """owners: of tokens and of texts, where they are several classifiers'"""
        batch, biases, stream = shared.batch, shared.biases, shared.stream
        self.shared = shared
        self.tokens = len(batch.positions)
        """idle ones among them"""
        self.texts, self.stream = len(batch.firsts), stream
        self._alive = (None if stream is None else stream.columns, owners)  # pointers go into them, and into the pass
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
            *(self.tokens, self.texts, len(groups), ctypes.addressof(groups), batch.firsts.data_ptr(), columns),
            *(ctypes.addressof(one.structure) for one in owners or ()),
        )

    def angles(self, width: int, theta: float) -> Tensor:
        """Cosines, then sines, of rotary positions. Shape: (tokens, width)"""
        table: Tensor = self.shared.once(
            ("angles side by side", theta),
            lambda: torch.cat(angles_of(self.shared.batch.positions, width, theta), -1).flatten(1),
        )
        return table

    def distances(self, relative: RelativeEmbedding) -> Distances:
        """What the batch needs of the embedding of distances, places as the kernels count."""

        def make() -> Distances:
            found = relative(self.shared.batch)
            return Distances(found.rows.contiguous(), found.places.int())

        made: Distances = self.shared.once("distances for kernels", make)
        return made


_layers: weakref.WeakSet[NativeLayer] = weakref.WeakSet()


@in_forked_processes
def _give_turns_anew() -> None:
    """A lock that another thread held when the process was forked has nobody left to open it."""
    for layer in _layers:
        layer.turn = threading.Lock()


class NativeLayer:
    """A layer's tensors where the kernels find them.

    Frozen ones are pointed to once, trained ones anew in every call, since they may be replaced. The structure is one for
    all calls, so that threads take turns.
    """

    def __init__(self, layer: EncoderLayer | PreNormLayer, backend: Backend) -> None:
        self.backend, self.sizes = backend, layer.sizes
        self.turn = threading.Lock()
        _layers.add(self)
        self.hidden, self.firsts_only = layer.ffn_out.frozen.width, layer.firsts_only
        self.rotary = layer.rotary if isinstance(layer, PreNormLayer) else None
        self.both = backend.packs and self.rotary is None
        """whether a copy for products runs beside the residual stream"""
        self.structure = structures.Layer(
            hidden=self.hidden,
            heads=layer.sizes.heads,
            width=layer.sizes.head_width,
            source_count=len(layer.sources),
            firsts_only=layer.firsts_only,
            probabilities=_dropout(layer.sizes.attention_dropout),
        )
        if self.rotary is not None:
            self.structure.pre_norm = self.structure.all_ask = True
            self.structure.window = 0 if self.rotary.window is None else self.rotary.window + 1
        self.relative = layer.relative if isinstance(layer, DisentangledLayer) else None
        if isinstance(layer, DisentangledLayer):
            self.structure.all_ask = True
            self.structure.distances = structures.Distances(
                by_key="c2p" in layer.kinds, by_query="p2c" in layer.kinds, dropout=_dropout(layer.sizes.hidden_dropout)
            )
        self._nothing = torch.zeros(self.hidden)
        """the bias of norms that have none"""
        self._trained: list[tuple[nn.Module, Any, str, tuple[int, ...]]] = []
        """of every tensor that may train its module, the structure that points to it and its gradient, its name and its shape"""
        self._joint_biases: list[tuple[structures.Sites, Sites]] = []
        """those whose bias may train"""
        for made, sites in zip(self.structure.sources, layer.sources, strict=False):
            self._set_sites(made, sites)
        for name in ("attention_output", "ffn_in", "ffn_out"):
            self._set_sites(getattr(self.structure, name), getattr(layer, name))
        self._set_norm(self.structure.attention_norm, layer.attention_norm, layer.sizes.attention_output_dropout)
        self._set_norm(self.structure.ffn_norm, layer.ffn_norm, layer.sizes.hidden_dropout)

    def trained(self, shared: NativePass) -> list[Tensor]:
        """What may train of the layer, and rows of distances, in the order of `point`."""
        tensors = [getattr(module, name) for module, _, name, _ in self._trained]
        return tensors if self.relative is None else [*tensors, shared.distances(self.relative).rows]

    def rows(self, shared: NativePass) -> int:
        """Of the result."""
        return shared.texts if self.firsts_only else shared.tokens

    def point(self, trained: Sequence[Tensor], shared: NativePass) -> list[Tensor]:
        """Point to trained tensors, and to a pass's. Returns: what must live while these are used"""
        if self.rotary is not None:
            self.structure.angles = where(shared.angles(self.sizes.head_width, self.rotary.theta))
        if self.relative is not None:
            *trained, rows = trained
            made, places = self.structure.distances, shared.distances(self.relative).places
            made.rows, made.places, made.count = where(rows), place_of(places, torch.int32), len(rows)
            made.longest = (len(places) + 1) // 2
        for (_, place, name, shape), tensor in zip(self._trained, trained, strict=True):
            if name != "bias" or isinstance(place, structures.Norm):  # a site's is part of its joint one
                setattr(place, name, where(tensor, shape))
        joined = [sites.bias() for _, sites in self._joint_biases]
        for (made, _), bias in zip(self._joint_biases, joined, strict=True):
            made.bias = where(bias)
        return [bias for bias in joined if bias is not None]

    def point_to_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Where the trained tensors' gradients go; None: that one is not wanted."""
        if self.relative is not None:
            *gradients, of_rows = gradients
            self.structure.distances.grad_rows = address(of_rows)
        for (_, place, name, _), gradient in zip(self._trained, gradients, strict=True):
            setattr(place, f"grad_{name}", address(gradient))

    def _set_sites(self, made: structures.Sites, sites: Sites) -> None:
        made.matrix, made.count, made.number = sites.frozen.native_matrix(), len(sites.parts), sites.number
        if sites.frozen_bias is None:
            self._joint_biases.append((made, sites))
        else:
            made.bias = where(sites.frozen_bias, (made.matrix.d_out,))
        for part, site in zip(made.parts, sites.parts, strict=False):
            part.d_out = site.columns.stop - site.columns.start
            part.scale, part.dropout = site.scale, _dropout(site.dropout)
            part.rank = 0 if site.lora_A is None else len(site.lora_A)
            part.squared_norms = where(site.squared_norms, (part.d_out,))
            self._set(part, site, "lora_A", (part.rank, sites.d_in))
            self._set(part, site, "lora_B", (part.d_out, part.rank))
            for name in ("magnitude", "bias"):
                self._set(part, site, name, (part.d_out,))

    def _set_norm(self, made: structures.Norm, norm: Norm | PlainNorm | None, dropout: float) -> None:
        made.dropout = _dropout(dropout)
        if norm is None:
            return
        made.weight, made.epsilon = where(norm.weight, (self.hidden,)), norm.epsilon
        if isinstance(norm, Norm):
            made.number = norm.number
        if norm.bias is None:
            made.bias = where(self._nothing)
        else:
            self._set(made, norm, "bias", (self.hidden,))

    def _set(self, place: Any, module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
        tensor = getattr(module, name)
        if isinstance(tensor, nn.Parameter):
            self._trained.append((module, place, name, shape))
        if name != "bias" or isinstance(place, structures.Norm):
            setattr(place, name, where(tensor, shape))


def through(layers: Sequence[NativeLayer], x: Tensor, low: Tensor, shared: NativePass) -> tuple[Tensor, Tensor]:
    """Some layers, one after the other; see `layer.EncoderLayer.forward`. In fp32 x and low are one, before and after, and where
    norms come first.
    """
    if not layers:
        return x, low
    tensors = [layer.trained(shared) for layer in layers]
    both, counts = layers[0].both, [len(of_layer) for of_layer in tensors]
    keep = torch.is_grad_enabled()
    out, out_low = Through.apply(  # type: ignore[no-untyped-call]
        layers, counts, shared, keep, x, low if both else None, *itertools.chain.from_iterable(tensors)
    )
    return out, out_low if both else out


class Through(torch.autograd.Function):
    """Layers' forward and backward: one node of autograd for all, whose own work would be as long as a small layer's
    (a tenth of a millisecond each way). Without `low` it is x, and so are the results' copies.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layers: Sequence[NativeLayer],
        counts: Sequence[int],
        shared: NativePass,
        keep: bool,
        x: Tensor,
        low: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """counts: of each layer's tensors"""
        ctx.layers, ctx.counts, ctx.shared, ctx.trains = layers, counts, shared, []
        x, low = x.contiguous(), None if low is None else low.contiguous()
        trains, rest = keep and any(ctx.needs_input_grad[4:6]), list(tensors)
        saved: list[Tensor | None] = []
        for layer, count in zip(layers, counts, strict=True):
            trained, rest = rest[:count], rest[count:]
            ctx.trains.append(trains)
            trains = trains or (keep and any(tensor.requires_grad for tensor in trained))
            out = x.new_empty(layer.rows(shared), layer.hidden)
            out_low = None if low is None else torch.empty_like(out, dtype=low.dtype)
            read = None if layer.rotary is not None else x if low is None else low
            kept, drawn = _forward(layer, shared, trained, x, read, trains, out, out_low)
            saved += [read, kept, drawn] if trains else [None, None, None]
            x, low = out, out_low
        if trains:
            ctx.save_for_backward(*saved, *tensors)
            ctx.set_materialize_grads(False)
        return x, low

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_low: Tensor | None) -> tuple[Any, ...]:
        layers, shared = ctx.layers, ctx.shared
        saved, tensors = ctx.saved_tensors[: 3 * len(layers)], ctx.saved_tensors[3 * len(layers) :]
        needs = ctx.needs_input_grad[6:]
        gradients = [torch.empty_like(one) if need else None for one, need in zip(tensors, needs, strict=True)]
        grad, grad_low = (None if one is None else one.contiguous() for one in (grad, grad_low))
        end = len(tensors)
        for index in range(len(layers) - 1, -1, -1):
            layer, (low, kept, drawn) = layers[index], saved[3 * index : 3 * index + 3]
            start = end - ctx.counts[index]
            below = ctx.trains[index]
            grad_x = torch.empty(shared.tokens, layer.hidden) if below else None
            grad_below = torch.empty_like(low) if below and low is not None else None
            with layer.turn:
                alive = layer.point(tensors[start:end], shared)
                layer.point_to_gradients(gradients[start:end])
                layer.backend.call(
                    "backward_pass",
                    *(byref(layer.structure), byref(shared.structure), address(drawn), address(low), address(kept)),
                    *(address(one) for one in (grad, grad_low, grad_x, grad_below)),
                )
                del alive
            if not layer.both and low is not None:  # the gradient of x and low together
                grad_x, grad_below = grad_below, None
            grad, grad_low, end = grad_x, grad_below, start
            if not below:
                break
        return None, None, None, None, grad, grad_low, *gradients


def _forward(
    layer: NativeLayer,
    shared: NativePass,
    trained: Sequence[Tensor],
    x: Tensor,
    read: Tensor | None,
    keep: bool,
    out: Tensor,
    out_low: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """One layer's call. Returns: what its backward call needs, and the random numbers of its masks"""
    backend, shape = layer.backend, (shared.tokens, layer.hidden)
    with layer.turn:
        alive = layer.point(trained, shared)
        numbers, size = backend.layer_sizes(layer.structure, shared.structure)
        drawn = None if shared.stream is None else shared.stream.draw(numbers)
        kept = torch.empty(size, dtype=torch.uint8) if keep else None
        backend.call(
            "forward_pass",
            *(byref(layer.structure), byref(shared.structure), address(drawn), place_of(x, shape=shape)),
            None if read is None else place_of(read, backend.precision, shape),
            *(address(kept), address(out), address(out_low)),
        )
        del alive
    return kept, drawn


def _dropout(rate: float) -> structures.Dropout:
    if rate == 0.0:
        return structures.Dropout()
    limit, bits = constants(rate)
    return structures.Dropout(limit, struct.unpack("<f", struct.pack("<i", bits))[0])
