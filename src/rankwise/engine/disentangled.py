"""DeBERTa's attention on packed tokens: scores by content, and by content against relative position both ways.

scores(i, j) = (q_i k_j + q_i p(i - j) + k_j r(i - j)) / sqrt(parts * width), where p and r are the key's and the query's
projections of one embedding of distances (He et al. 2021, equation 4). The embedding's rows that a batch needs go through
the same products as its tokens, behind them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.encoders.deberta_v2 import DeBERTa
from rankwise.encoders.family import HFConfig, Numbers
from rankwise.engine.attention import Call
from rankwise.engine.dropout import multiplier
from rankwise.engine.frozen import hold
from rankwise.engine.fused import numbers_of
from rankwise.engine.layer import EncoderLayer, Pass
from rankwise.engine.packing import Packed
from rankwise.engine.prenorm import PlainNorm
from rankwise.engine.weights import LayerWeights, Source, norm_of


@dataclass(frozen=True)
class Distances:
    """What a batch needs of the embedding of distances."""

    rows: Tensor
    """normed. Shape: (rows, hidden), fp32"""
    places: Tensor
    """the row of every distance from -(longest - 1). Shape: (2 * longest - 1,)"""

    def places_of(self, longest: int) -> Tensor:
        """The same of a group's own distances. Shape: (2 * longest - 1,)"""
        beyond = (len(self.places) + 1) // 2 - longest
        return self.places[beyond : len(self.places) - beyond]


class RelativeEmbedding(nn.Module):
    """The embedding of distances, one for all layers."""

    table: Tensor

    def __init__(self, source: Source, family: DeBERTa, config: HFConfig, epsilon: float) -> None:
        super().__init__()
        self.family, self.config = family, dict(config)
        hold(self, "table", source.tensor(f"{family.relative_table}.weight").detach())
        normed = "layer_norm" in str(config.get("norm_rel_ebd", "none"))
        self.norm = PlainNorm(norm_of(source, family.relative_norm), epsilon) if normed else None

    def forward(self, batch: Packed) -> Distances:
        """The rows that a batch needs."""
        longest = max(group.longest for group in batch.groups)
        needed, places = torch.unique(self.family.distance_rows(self.config, longest), return_inverse=True)
        rows = self.table.index_select(0, needed.to(self.table.device))
        return Distances(rows if self.norm is None else self.norm(rows), places.to(self.table.device))


class DisentangledLayer(EncoderLayer):
    """`EncoderLayer` with attention by relative position too."""

    splits_firsts = False

    def __init__(
        self,
        weights: LayerWeights,
        sizes: Numbers,
        precision: torch.dtype,
        *,
        relative: RelativeEmbedding,
        firsts_only: bool,
    ) -> None:
        super().__init__(weights, sizes, precision, firsts_only=firsts_only)
        self.relative = relative
        self.kinds = relative.family.kinds(relative.config)

    def _attend(self, low: Tensor, shared: Pass) -> Tensor:
        """Queries, keys, values, and the context. Shape: (tokens, hidden) or (texts, hidden)"""
        distances: Distances = shared.once("distances", lambda: self.relative(shared.batch))
        mask = numbers_of(shared.mask(distances.rows.shape, self.sizes.hidden_dropout))
        rows = distances.rows if mask is None else distances.rows * multiplier(*mask)
        tokens, extended = len(low), torch.cat([low, rows.to(low.dtype)])
        sources: list[Tensor] = []
        for sites in self.sources:
            y, _, extended = shared.linear(sites, extended)
            sources.append(y)
        sizes, parts = self.sizes, tuple(len(sites.parts) for sites in self.sources)
        groups, masks = shared.batch.groups, shared.masks(sizes)
        call = Call(
            groups, shared.biases, masks, parts, sizes.heads, sizes.head_width, shared.kernels, firsts_only=False
        )
        context: Tensor = DisentangledAttention.apply(call, distances, self.kinds, tokens, *sources)  # type: ignore[no-untyped-call]
        return context.index_select(0, shared.batch.firsts) if self.firsts_only else context


class DisentangledAttention(torch.autograd.Function):
    """The context of queries, keys and values, behind whose tokens lie the projected rows of distances.

    sources
        see `Call.parts`. Shape: (tokens + rows, parts * hidden)

    Returns. Shape: (tokens, hidden)
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, distances: Distances, kinds: frozenset[str], tokens: int, *sources: Tensor
    ) -> Tensor:
        scale = 1.0 / math.sqrt(call.width * (1 + len(kinds)))
        by_query, by_key = (_by_head(part, call) for part in _projected(sources, tokens, call))
        context = call.empty((tokens, call.heads * call.width), sources[0], queries=True)
        kept: list[Tensor] = []
        for group, bias, mask in zip(call.groups, call.biases, call.masks, strict=True):
            query, key, value = call.gather(group, sources)
            scores = torch.bmm(query.float(), key.float().transpose(1, 2))
            ascending = distances.places_of(group.longest)
            by_text = scores.view(group.texts, call.heads, group.longest, group.longest)
            if "c2p" in kinds:
                by_text += _against(query, by_key[:, ascending.flip(0)], group.texts)
            if "p2c" in kinds:
                by_text += _against(key, by_query[:, ascending], group.texts).transpose(2, 3)
            plain, dropped = call.kernels.probabilities(scores, bias, scale, numbers_of(mask), query.dtype)
            call.scatter(group, torch.bmm(dropped, value), context, 1, queries=True)
            kept += [query, key, value, plain]
        if any(ctx.needs_input_grad):
            ctx.call, ctx.distances, ctx.kinds, ctx.scale, ctx.tokens = call, distances.places, kinds, scale, tokens
            ctx.shapes = [source.shape for source in sources]
            ctx.save_for_backward(by_query, by_key, *kept)
        return context

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        call: Call = ctx.call
        by_query, by_key, *saved = ctx.saved_tensors
        places = Distances(by_key, ctx.distances)
        grads = [call.empty(shape, grad, queries=False) for shape in ctx.shapes]
        grad_by_query, grad_by_key = torch.zeros_like(by_query), torch.zeros_like(by_key)
        kept = iter(saved)
        for group, mask in zip(call.groups, call.masks, strict=True):
            query, key, value, plain = (next(kept) for _ in range(4))
            grad_scores, grad_value = call.scores_backward(group, grad, mask, plain, value, ctx.scale)
            grad_query = torch.bmm(grad_scores, key)
            grad_key = torch.bmm(grad_scores.transpose(1, 2), query)
            ascending = places.places_of(group.longest)
            if "c2p" in ctx.kinds:
                grad_query += _against_backward(grad_scores, query, by_key, ascending.flip(0), grad_by_key)
            if "p2c" in ctx.kinds:
                turned = grad_scores.transpose(1, 2)
                grad_key += _against_backward(turned, key, by_query, ascending, grad_by_query)
            call.scatter_gradients(group, [grad_query, grad_key, grad_value], grads)
        for out, values in zip(_projected(grads, ctx.tokens, call), (grad_by_query, grad_by_key), strict=True):
            out.copy_(values.transpose(0, 1).reshape(out.shape))
        return None, None, None, None, *grads


def _projected(sources: Any, tokens: int, call: Call) -> tuple[Tensor, Tensor]:
    """The query's and the key's projection of the rows of distances. Shape of both: (rows, hidden)"""
    hidden = call.heads * call.width
    query, key = sources[0], sources[0] if call.parts[0] == 3 else sources[1]
    start = hidden if call.parts[0] == 3 else 0
    return query[tokens:, :hidden], key[tokens:, start : start + hidden]


def _by_head(rows: Tensor, call: Call) -> Tensor:
    """Shape: rows (rows, hidden), result (heads, rows, width), fp32"""
    return rows.reshape(len(rows), call.heads, call.width).transpose(0, 1).float()


def _slanted(full: Tensor, texts: int, length: int) -> Tensor:
    """Of the products with every distance the one of each pair of tokens: a view.

    full
        contiguous. Shape: (heads, texts * length, 2 * length - 1)

    Returns. Shape: (texts, heads, length, length)
    """
    heads, _, distances = full.shape
    strides = (length * distances, texts * length * distances, distances - 1, 1)
    return full.as_strided((texts, heads, length, length), strides, full.storage_offset() + length - 1)


def _against(rows: Tensor, table: Tensor, texts: int) -> Tensor:
    """Products of tokens i with the row of a table for (i, j).

    rows
        Shape: (texts * heads, length, width)
    table
        the row of (i, j) is length - 1 - i + j. Shape: (heads, 2 * length - 1, width)

    Returns. Shape: (texts, heads, length, length), fp32
    """
    heads, length, width = len(table), rows.shape[1], rows.shape[2]
    by_head = rows.view(texts, heads, length, width).transpose(0, 1).reshape(heads, -1, width)
    return _slanted(torch.bmm(by_head.float(), table.transpose(1, 2)), texts, length)


def _against_backward(grad: Tensor, rows: Tensor, table: Tensor, places: Tensor, grad_table: Tensor) -> Tensor:
    """Gradient of `_against` for rows; that of the table is added to grad_table at places.

    Shape: grad (texts * heads, length, length), rows and result (texts * heads, length, width),
    table and grad_table (heads, all rows, width)
    """
    heads, length, width = len(table), rows.shape[1], rows.shape[2]
    texts = len(rows) // heads
    full = grad.new_zeros((heads, texts * length, 2 * length - 1))
    _slanted(full, texts, length).copy_(grad.view(texts, heads, length, length))
    by_head = rows.view(texts, heads, length, width).transpose(0, 1).reshape(heads, -1, width)
    grad_table.index_add_(1, places, torch.bmm(full.transpose(1, 2), by_head).float())
    below = torch.bmm(full, table[:, places].to(grad.dtype))  # (heads, texts * length, width)
    return below.view(heads, texts, length, width).transpose(0, 1).reshape(rows.shape)
