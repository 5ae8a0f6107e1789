"""Several classifiers on one base: rows of any of them share a pass, each with its own low-rank terms and head.

The frozen products run once over all rows. For rows of adapter m, y = W x + scale B_m A_m x, DoRA's rows brought to their
magnitudes, plus m's biases. A text that all are asked about is computed once up to the lowest layer that any of them changes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.encoders import Family
from rankwise.engine.frozen import activated
from rankwise.engine.fused import Kernels, Product
from rankwise.engine.layer import Pass
from rankwise.engine.linear import Output, Sites
from rankwise.engine.model import FastClassifier, Head, PooledHead
from rankwise.engine.packing import Packed
from rankwise.engine.weights import Dense, SavedWeights


@dataclass(frozen=True)
class Update:
    """What one adapter changes of one linear layer."""

    down: Tensor | None
    """A. Shape: (rank, d_in)"""
    up: Tensor | None
    """scale B^T. Shape: (rank, d_out)"""
    gain: Tensor | None
    """DoRA's magnitude over the norm of every row of W + scale B A. Shape: (d_out,)"""
    bias: Tensor | None
    """where it is not the base's. Shape: (d_out,)"""


@dataclass(frozen=True, eq=False)
class Member:
    """One classifier beside the base: its updates by the layer's path, and its head."""

    updates: Mapping[str, Update]
    head: nn.Module
    lowest: int
    """index of the first encoder layer that it changes; one beyond the last where it changes none"""


@dataclass(frozen=True, eq=False)
class Segment:
    """The rows of a pass that are for one member."""

    member: Member
    tokens: Tensor | None
    """their places in the row of tokens; None: all of it"""
    texts: Tensor | None
    """their places in the packed order of texts"""

    def places(self, rows: int, batch: Packed) -> Tensor | None:
        """For a tensor of this many rows: of tokens or, as many as texts, of first tokens."""
        return self.texts if rows == len(batch.firsts) else self.tokens


class _Current(threading.local):
    """The pass that this thread computes."""

    batch: Packed
    segments: Sequence[Segment] = ()


class MixedSites:
    """`Sites` of the base with every row's own adapter."""

    def __init__(self, sites: Sites, current: _Current) -> None:
        self.sites, self.current = sites, current

    def __call__(self, x: Tensor, kernels: Kernels, *, activate: bool) -> Output:
        """Shape: x (rows, d_in)"""
        y = self.sites.frozen(Product(x, None, (), kernels=kernels))
        changed = {}
        for segment in self.current.segments:
            updates = [(part.columns, segment.member.updates.get(part.path)) for part in self.sites.parts]
            if any(update is not None for _, update in updates):
                places = segment.places(len(x), self.current.batch)
                changed[segment] = places
                self._add(x, y, updates, places)
        bias = self.sites.bias()
        if bias is not None:
            y += bias.to(y.dtype)
        for segment, places in changed.items():
            for part in self.sites.parts:
                update = segment.member.updates.get(part.path)
                if update is not None and update.bias is not None and part.bias is not None:
                    more = (update.bias - part.bias).to(y.dtype).expand(len(y) if places is None else len(places), -1)
                    _add_rows(y, part.columns, places, more)
        if not activate:
            return Output(y, None, x)
        y, kept = activated(y, kernels, keep=False)
        return Output(y, kept, x)

    def _add(self, x: Tensor, y: Tensor, updates: Sequence[tuple[slice, Update | None]], places: Tensor | None) -> None:
        """Every part's low-rank term on some rows, and DoRA's gain; in place on y, which has no bias yet."""
        own = x if places is None else x.index_select(0, places)
        for columns, update in updates:
            if update is None or update.down is None or update.up is None:
                continue
            term = (own @ update.down.t()) @ update.up
            if update.gain is None:
                _add_rows(y, columns, places, term)
                continue
            before = y[:, columns] if places is None else y[:, columns].index_select(0, places)
            _add_rows(y, columns, places, (before + term) * update.gain - before)


def _add_rows(y: Tensor, columns: slice, places: Tensor | None, term: Tensor) -> None:
    if places is None:
        y[:, columns] += term
    else:
        y[:, columns].index_add_(0, places, term)


class ManyClassifier(nn.Module):
    """One base and any number of members, which may come and go between passes.

    Several threads may ask it at once.
    """

    def __init__(self, trunk: FastClassifier) -> None:
        """trunk: the base with nothing on its layers; its own head is not asked."""
        super().__init__()
        self.trunk = trunk
        self._current = _Current()
        for module in trunk.modules():
            if isinstance(module, Sites):
                module.mixed = MixedSites(module, self._current)

    def member(self, weights: SavedWeights) -> Member:
        """A classifier on this base, from its weights."""
        trunk, family = self.trunk, self.trunk.family
        parts = [part for module in trunk.modules() if isinstance(module, Sites) for part in module.parts]
        updates = {}
        for part in parts:
            update = self._update(weights.dense(part.path), part.bias)
            if update is not None:
                updates[part.path] = update
        pooled = isinstance(trunk.classifier, PooledHead)
        head = (PooledHead if pooled else Head)(weights, family, trunk.sizes).eval().to(self.device)
        return Member(updates, head, min((_layer_number(family, path) for path in updates), default=len(trunk.layers)))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.trunk.embeddings.words.device

    def _update(self, dense: Dense, base_bias: Tensor | None) -> Update | None:
        bias = None if dense.bias is None else dense.bias.detach().float()
        if bias is not None and base_bias is not None and torch.equal(bias, base_bias.detach().float().to(bias.device)):
            bias = None
        adapter = dense.adapter
        if adapter is None or adapter.A is None or adapter.B is None:
            return None if bias is None else Update(None, None, None, bias.to(self.device))
        A, up = adapter.A.float(), adapter.scale * adapter.B.float().t()
        gain = None
        if adapter.magnitude is not None:
            merged = dense.weight.detach().float() + up.t() @ A
            gain = (adapter.magnitude.float() / merged.square().sum(1).sqrt()).to(self.device, self.trunk.precision)
        low, device = self.trunk.precision, self.device
        return Update(
            A.to(device, low), up.to(device, low).contiguous(), gain, None if bias is None else bias.to(device)
        )

    @torch.inference_mode()
    def mixed(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of texts, each by its own member, in one pass; fp32. Shape of each: (classes,)

        texts
            Token ids with their special tokens. Shape of each: (tokens,)
        """
        batch = self.trunk.collate(texts)
        shared = self._begin(batch, members)
        x, low = self.trunk._embed(batch, shared)
        x, low = self.trunk._through(self.trunk.layers, x, low, shared)
        return self._heads(x, batch, shared)

    @torch.inference_mode()
    def every(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of all texts by every member, fp32. Shape of each: (texts, classes), one a member"""
        trunk, count = self.trunk, len(texts)
        lowest = min((member.lowest for member in members), default=0)
        below = min(lowest, len(trunk.layers) - 1)
        batch = trunk.collate(texts)
        shared = self._begin(batch, [])
        x, low = trunk._through(trunk.layers[:below], *trunk._embed(batch, shared), shared)
        rows = self.trunk.collate([text for _ in members for text in texts])
        shared = self._begin(rows, [member for member in members for _ in texts])
        again = _again(batch, rows, count).to(x.device)
        x, low = trunk._through(trunk.layers[below:], x.index_select(0, again), low.index_select(0, again), shared)
        logits = self._heads(x, rows, shared)
        return [np.stack(logits[start : start + count]) for start in range(0, len(logits), count or 1)]

    def _begin(self, batch: Packed, members: Sequence[Member]) -> Pass:
        self._current.batch = batch
        self._current.segments = _segments(batch, members)
        return self.trunk._begin(batch, dropout=False)

    def _heads(self, x: Tensor, batch: Packed, shared: Pass) -> list[np.ndarray]:
        """Every text's logits by its member's head, in the order given. Shape of each: (classes,)"""
        read = self.trunk._read(x, batch)
        packed: list[Any] = [None] * len(batch.firsts)
        for segment in self._current.segments:
            own = read if segment.texts is None else read.index_select(0, segment.texts)
            places = range(len(packed)) if segment.texts is None else segment.texts.tolist()
            for place, logits in zip(places, segment.member.head(own, shared).float().cpu().numpy(), strict=True):
                packed[place] = logits
        self._current.segments = ()
        return [packed[place] for place in batch.given.tolist()]


def _segments(batch: Packed, members: Sequence[Member]) -> list[Segment]:
    """The rows of every member that a batch has texts for."""
    if not members:
        return []
    first = members[0]
    if all(member is first for member in members):
        return [Segment(first, None, None)]
    distinct = {id(member): member for member in members}
    numbers = {key: number for number, key in enumerate(distinct)}
    of_text = np.empty(len(members), np.int64)
    of_text[batch.given.cpu().numpy()] = [numbers[id(member)] for member in members]
    of_token = np.repeat(of_text, _lengths(batch))
    device = batch.ids.device
    return [
        Segment(
            member,
            torch.from_numpy(np.flatnonzero(of_token == number)).to(device),
            torch.from_numpy(np.flatnonzero(of_text == number)).to(device),
        )
        for number, member in enumerate(distinct.values())
    ]


def _lengths(batch: Packed) -> np.ndarray:
    """Tokens of each text in the packed order. Shape: (texts,)"""
    return np.concatenate([group.lengths for group in batch.groups])


def _again(batch: Packed, rows: Packed, count: int) -> Tensor:
    """For every token of `rows`, which has the texts of `batch` several times over, its place in `batch`. Shape: (tokens,)"""
    lengths = _lengths(batch)
    starts = np.cumsum(lengths) - lengths
    place = batch.given.cpu().numpy()
    text_of = np.empty(len(rows.firsts), np.int64)
    text_of[rows.given.cpu().numpy()] = np.arange(len(rows.firsts)) % count
    tokens = [np.arange(starts[place[text]], starts[place[text]] + lengths[place[text]]) for text in text_of]
    idle = np.zeros(len(rows.ids) - sum(map(len, tokens)), np.int64)
    return torch.from_numpy(np.concatenate([*tokens, idle]))


def _layer_number(family: Family, path: str) -> int:
    """The index of the encoder layer that a module is in."""
    before = family.layer.partition("{}")[0]
    number = path.removeprefix(before).partition(".")[0]
    return int(number) if path.startswith(before) and number.isdigit() else 0
