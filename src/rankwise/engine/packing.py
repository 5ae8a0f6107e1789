"""Packing: a batch of texts as one row of tokens without padding, and the tables attention needs.

Tokens are laid out text after text, texts sorted by length. Linear layers, norms and activations see only that:
shape (tokens, width). Attention alone needs rectangles, so texts of similar length form a few groups, each
padded to its own longest text, and index tables move rows between the two layouts.

Kernel libraries make a kernel for every new shape, which takes as long as running it. Sizes are therefore rounded
up: the row of tokens by at most 31 idle ones, which no text reads and no gradient reaches, and rectangles likewise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankwise.machine import segments
from rankwise.machine.lazy import lazy
from rankwise.machine.transfer import sent, sent_together

Array = npt.NDArray[Any]

TOKEN_STEP = 32
"""tokens of a batch are a multiple of this"""
LENGTH_STEP = 8
"""and so is a rectangle's side"""
TEXT_STEP = 4
"""and its texts, but for the last group's"""

# Attention scores that cost as much as starting another group (a few small operations in every layer).
GROUP_COST = 8000
# Scores of one group at most, unless a single text has more: in fp32 16 MB. glibc hands blocks beyond 32 MB back to the
# system when they are freed and faults them in anew at every step, which took half of a step of 16 long texts.
GROUP_SCORES = 4_000_000


@dataclass
class Group:
    """Texts of similar length, contiguous in the packed order.

    A linear layer's output for the group's tokens, `(tokens, parts * hidden)` with `parts` of query, key and
    value side by side, is read as rows of one head: `(tokens * parts * heads, head_width)`.
    """

    start: int
    stop: int
    """tokens of the group: [start, stop)"""
    first_text: int
    lengths: Array
    """tokens of each text. Shape: (texts,)"""
    heads: int
    device: torch.device
    _tables: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @property
    def texts(self) -> int:
        """How many texts the group has."""
        return len(self.lengths)

    @lazy
    def longest(self) -> int:
        """Tokens of the group's longest text, rounded up."""
        return _up(int(self.lengths.max()), LENGTH_STEP)

    @lazy
    def mask(self) -> Tensor:
        """0 on tokens, -inf on padding, to be added to scores. Shape: (texts, 1, 1, longest)"""
        empty = sent(torch.from_numpy(~self._filled()), self.device)[:, None, None, :]
        return torch.zeros(empty.shape, device=self.device).masked_fill_(empty, -torch.inf)

    def take(self, parts: int) -> Tensor:
        """Rows that fill the rectangle; a padded slot repeats its text's first token, the mask hides it.

        Shape: (parts * texts * heads * longest,), values are rows of (tokens * parts * heads)
        """

        def build() -> Array:
            starts = np.cumsum(self.lengths) - self.lengths
            # The token of every slot, counted from the group's start. Shape: (texts, longest)
            slots = starts[:, None] + np.where(self._filled(), np.arange(self.longest), 0)
            part = np.arange(parts)[:, None, None, None]
            head = np.arange(self.heads)[None, None, :, None]
            rows: Array = (slots[None, :, None, :] * parts + part) * self.heads + head
            return rows  # (parts, texts, heads, longest)

        return self._table("take", parts, build)

    def back(self, parts: int) -> Tensor:
        """Rows of the rectangle that hold the tokens, in packed order: the inverse of `take`.

        Shape: (tokens * parts * heads,), values are rows of (parts * texts * heads * longest)
        """

        def build() -> Array:
            shape = (parts, self.texts, self.heads, self.longest)
            by_slot: Array = np.arange(math.prod(shape)).reshape(shape).transpose(1, 3, 0, 2)
            by_token: Array = by_slot[self._filled()]  # (tokens, parts, heads)
            return by_token

        return self._table("back", parts, build)

    def _filled(self) -> Array:
        """Shape: (texts, longest)"""
        filled: Array = np.arange(self.longest) < self.lengths[:, None]
        return filled

    def _table(self, name: str, parts: int, build: Callable[[], Array]) -> Tensor:
        key = (name, parts)
        if key not in self._tables:
            rows = np.ascontiguousarray(build()).reshape(-1)
            self._tables[key] = sent(torch.from_numpy(rows), self.device)
        return self._tables[key]


@dataclass
class Packed:
    """A batch of texts, packed: the texts' tokens, then the idle ones."""

    ids: Tensor
    """Shape: (tokens,)"""
    positions: Tensor
    """Shape: (tokens,)"""
    bounds: Tensor
    """row of every text's first token, texts in packed order, and the row behind the last text. Shape: (texts + 1,)"""
    given: Tensor
    """place in the packed order of every text, texts in the order given. Shape: (texts,)"""
    order: Array
    """the same for the host, the other way round: the number given of every text in packed order. Shape: (texts,)"""
    groups: tuple[Group, ...]
    prefix: Tensor | None = None
    """cached output of the frozen layers, which the forward pass starts from. Shape: (tokens, hidden), bf16"""

    @property
    def firsts(self) -> Tensor:
        """Row of every text's first token, texts in packed order. Shape: (texts,)"""
        return self.bounds[:-1]

    @property
    def tokens(self) -> int:
        """How many tokens the batch's texts have, idle ones not counted."""
        return self.groups[-1].stop

    @property
    def longest(self) -> int:
        """Tokens of the longest text; `shortest`, of the shortest."""
        return int(self.groups[0].lengths[0])

    @property
    def shortest(self) -> int:
        """See `longest`."""
        return int(self.groups[-1].lengths[-1])

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, in packed order. Shape: (texts,)"""
        return self.bounds.diff()

    def mean(self, x: Tensor) -> Tensor:
        """The mean over every text's tokens. Shape: x (tokens, width), result (texts, width)"""
        lengths = self.lengths
        texts = torch.arange(len(lengths), device=x.device)
        owners = texts.repeat_interleave(lengths, output_size=self.tokens)
        sums = x.new_zeros(len(lengths), x.shape[1]).index_add(0, owners, x[: self.tokens])
        return sums / lengths[:, None]


def pack(
    texts: Sequence[Array],
    *,
    heads: int,
    pad_id: int | None = None,
    second_type: int | None = None,
    device: torch.device | str = "cpu",
) -> Packed:
    """Pack texts.

    texts
        Token ids of each text, special tokens included.
    pad_id
        For models that count positions from their padding id: the first position is `pad_id + 1`.
    second_type
        Rows between a position and the same of the second text of a pair; None for encoders without token types.
    """
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    marked = np.concatenate([np.asarray(texts[row]) for row in order]).astype(np.int64)
    ids = segments.ids_of(marked)
    idle = np.zeros(_up(len(ids), TOKEN_STEP) - len(ids), dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    given = np.empty_like(order)
    given[order] = np.arange(len(order))
    places = _positions(ids, starts, lengths, pad_id)
    if second_type is not None:
        places = places + segments.types_of(marked) * second_type
    cuts, device = _cuts(lengths), torch.device(device)
    if device.type == "cpu":  # elsewhere fused attention keeps no scores
        cuts = [
            piece for run in cuts for piece in _pieces(*run, most=GROUP_SCORES // (heads * int(lengths[run[0]]) ** 2))
        ]
    bounds = np.append(starts, len(ids))
    groups = tuple(
        Group(int(bounds[first]), int(bounds[last]), first, lengths[first:last], heads, device) for first, last in cuts
    )
    numbers = (np.append(ids, idle), np.append(places, idle), bounds, given)
    there, positions, bounds_there, given_there = sent_together(numbers, device)
    return Packed(there, positions, bounds_there, given_there, order, groups)


def _positions(ids: Array, starts: Array, lengths: Array, pad_id: int | None) -> Array:
    """Position ids, counted as the models do: from zero, or around the padding id, which may occur in a text.

    Shape: (tokens,)
    """
    if pad_id is None:
        places: Array = np.arange(len(ids)) - np.repeat(starts, lengths)
        return places
    real = ids != pad_id
    counted = np.cumsum(real)
    before = np.repeat(counted[starts] - real[starts], lengths)
    around: Array = (counted - before) * real + pad_id
    return around


def _cuts(lengths: Array) -> list[tuple[int, int]]:
    """Split texts sorted by falling length into runs with the least total of scores and group costs.

    best[i] is the least cost of the texts before the i-th possible cut: the classic exact dynamic programme over the
    last run's start.
    """
    places = np.append(np.arange(0, len(lengths), TEXT_STEP), len(lengths))  # where a cut may be
    squares = lengths[places[:-1]].astype(float) ** 2
    best = np.zeros(len(places))
    came_from = np.zeros(len(places), dtype=int)
    for end in range(1, len(places)):
        # A run is padded to its first, longest text.
        cost = best[:end] + (places[end] - places[:end]) * squares[:end] + GROUP_COST
        came_from[end] = int(cost.argmin())
        best[end] = cost[came_from[end]]
    cuts = []
    end = len(places) - 1
    while end > 0:
        cuts.append((int(places[came_from[end]]), int(places[end])))
        end = int(came_from[end])
    return cuts[::-1]


def _pieces(first: int, last: int, most: int) -> list[tuple[int, int]]:
    """A run of texts in as few pieces as hold `most` texts each, or one where that is none; of even sizes."""
    bounds = np.linspace(first, last, -(-(last - first) // max(1, most)) + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def _up(number: int, step: int) -> int:
    """The number rounded up to a multiple of the step."""
    return -(-number // step) * step
