"""An encoder layer as one call of the kernels, forward and one backward; `layer` and `prenorm` say in plain torch what it is."""

from __future__ import annotations

import ctypes
import itertools
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
from rankwise.engine.prenorm import PlainNorm, PreNormLayer, angles_of

_WORD = ctypes.sizeof(ctypes.c_long)
Words = memoryview
"""a structure's memory, in numbers as long as a pointer"""


def _words_of(parts: ctypes.Array[structures.LayerPass]) -> list[Words]:
    words, size = memoryview(parts).cast("B").cast("L"), ctypes.sizeof(structures.LayerPass) // _WORD
    return [words[start : start + size] for start in range(0, len(words), size)]


class NativePass:
    """What all layers of one forward pass share, as the kernels take it."""

    def __init__(self, shared: Pass) -> None:
        owners = None if shared.mixed is None else shared.mixed.owners
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

    def distances(self, relative: RelativeEmbedding) -> Distances:
        """What the batch needs of the embedding of distances, places as the kernels count."""

        def make() -> Distances:
            found = relative(self.shared.batch)
            return Distances(found.rows.contiguous(), found.places.int())

        made: Distances = self.shared.once("distances for kernels", make)
        return made


class NativeLayer:
    """A layer's tensors where the kernels find them.

    Frozen ones are pointed to once; trained ones, which may be replaced, in every pass's own copy of the structure.
    """

    def __init__(self, layer: EncoderLayer | PreNormLayer, backend: Backend) -> None:
        self.backend, self.sizes = backend, layer.sizes
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
        self._trained: list[tuple[nn.Module, str, tuple[int, ...], int | None, int]] = []
        """of every tensor that may train its module, name and shape, and where the structure points to it (None: nowhere) and
        to its gradient"""
        self._joint_biases: list[tuple[Sites, int]] = []
        """of those whose bias may train, and where the structure points to it"""
        for made, sites in zip(self.structure.sources, layer.sources, strict=False):
            self._set_sites(made, sites)
        for name in ("attention_output", "ffn_in", "ffn_out"):
            self._set_sites(getattr(self.structure, name), getattr(layer, name))
        self._set_norm(self.structure.attention_norm, layer.attention_norm, layer.sizes.attention_output_dropout)
        self._set_norm(self.structure.ffn_norm, layer.ffn_norm, layer.sizes.hidden_dropout)

    def trained(self, shared: NativePass) -> list[Tensor]:
        """What may train of the layer, and rows of distances, in the order of `point`."""
        tensors = [getattr(module, name) for module, name, *_ in self._trained]
        return tensors if self.relative is None else [*tensors, shared.distances(self.relative).rows]

    @property
    def count(self) -> int:
        """How many tensors `trained` gives."""
        return len(self._trained) + (self.relative is not None)

    def point(
        self, layer: structures.Layer, words: Words, trained: Sequence[Tensor], shared: NativePass
    ) -> list[Tensor]:
        """Have a copy of the structure, of which `words` is the memory, point to a pass's tensors, trained ones among them.

        Returns: what must live while these are used
        """
        if self.rotary is not None:
            given = shared.shared.batch.positions, self.sizes.head_width, self.rotary.theta
            # Cosines, then sines. Shape: (tokens, width)
            angles = shared.shared.once(given[1:], lambda: torch.cat(angles_of(*given), -1).flatten(1))
            layer.angles = where(angles)
        if self.relative is not None:
            *trained, rows = trained
            made, places = layer.distances, shared.distances(self.relative).places
            made.rows, made.places, made.count = where(rows), place_of(places, torch.int32), len(rows)
            made.longest = (len(places) + 1) // 2
        for (_, _, shape, place, _), tensor in zip(self._trained, trained, strict=True):
            if place is not None:
                words[place] = where(tensor, shape) or 0
        joined = [sites.bias() for sites, _ in self._joint_biases]
        for (_, place), bias in zip(self._joint_biases, joined, strict=True):
            words[place] = where(bias) or 0
        return [bias for bias in joined if bias is not None]

    def point_to_gradients(self, layer: structures.Layer, words: Words, gradients: Sequence[Tensor | None]) -> None:
        """Where the trained tensors' gradients go; None: that one is not wanted."""
        if self.relative is not None:
            *gradients, of_rows = gradients
            layer.distances.grad_rows = address(of_rows)
        for (*_, place), gradient in zip(self._trained, gradients, strict=True):
            words[place] = address(gradient) or 0

    def _set_sites(self, made: structures.Sites, sites: Sites) -> None:
        made.matrix, made.count, made.number = sites.frozen.native_matrix(), len(sites.parts), sites.number
        if sites.frozen_bias is None:
            self._joint_biases.append((sites, self._place(made, "bias")))
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
        points = name != "bias" or isinstance(place, structures.Norm)  # a site's is part of its joint one
        if isinstance(tensor, nn.Parameter):
            of_tensor = self._place(place, name) if points else None
            self._trained.append((module, name, shape, of_tensor, self._place(place, f"grad_{name}")))
        if points:
            setattr(place, name, where(tensor, shape))

    def _place(self, of: Any, name: str) -> int:
        """A field's place in the layer's structure, in words."""
        start = ctypes.addressof(of) - ctypes.addressof(self.structure)
        return int(start + getattr(type(of), name).offset) // _WORD


def through(layers: Sequence[NativeLayer], x: Tensor, low: Tensor, shared: NativePass) -> tuple[Tensor, Tensor]:
    """Some layers, one after the other; see `layer.EncoderLayer.forward`. In fp32 x and low are one, before and after, and where
    norms come first.
    """
    if not layers:
        return x, low
    tensors = [tensor for layer in layers for tensor in layer.trained(shared)]
    both = layers[0].both
    keep = torch.is_grad_enabled()
    out, out_low = Through.apply(layers, shared, keep, x, low if both else None, *tensors)  # type: ignore[no-untyped-call]
    return out, out_low if both else out


class Through(torch.autograd.Function):
    """Layers' forward and backward: one node of autograd and one call of the kernels for all, since what Python does between two
    is as long as a small layer's product, and no thread has work meanwhile. Without `low` it is x, and so are the results' copies.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layers: Sequence[NativeLayer],
        shared: NativePass,
        keep: bool,
        x: Tensor,
        low: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        backend, shape, rest = layers[0].backend, (shared.tokens, layers[0].hidden), iter(tensors)
        x, low = given = x.contiguous(), None if low is None else low.contiguous()
        parts = (structures.LayerPass * len(layers))()
        alive, trains = [], [keep and any(ctx.needs_input_grad[3:5])]
        for part, of_part, layer in zip(parts, _words_of(parts), layers, strict=True):
            trained = list(itertools.islice(rest, layer.count))
            part.layer = layer.structure
            alive += layer.point(part.layer, of_part, trained, shared)
            trains.append(trains[-1] or (keep and any(tensor.requires_grad for tensor in trained)))
        backend.layer_sizes(parts, shared.structure)
        drawn = None if shared.stream is None else shared.stream.draw(sum(part.number_count for part in parts))
        numbers, saved, rooms = address(drawn), [], _Rooms()
        for index, (part, layer) in enumerate(zip(parts, layers, strict=True)):
            read = None if layer.rotary is not None else x if low is None else low
            kept = torch.empty(part.size, dtype=torch.uint8) if trains[index + 1] else None
            saved += [read if trains[index + 1] else None, kept]
            part.numbers, part.keep, part.x = numbers, address(kept), place_of(x, shape=shape)
            part.low = None if read is None else place_of(read, backend.precision, shape)
            if drawn is not None and numbers is not None:
                numbers += part.number_count * drawn.itemsize
            last = index == len(layers) - 1  # whose results are the caller's; what the next layer saves is its own too
            own = last or (trains[index + 2] and layers[index + 1].rotary is None)
            size = (shared.texts if layer.firsts_only else shared.tokens, layer.hidden)
            if low is not None:
                low = rooms.take("low", index, size, low.dtype, own=own)
            x = rooms.take("x", index, size, x.dtype, own=last or (own and low is None))
            part.out, part.out_low = address(x), address(low)
        backend.call("forward_pass", parts, len(parts), byref(shared.structure))
        del given
        if trains[-1]:
            ctx.layers, ctx.shared, ctx.trains, ctx.parts, ctx.alive = layers, shared, trains, parts, (alive, drawn)
            ctx.save_for_backward(*saved, *tensors)
            ctx.set_materialize_grads(False)
        return x, low

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_low: Tensor | None) -> tuple[Any, ...]:
        layers, shared, parts = ctx.layers, ctx.shared, ctx.parts
        reads, tensors = ctx.saved_tensors[: 2 * len(layers) : 2], ctx.saved_tensors[2 * len(layers) :]
        needs = ctx.needs_input_grad[5:]
        gradients = [torch.empty_like(one) if need else None for one, need in zip(tensors, needs, strict=True)]
        given = grad, grad_low = tuple(None if one is None else one.contiguous() for one in (grad, grad_low))
        words, end, rooms = _words_of(parts), len(tensors), _Rooms()
        first = ctx.trains.index(True) - (not ctx.trains[0])
        for index in range(len(layers) - 1, first - 1, -1):
            layer, part, read = layers[index], parts[index], reads[index]
            start = end - layer.count
            layer.point_to_gradients(part.layer, words[index], gradients[start:end])
            part.grad, part.grad_low, end = address(grad), address(grad_low), start
            grad = grad_low = None
            if ctx.trains[index]:
                shape = shared.tokens, layer.hidden
                grad = rooms.take("x", index, shape, torch.float32)
                grad_low = None if read is None else rooms.take("low", index, shape, read.dtype)
            part.grad_x, part.below = address(grad), address(grad_low)
            if not layer.both and read is not None:  # the gradient of x and low together
                grad, grad_low = grad_low, None
        layers[0].backend.call("backward_pass", byref(parts[first]), len(parts) - first, byref(shared.structure))
        del given
        return None, None, None, grad, grad_low, *gradients


class _Rooms:
    """Memory for what layers hand on: two tensors of a kind in turns, and apart from these where it stays after the pass."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, int], Tensor] = {}

    def take(self, kind: str, turn: int, shape: tuple[int, int], dtype: torch.dtype, *, own: bool = False) -> Tensor:
        if own:
            return torch.empty(shape, dtype=dtype)
        if (kind, turn % 2) not in self._turns:
            self._turns[kind, turn % 2] = torch.empty(shape, dtype=dtype)
        return self._turns[kind, turn % 2]


def _dropout(rate: float) -> structures.Dropout:
    return structures.Dropout(*constants(rate)) if rate else structures.Dropout()
