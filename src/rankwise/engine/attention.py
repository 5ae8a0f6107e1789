"""Attention of packed texts, forward and backward, in three ways.

Explicit products on a CPU (`Attention`), where the library's fused attention is five to eight times slower in training
than two batched products and a softmax: one rectangle of texts of similar lengths at a time. Elsewhere the library's fused attention,
of such rectangles (`fused_attention`), or where it has kernels for texts of any length and nothing is added to scores, of the
tokens as they lie (`ragged_attention`), without padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankwise.engine.dropout import Mask
from rankwise.engine.fused import dropped, probabilities, probabilities_backward
from rankwise.engine.packing import Group, Packed


@dataclass(frozen=True)
class Call:
    """What attention needs beside its inputs.

    parts
        How query, key and value lie in the sources: (3,) one joint tensor, (1, 2) a query and a joint key and value,
        (1, 1, 1) three.
    firsts_only
        Only the texts' first tokens ask: the query is a source of its own with one row a text.
    """

    groups: Sequence[Group]
    biases: Sequence[Tensor]
    """padding and relative positions, added to scores. Shape of each: (texts, 1 or heads, 1 or queries, longest)"""
    masks: Sequence[Mask | None]
    """dropout of each group's probabilities. Rows: texts * heads * queries; columns: longest"""
    parts: tuple[int, ...]
    heads: int
    width: int
    """of a head"""
    firsts_only: bool
    rows: int
    """of the context: tokens, or texts where only first tokens ask"""

    @property
    def scale(self) -> float:
        """Of the scores."""
        return 1.0 / math.sqrt(self.width)

    def gather(self, group: Group, sources: Sequence[Tensor]) -> list[Tensor]:
        """Query, key and value of a group. Shape of each: (texts * heads, queries or longest, width)"""
        found: list[Tensor] = []
        for number, (source, parts) in enumerate(zip(sources, self.parts, strict=True)):
            if self.firsts_only and number == 0:
                queries = source[group.first_text : group.first_text + group.texts]
                found.append(queries.reshape(-1, 1, self.width))
                continue
            rows = source[group.start : group.stop].view(-1, self.width).index_select(0, group.take(parts))
            found.extend(rows.view(parts, -1, group.longest, self.width))
        return found

    def gather_gradient(self, group: Group, grad: Tensor) -> Tensor:
        """The context's gradient, zero on padding. Shape: (texts * heads, queries, width)"""
        if self.firsts_only:
            return grad[group.first_text : group.first_text + group.texts].reshape(-1, 1, self.width)
        rows = grad[group.start : group.stop].reshape(-1, self.width)
        rectangle = rows.new_zeros(group.texts * self.heads * group.longest, self.width)
        return rectangle.index_copy_(0, group.back(1), rows).view(-1, group.longest, self.width)

    def empty(self, shape: Sequence[int], like: Tensor, *, queries: bool) -> Tensor:
        """Memory to scatter into, zero on the idle tokens, which belong to no group. Shape: as given"""
        made = like.new_empty(shape)
        if not (queries and self.firsts_only):
            made[self.groups[-1].stop :] = 0
        return made

    def scatter(self, group: Group, rectangle: Tensor, out: Tensor, parts: int, *, queries: bool) -> None:
        """Write a group's rectangle back into the packed tensor.

        rectangle
            Shape: (parts, texts * heads, queries or longest, width)
        out
            Shape: (tokens, parts * hidden), or (texts, hidden) of the first tokens
        """
        if queries and self.firsts_only:
            out[group.first_text : group.first_text + group.texts] = rectangle.view(group.texts, -1)
            return
        rows = out[group.start : group.stop].view(-1, self.width)
        torch.index_select(rectangle.view(-1, self.width), 0, group.back(parts), out=rows)

    def scores(self, group: Group, query: Tensor, key: Tensor) -> Tensor:
        """Of a group, not scaled yet, fp32. Shape: (texts * heads, queries, longest)"""
        # In fp32: scores of ten, rounded to bf16, would be off by 4% of a probability.
        return torch.bmm(query.float(), key.float().transpose(1, 2))

    def scores_backward(
        self, group: Group, grad: Tensor, query: Tensor, key: Tensor, sums: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of a group's query and key from its scores'; those of what all groups share are added to `sums`."""
        return [torch.bmm(grad, key), torch.bmm(grad.transpose(1, 2), query)]

    def sums(self) -> Sequence[Tensor]:
        """Zeros, for the gradients of what all groups share."""
        return ()

    def write_sums(self, sums: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Put these where they belong in the sources' gradients."""


class Attention(torch.autograd.Function):
    """context = dropout(softmax(q k^T / sqrt(width) + bias)) v, for every text and head."""

    @staticmethod
    def forward(ctx: Any, call: Call, *sources: Tensor) -> Tensor:
        """sources: see `Call.parts`. Shape: (tokens, parts * hidden)

        Returns. Shape: (tokens, hidden), or (texts, hidden) when only first tokens ask
        """
        context = call.empty((call.rows, call.heads * call.width), sources[0], queries=True)
        kept: list[Tensor] = []
        for group, bias, mask in zip(call.groups, call.biases, call.masks, strict=True):
            query, key, value = call.gather(group, sources)
            plain, chances = probabilities(call.scores(group, query, key), bias, call.scale, mask, query.dtype)
            call.scatter(group, torch.bmm(chances, value), context, 1, queries=True)
            kept += [query, key, value, plain]
        if any(ctx.needs_input_grad):
            ctx.call, ctx.shapes = call, [source.shape for source in sources]
            ctx.save_for_backward(*kept)
        return context

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        call: Call = ctx.call
        grads = [call.empty(shape, grad, queries=number == 0) for number, shape in enumerate(ctx.shapes)]
        kept, sums = iter(ctx.saved_tensors), call.sums()
        for group, mask in zip(call.groups, call.masks, strict=True):
            query, key, value, plain = (next(kept) for _ in range(4))
            above = call.gather_gradient(group, grad)
            chances = dropped(plain.view(-1, plain.shape[-1]), mask).view(plain.shape)
            below = probabilities_backward(torch.bmm(above, value.transpose(1, 2)), plain, call.scale, mask)
            of_value = torch.bmm(chances.transpose(1, 2), above)
            found = iter([*call.scores_backward(group, below, query, key, sums), of_value])
            for number, (parts, out) in enumerate(zip(call.parts, grads, strict=True)):
                pieces = [next(found) for _ in range(parts)]
                rectangle = pieces[0] if parts == 1 else torch.stack(pieces)
                call.scatter(group, rectangle, out, parts, queries=number == 0)
        call.write_sums(sums, grads)
        return None, *grads


def fused_attention(call: Call, dropout: float, *sources: Tensor) -> Tensor:
    """The same context by the library's fused attention, whose probabilities never reach memory.

    dropout
        Rate; the mask is drawn from torch's generator, since a fused kernel draws its own.

    Shape: sources and result as of `Attention`
    """
    pieces: list[Tensor] = []
    for group, bias in zip(call.groups, call.biases, strict=True):
        query, key, value = (part.view(group.texts, call.heads, -1, call.width) for part in call.gather(group, sources))
        context = F.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout_p=dropout, scale=call.scale
        )
        if call.firsts_only:
            pieces.append(context.reshape(group.texts, -1))
        else:
            rows = context.reshape(-1, call.width).index_select(0, group.back(1))
            pieces.append(rows.view(group.stop - group.start, -1))
    if not call.firsts_only:
        pieces.append(sources[0].new_zeros(len(sources[0]) - call.groups[-1].stop, call.heads * call.width))
    return torch.cat(pieces)


def ragged_attention(call: Call, batch: Packed, dropout: float, *sources: Tensor) -> Tensor:
    """The same context by the library's attention of texts that are as long as they are (torch's jagged layout).

    dropout
        As of `fused_attention`.

    Shape: sources and result as of `Attention`
    """
    given: list[Tensor] = []
    for number, (source, parts) in enumerate(zip(sources, call.parts, strict=True)):
        asks_first = call.firsts_only and number == 0
        bounds = torch.arange(len(batch.bounds), device=source.device) if asks_first else batch.bounds
        rows = source if asks_first else source[: batch.tokens]
        extremes = (1, 1) if asks_first else (batch.shortest, batch.longest)
        for part in rows.view(len(rows), parts, call.heads, call.width).unbind(1):
            ragged = torch.nested.nested_tensor_from_jagged(
                part.contiguous(), bounds, min_seqlen=extremes[0], max_seqlen=extremes[1]
            )
            given.append(ragged.transpose(1, 2))
    query, key, value = given
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=call.scale)
    rows = context.transpose(1, 2).values().reshape(-1, call.heads * call.width)
    return F.pad(rows, (0, 0, 0, call.rows - len(rows)))
