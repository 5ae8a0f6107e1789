"""Attention of packed texts, one rectangle of similar lengths at a time, forward and backward.

Explicit products on a CPU (`Attention`), where the library's fused attention is five to eight times slower in training
than two batched products and a softmax; the library's fused attention on other devices (`fused_attention`).
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
from rankwise.engine.fused import Kernels, numbers_of
from rankwise.engine.packing import Group


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
    kernels: Kernels
    firsts_only: bool

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
        tokens = grad[group.start : group.stop]
        if not group.padded:
            return tokens.reshape(-1, self.width).index_select(0, group.take(1)).view(-1, group.longest, self.width)
        rows = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])]).view(-1, self.width)
        return rows.index_select(0, group.take_or_zero()).view(-1, group.longest, self.width)

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

    def scores_backward(
        self, group: Group, grad: Tensor, mask: Mask | None, plain: Tensor, value: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Gradients of a group's scores and values from the context's.

        plain
            probabilities before dropout. Shape: (texts * heads, queries, longest), as the scores' gradient
        """
        above, numbers = self.gather_gradient(group, grad), numbers_of(mask)
        dropped = self.kernels.dropped(plain.view(-1, plain.shape[-1]), numbers).view(plain.shape)
        of_dropped = torch.bmm(above, value.transpose(1, 2))
        of_value = torch.bmm(dropped.transpose(1, 2), above)
        return self.kernels.probabilities_backward(of_dropped, plain, scale, numbers), of_value

    def scatter_gradients(self, group: Group, found: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Write a group's gradients of query, key and value back into those of the sources."""
        for number, (parts, out) in enumerate(zip(self.parts, grads, strict=True)):
            pieces, found = found[:parts], found[parts:]
            rectangle = pieces[0] if parts == 1 else torch.stack(list(pieces))
            self.scatter(group, rectangle, out, parts, queries=number == 0)


class Attention(torch.autograd.Function):
    """context = dropout(softmax(q k^T / sqrt(width) + bias)) v, for every text and head."""

    @staticmethod
    def forward(ctx: Any, call: Call, *sources: Tensor) -> Tensor:
        """sources: see `Call.parts`. Shape: (tokens, parts * hidden)

        Returns. Shape: (tokens, hidden), or (texts, hidden) when only first tokens ask
        """
        context = call.empty((sources[0].shape[0], call.heads * call.width), sources[0], queries=True)
        kept: list[Tensor] = []
        for group, bias, mask in zip(call.groups, call.biases, call.masks, strict=True):
            query, key, value = call.gather(group, sources)
            # In fp32: scores of ten, rounded to bf16, would be off by 4% of a probability.
            scores = torch.bmm(query.float(), key.float().transpose(1, 2))
            plain, dropped = call.kernels.probabilities(scores, bias, call.scale, numbers_of(mask), query.dtype)
            call.scatter(group, torch.bmm(dropped, value), context, 1, queries=True)
            kept += [query, key, value, plain]
        if any(ctx.needs_input_grad):
            ctx.call, ctx.shapes = call, [source.shape for source in sources]
            ctx.save_for_backward(*kept)
        return context

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        call: Call = ctx.call
        grads = [call.empty(shape, grad, queries=number == 0) for number, shape in enumerate(ctx.shapes)]
        kept = iter(ctx.saved_tensors)
        for group, mask in zip(call.groups, call.masks, strict=True):
            query, key, value, plain = (next(kept) for _ in range(4))
            grad_scores, grad_value = call.scores_backward(group, grad, mask, plain, value, call.scale)
            grad_query, grad_key = torch.bmm(grad_scores, key), torch.bmm(grad_scores.transpose(1, 2), query)
            call.scatter_gradients(group, [grad_query, grad_key, grad_value], grads)
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
