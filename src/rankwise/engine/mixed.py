"""Classifiers beside their base, whose rows are whose, and how torch computes them: on GPUs, and in families that the kernels do
not know.

There rows are sorted by classifier from before a product to behind it, so that each one's low-rank terms are two products of a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.engine.changes import Change
from rankwise.engine.fused import ACTIVATIONS
from rankwise.engine.linear import Output, Sites
from rankwise.engine.native.several import Changes, Owners
from rankwise.engine.packing import Packed
from rankwise.machine.lazy import lazy


@dataclass(frozen=True)
class Update:
    """What one adapter changes of one linear layer, in the precision of products."""

    down: Tensor | None
    """A. Shape: (rank, d_in)"""
    up: Tensor | None
    """scale B^T. Shape: (rank, d_out)"""
    gain: Tensor | None
    """DoRA's magnitude over the norm of every row of W + scale B A, or IA3's scaling. Shape: (d_out,)"""
    bias: Tensor | None
    """where it is not the base's. Shape: (d_out,)"""
    inlet: Tensor | None = None
    """IA3's scaling of the input, less one. Shape: (d_in,)"""

    @staticmethod
    def of(change: Change, low: torch.dtype, device: torch.device) -> Update:
        """low: the precision of products"""
        gain, inlet = change.outlet, None if change.inlet is None else change.inlet - 1
        adapter, A, up = change.adapter, None, None
        if adapter is not None and adapter.A is not None and adapter.B is not None:
            A, up = adapter.A.float(), adapter.scale * adapter.B.float().t()
            if adapter.magnitude is not None:
                merged = change.frozen.detach().float() + up.t() @ A
                gain = adapter.magnitude.float() / merged.square().sum(1).sqrt()
            A, up = A.to(device, low), up.to(device, low).contiguous()
        gain = None if gain is None else gain.to(device, low)
        bias, inlet = (None if one is None else one.to(device) for one in (change.bias, inlet))
        return Update(A, up, gain, bias, inlet)


@dataclass(frozen=True, eq=False)
class Member:
    """One classifier beside its base: its head, and its changes as what computes takes them."""

    head: nn.Module
    lowest: int
    """index of the first encoder layer that it changes, -1 for the embeddings; one beyond the last where it changes none"""
    norms: Mapping[str, Tensor]
    """by the norm's path, how far its bias is from the base's. Shape of each: (hidden,)"""
    native: Changes | None = None
    """for a backend's kernels"""
    updates: Mapping[str, Update] = field(default_factory=dict)
    """by the linear layer's path, for torch"""


@dataclass(frozen=True)
class Spread:
    """Where the rows of each classifier are, in a tensor sorted by classifier.

    order, inverse
        From the batch's order to the sorted one, and back; None where all rows are one classifier's.
    spans
        The number of each classifier that has rows, and its rows in the sorted order.
    """

    order: Tensor | None
    inverse: Tensor | None
    spans: Sequence[tuple[int, slice]]

    @staticmethod
    def of(numbers: np.ndarray, device: torch.device) -> Spread:
        """numbers: of each row's classifier, negative where it is nobody's. Shape: (rows,)"""
        distinct, counts = np.unique(numbers, return_counts=True)
        if len(distinct) == 1:
            return Spread(None, None, [(int(distinct[0]), slice(None))])
        order = np.argsort(numbers, kind="stable")
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        stops = np.cumsum(counts).tolist()
        spans = [(int(n), slice(a, b)) for n, a, b in zip(distinct, [0, *stops], stops, strict=False)]
        return Spread(torch.from_numpy(order).to(device), torch.from_numpy(inverse).to(device), spans)

    def sorted(self, x: Tensor) -> Tensor:
        """Rows by classifier. Shape: (rows, width)"""
        return x if self.order is None else x.index_select(0, self.order)

    def back(self, x: Tensor) -> Tensor:
        """Rows in the batch's order. Shape: (rows, width)"""
        return x if self.inverse is None else x.index_select(0, self.inverse)


class Rows:
    """Whose the rows of one pass are."""

    def __init__(self, batch: Packed, members: Sequence[Member]) -> None:
        """members: a classifier for each text, in the order given; none where all rows are the base's alone"""
        self.batch = batch
        distinct = {id(member): member for member in members}
        self.members = list(distinct.values())
        """those that have rows, by number"""
        numbers = {key: number for number, key in enumerate(distinct)}
        self.of_text = np.full(len(batch.firsts), -1)
        """the number of each text's, texts in packed order. Shape: (texts,)"""
        if members:
            self.of_text[batch.given.cpu().numpy()] = [numbers[id(member)] for member in members]

    @lazy
    def counts(self) -> np.ndarray:
        """Tokens of each text, and the idle ones. Shape: (texts + 1,)"""
        lengths = [group.lengths for group in self.batch.groups]
        return np.concatenate([*lengths, [len(self.batch.ids) - self.batch.tokens]])

    @lazy
    def owners(self) -> tuple[Owners, Owners] | None:
        """Those of tokens and of texts, as a backend's kernels take them; None where all are the base's alone."""
        if not self.members:
            return None
        changes = [self.members[number].native for number in self.of_text]
        return Owners([*changes, None], self.counts), Owners(changes, np.ones_like(self.of_text))

    @lazy
    def texts(self) -> Spread:
        """Of rows as many as texts."""
        return Spread.of(self.of_text, self.batch.ids.device)

    @lazy
    def tokens(self) -> Spread:
        """Of rows as many as tokens."""
        return Spread.of(np.repeat(np.append(self.of_text, -1), self.counts), self.batch.ids.device)

    def spread(self, x: Tensor) -> tuple[Spread, Tensor]:
        """Of a tensor's rows, and those of it that are somebody's: behind tokens may lie distances, which are nobody's.

        Where texts and tokens are as many, they are the same rows.
        """
        if len(x) == len(self.batch.firsts):
            return self.texts, x
        return self.tokens, x[: len(self.batch.ids)]

    def own(self, of: Callable[[Member], Tensor | None], like: Tensor) -> Tensor | None:
        """A vector of each row's classifier, nothing where it has none; None where nobody has. Shape: `like`, (rows, width)"""
        spread, _ = self.spread(like)
        vectors: Tensor | None = None
        for number, rows in spread.spans:
            value = None if number < 0 else of(self.members[number])
            if value is not None:
                vectors = torch.zeros_like(like) if vectors is None else vectors
                vectors[rows] = value.to(like.dtype)
        return None if vectors is None else spread.back(vectors)

    def linear(self, sites: Sites, x: Tensor, *, activate: bool) -> Output:
        """`Sites` of the base with every row's own adapter. Shape: x (rows, d_in)"""
        given = x
        if len(sites.parts) == 1:
            inlet = self.own(lambda member: getattr(member.updates.get(sites.parts[0].path), "inlet", None), x)
            x = x if inlet is None else x + x * inlet
        spread, mine = self.spread(x)
        todo = [
            (place, part, update)
            for number, place in spread.spans
            for part in sites.parts
            if number >= 0 and (update := self.members[number].updates.get(part.path)) is not None
        ]
        if not todo:
            return Output(sites.frozen(x, sites.bias(), sites.activation if activate else None), None, given)
        # By classifier from before the product on, whose rows may be in any order.
        others = x[len(mine) :]
        x = spread.sorted(mine)
        y = sites.frozen(torch.cat([x, others]) if len(others) else x, sites.bias())
        for place, part, update in todo:
            _add(update, part.bias, x[place], y[place, part.columns])
        y = torch.cat([spread.back(y[: len(mine)]), y[len(mine) :]]) if len(others) else spread.back(y)
        return Output(ACTIVATIONS[sites.activation][0](y) if activate else y, None, given)

    def normed(self, path: str, x: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """The results of the base's norm at a path with every row's own bias. Shape: (rows, hidden)"""
        more = self.own(lambda member: member.norms.get(path), x)
        if more is None:
            return x, low
        x = x + more
        return x, x.to(low.dtype)


def _add(update: Update, base_bias: Tensor | None, x: Tensor, y: Tensor) -> None:
    """Bring W x + b to g (W x + scale B A x) + b' of an adapter, in place, rounded as seldom as may be.

    Shape: x (rows, d_in), y (rows, d_out), base_bias (d_out,)
    """
    if update.down is not None and update.up is not None:
        y.addmm_(x @ update.down.t(), update.up)
    if update.gain is None:
        if update.bias is not None and base_bias is not None:
            y += (update.bias - base_bias).to(y.dtype)
        return
    y *= update.gain
    bias = base_bias if update.bias is None else update.bias
    if bias is not None and base_bias is not None:
        y += (bias - base_bias * update.gain).to(y.dtype)
