"""DeBERTa's attention on packed tokens: scores by content, and by content against relative position both ways.

scores(i, j) = (q_i k_j + q_i p(i - j) + k_j r(i - j)) / sqrt(parts * width), where p and r are the key's and the query's
projections of one embedding of distances (He et al. 2021, equation 4). The embedding's rows that a batch needs go through
the same products as its tokens, behind them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankwise.encoders.deberta_v2 import DeBERTa
from rankwise.encoders.family import HFConfig, Numbers
from rankwise.engine.attention import Attention, Call
from rankwise.engine.frozen import hold
from rankwise.engine.layer import EncoderLayer, Pass
from rankwise.engine.packing import Group, Packed
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
        rows = shared.dropped(distances.rows, self.sizes.hidden_dropout)
        tokens, extended = len(low), torch.cat([low, rows.to(low.dtype)])
        sources: list[Tensor] = []
        for sites in self.sources:
            y, _, extended = shared.linear(sites, extended)
            sources.append(y)
        sizes, parts = self.sizes, tuple(len(sites.parts) for sites in self.sources)
        common = (shared.batch.groups, shared.biases, shared.masks(sizes), parts, sizes.heads, sizes.head_width)
        tables = [_by_head(part.detach(), sizes.heads) for part in _projected(sources, tokens, parts)]
        call = RelativeCall(*common, False, tokens, distances, self.kinds, tables)
        context: Tensor = Attention.apply(call, *sources)  # type: ignore[no-untyped-call]
        return context.index_select(0, shared.batch.firsts) if self.firsts_only else context


@dataclass(frozen=True)
class RelativeCall(Call):
    """What attention needs where scores are by distance too: behind the sources' tokens lie the projected rows of distances."""

    distances: Distances
    kinds: frozenset[str]
    tables: Sequence[Tensor]
    """the query's and the key's projection of the rows. Shape of both: (heads, rows, width), fp32"""

    @property
    def scale(self) -> float:
        """Of the scores."""
        return 1.0 / math.sqrt(self.width * (1 + len(self.kinds)))

    def scores(self, group: Group, query: Tensor, key: Tensor) -> Tensor:
        """Shape: (texts * heads, longest, longest)"""
        scores, ascending = super().scores(group, query, key), self.distances.places_of(group.longest)
        by_text, (by_query, by_key) = scores.view(group.texts, self.heads, group.longest, group.longest), self.tables
        if "c2p" in self.kinds:
            by_text += _against(query, by_key[:, ascending.flip(0)], group.texts)
        if "p2c" in self.kinds:
            by_text += _against(key, by_query[:, ascending], group.texts).transpose(2, 3)
        return scores

    def scores_backward(
        self, group: Group, grad: Tensor, query: Tensor, key: Tensor, sums: Sequence[Tensor]
    ) -> list[Tensor]:
        grad_query, grad_key = super().scores_backward(group, grad, query, key, sums)
        ascending, (by_query, by_key) = self.distances.places_of(group.longest), self.tables
        if "c2p" in self.kinds:
            grad_query += _against_backward(grad, query, by_key, ascending.flip(0), sums[1])
        if "p2c" in self.kinds:
            grad_key += _against_backward(grad.transpose(1, 2), key, by_query, ascending, sums[0])
        return [grad_query, grad_key]

    def sums(self) -> Sequence[Tensor]:
        """Of the tables."""
        return [torch.zeros_like(table) for table in self.tables]

    def write_sums(self, sums: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        for out, values in zip(_projected(grads, self.rows, self.parts), sums, strict=True):
            out.copy_(values.transpose(0, 1).reshape(out.shape))


def _projected(sources: Sequence[Tensor], tokens: int, parts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The query's and the key's projection of the rows of distances. Shape of both: (rows, hidden)"""
    hidden, joint = sources[0].shape[1] // parts[0], parts[0] == 3
    start = hidden if joint else 0
    return sources[0][tokens:, :hidden], sources[0 if joint else 1][tokens:, start : start + hidden]


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """Shape: rows (rows, hidden), result (heads, rows, width), fp32"""
    return rows.reshape(len(rows), heads, -1).transpose(0, 1).float()


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
