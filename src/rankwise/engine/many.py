"""Several classifiers on one base: rows of any of them share a pass, each with its own low-rank terms and head.

The frozen products run once over all rows. For rows of adapter m, y = W x + scale B_m A_m x, DoRA's rows brought to their
magnitudes, IA3's inputs or outputs multiplied, plus m's biases, those of norms too. A text that all are asked about is computed once up to the lowest layer that any of them changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.encoders import Family
from rankwise.engine.frozen import activated
from rankwise.engine.fused import Kernels, Product
from rankwise.engine.layer import Norm, Pass
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
    """DoRA's magnitude over the norm of every row of W + scale B A, or IA3's scaling. Shape: (d_out,)"""
    bias: Tensor | None
    """where it is not the base's. Shape: (d_out,)"""
    inlet: Tensor | None = None
    """IA3's scaling of the input, less one. Shape: (d_in,)"""


@dataclass(frozen=True, eq=False)
class Member:
    """One classifier beside the base: its updates by the layer's path, its norms' and its head.

    norms
        By the norm's path, how far its bias is from the base's. Shape of each: (hidden,)
    """

    updates: Mapping[str, Update]
    norms: Mapping[str, Tensor]
    head: nn.Module
    lowest: int
    """index of the first encoder layer that it changes, -1 for the embeddings; one beyond the last where it changes none"""


@dataclass(frozen=True)
class Spread:
    """Where the rows of each member are, in a tensor sorted by member.

    order, inverse
        From the batch's order to the sorted one, and back; None where all rows are one member's.
    spans
        Rows of each member in the sorted order.
    """

    order: Tensor | None
    inverse: Tensor | None
    spans: Sequence[tuple[Member, slice]]

    def sorted(self, x: Tensor) -> Tensor:
        """Rows by member. Shape: (rows, width)"""
        return x if self.order is None else x.index_select(0, self.order)

    def back(self, x: Tensor) -> Tensor:
        """Rows in the batch's order. Shape: (rows, width)"""
        return x if self.inverse is None else x.index_select(0, self.inverse)

    def own(self, of: Callable[[Member], Tensor | None], like: Tensor) -> Tensor | None:
        """A vector of each row's member, nothing where it has none; None where nobody has. Shape: `like`, (rows, width)"""
        found = [(rows, value) for member, rows in self.spans if (value := of(member)) is not None]
        if not found:
            return None
        vectors = torch.zeros_like(like)
        for rows, value in found:
            vectors[rows] = value.to(like.dtype)
        return self.back(vectors)


class _Current(threading.local):
    """The pass that this thread computes: rows of tokens, and rows as many as texts."""

    tokens: Spread = Spread(None, None, ())
    texts: Spread = Spread(None, None, ())
    text_count: int = 0
    token_count: int = 0

    def spread(self, x: Tensor) -> tuple[Spread, Tensor]:
        """Of a tensor's rows, and those of it that are somebody's: behind tokens may lie distances, which are nobody's.

        Where texts and tokens are as many, they are the same rows.
        """
        if len(x) == self.text_count:
            return self.texts, x
        return self.tokens, x[: self.token_count]


class MixedSites:
    """`Sites` of the base with every row's own adapter."""

    def __init__(self, sites: Sites, current: _Current) -> None:
        self.sites, self.current = sites, current

    def __call__(self, x: Tensor, kernels: Kernels, *, activate: bool) -> Output:
        """Shape: x (rows, d_in)"""
        given = x
        if len(self.sites.parts) == 1:
            path = self.sites.parts[0].path
            inlet = self.current.spread(x)[0].own(lambda member: _inlet(member, path), x)
            x = x if inlet is None else x + x * inlet
        spread, mine = self.current.spread(x)
        todo = [
            (rows, part, update)
            for member, rows in spread.spans
            for part in self.sites.parts
            if (update := member.updates.get(part.path)) is not None
        ]
        work = Product(x, self.sites.bias(), (), kernels=kernels)
        if not todo:
            return Output(*self._frozen(work, activate=activate), given)
        # By member from before the product on, whose rows may be in any order.
        others = x[len(mine) :]
        x = spread.sorted(mine)
        y = self.sites.frozen(work._replace(x=torch.cat([x, others]) if len(others) else x))
        for rows, part, update in todo:
            _add(update, part.bias, x[rows], y[rows, part.columns])
        y = torch.cat([spread.back(y[: len(mine)]), y[len(mine) :]]) if len(others) else spread.back(y)
        return Output(*(activated(y, kernels, keep=False) if activate else (y, None)), given)

    def _frozen(self, work: Product, *, activate: bool) -> tuple[Tensor, Tensor | None]:
        """What the base says. Shape: (rows, d_out)"""
        return self.sites.frozen.activated(work, keep=False) if activate else (self.sites.frozen(work), None)


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


def _inlet(member: Member, path: str) -> Tensor | None:
    update = member.updates.get(path)
    return None if update is None else update.inlet


class MixedNorm:
    """What brings the results of the base's norm to every row's own bias."""

    def __init__(self, path: str, current: _Current) -> None:
        self.path, self.current = path, current

    def __call__(self, x: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: (rows, hidden), in fp32 and in the precision of products"""
        more = self.current.spread(x)[0].own(lambda member: member.norms.get(self.path), x)
        if more is None:
            return x, low
        x = x + more
        return x, x.to(low.dtype)


class ManyClassifier(nn.Module):
    """One base and any number of members, which may come and go between passes.

    Several threads may ask it at once.
    """

    def __init__(self, trunk: FastClassifier) -> None:
        """trunk: the base with nothing on its layers; its own head is not asked."""
        super().__init__()
        self.trunk = trunk
        self._current = _Current()
        self._norms: dict[str, Tensor] = {}
        """biases of the base's norms by path"""
        for module in trunk.modules():
            if isinstance(module, Sites):
                module.mixed = MixedSites(module, self._current)
        for index, layer in enumerate(trunk.layers):
            self._take_norms(trunk.family.layer.format(index), layer)
        bias = trunk.embeddings.norm_bias
        start = f"{trunk.family.prefix}.{trunk.family.embedding_norm}"
        if bias is not None and trunk.embeddings.projection is None:
            self._norms[start] = bias
        self._start = MixedNorm(start, self._current)

    def _take_norms(self, path: str, layer: nn.Module) -> None:
        """Watch the two norms of a layer, where they are such as have biases of their own."""
        family = self.trunk.family
        for name, module in ((family.attention_norm, "attention_norm"), (family.ffn_norm, "ffn_norm")):
            norm = getattr(layer, module, None)
            if isinstance(norm, Norm):
                self._norms[f"{path}.{name}"] = norm.bias
                norm.mixed = MixedNorm(f"{path}.{name}", self._current)

    def member(self, weights: SavedWeights) -> Member:
        """A classifier on this base, from its weights."""
        trunk, family = self.trunk, self.trunk.family
        parts = [part for module in trunk.modules() if isinstance(module, Sites) for part in module.parts]
        updates = {}
        for part in parts:
            update = self._update(weights.dense(part.path), part.bias, weights.scaling(part.path))
            if update is not None:
                updates[part.path] = update
        norms = {
            path: apart for path, bias in self._norms.items() if (apart := _apart(weights, path, bias)) is not None
        }
        pooled = isinstance(trunk.classifier, PooledHead)
        head = (PooledHead if pooled else Head)(weights, family, trunk.sizes).eval().to(self.device)
        changed = [_layer_number(family, path) for path in (*updates, *norms)]
        return Member(updates, norms, head, min(changed, default=len(trunk.layers)))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.trunk.embeddings.words.device

    def _update(self, dense: Dense, base_bias: Tensor | None, scaling: Tensor | None) -> Update | None:
        bias = None if dense.bias is None else dense.bias.detach().float()
        if bias is not None and base_bias is not None and torch.equal(bias, base_bias.detach().float().to(bias.device)):
            bias = None
        adapter = dense.adapter
        if scaling is not None:
            return self._scaled(scaling, dense.bias)
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

    def _scaled(self, scaling: Tensor, bias: Tensor | None) -> Update:
        """IA3: (W x + b) l, or W (x l) + b. Shape: scaling (d_out, 1) or (1, d_in)"""
        vector = scaling.flatten().to(self.device)
        if scaling.shape[0] == 1:
            return Update(None, None, None, None, inlet=vector - 1)
        bias = None if bias is None else bias.detach().float().to(self.device) * vector
        return Update(None, None, vector.to(self.trunk.precision), bias)

    @torch.inference_mode()
    def mixed(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of texts, each by its own member, in one pass; fp32. Shape of each: (classes,)

        texts
            Token ids with their special tokens. Shape of each: (tokens,)
        """
        batch = self.trunk.collate(texts)
        shared = self._begin(batch, members)
        x, low = self._start(*self.trunk._embed(batch, shared))
        x, low = self.trunk._through(self.trunk.layers, x, low, shared)
        return self._heads(x, batch, shared)

    @torch.inference_mode()
    def every(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of all texts by every member, fp32. Shape of each: (texts, classes), one a member"""
        trunk, count = self.trunk, len(texts)
        lowest = min((member.lowest for member in members), default=0)
        below = max(0, min(lowest, len(trunk.layers) - 1))
        batch = trunk.collate(texts)
        shared = self._begin(batch, [])
        x, low = trunk._through(trunk.layers[:below], *trunk._embed(batch, shared), shared)
        rows = self.trunk.collate([text for _ in members for text in texts])
        shared = self._begin(rows, [member for member in members for _ in texts])
        again = _again(batch, rows, count).to(x.device)
        x, low = x.index_select(0, again), low.index_select(0, again)
        if lowest < 0:
            x, low = self._start(x, low)
        x, low = trunk._through(trunk.layers[below:], x, low, shared)
        logits = self._heads(x, rows, shared)
        return [np.stack(logits[start : start + count]) for start in range(0, len(logits), count or 1)]

    def _begin(self, batch: Packed, members: Sequence[Member]) -> Pass:
        self._current.text_count, self._current.token_count = len(batch.firsts), len(batch.ids)
        self._current.tokens, self._current.texts = _spread(batch, members)
        return self.trunk._begin(batch, dropout=False)

    def _heads(self, x: Tensor, batch: Packed, shared: Pass) -> list[np.ndarray]:
        """Every text's logits by its member's head, in the order given. Shape of each: (classes,)"""
        texts = self._current.texts
        read = texts.sorted(self.trunk._read(x, batch))
        by_member = [
            row for member, rows in texts.spans for row in member.head(read[rows], shared).float().cpu().numpy()
        ]
        packed = by_member if texts.inverse is None else [by_member[place] for place in texts.inverse.tolist()]
        self._current.tokens = self._current.texts = Spread(None, None, ())
        return [packed[place] for place in batch.given.tolist()]


def _spread(batch: Packed, members: Sequence[Member]) -> tuple[Spread, Spread]:
    """The rows of every member: of the tokens, and of the texts, members in the order the texts were given."""
    distinct = {id(member): member for member in members}
    if len(distinct) < 2:
        spans = [(member, slice(None)) for member in distinct.values()]
        return Spread(None, None, spans), Spread(None, None, spans)
    numbers = {key: number for number, key in enumerate(distinct)}
    of_text = np.empty(len(members), np.int64)
    of_text[batch.given.cpu().numpy()] = [numbers[id(member)] for member in members]
    idle = np.full(len(batch.ids) - batch.tokens, len(distinct))  # beyond every member
    of_token = np.concatenate([np.repeat(of_text, _lengths(batch)), idle])
    found = [_sorted_by(of, list(distinct.values()), batch.ids.device) for of in (of_token, of_text)]
    return found[0], found[1]


def _sorted_by(numbers: np.ndarray, members: Sequence[Member], device: torch.device) -> Spread:
    """numbers: of each row's member. Shape: (rows,)"""
    order = np.argsort(numbers, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    stops = np.cumsum(np.bincount(numbers, minlength=len(members))).tolist()
    spans = [(member, slice(start, stop)) for member, start, stop in zip(members, [0, *stops], stops, strict=False)]
    return Spread(torch.from_numpy(order).to(device), torch.from_numpy(inverse).to(device), spans)


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


def _apart(weights: SavedWeights, path: str, base_bias: Tensor) -> Tensor | None:
    """How far a norm's bias is from the base's, None where it is the same. Shape: (hidden,)"""
    bias = weights.optional(f"{path}.bias")
    if bias is None:
        return None
    apart = bias.detach().float().to(base_bias.device) - base_bias.detach().float()
    return apart if bool(apart.any()) else None


def _layer_number(family: Family, path: str) -> int:
    """The index of the encoder layer that a module is in, -1 for the embeddings."""
    before = family.layer.partition("{}")[0]
    number = path.removeprefix(before).partition(".")[0]
    if path == f"{family.prefix}.{family.embedding_norm}":
        return -1
    return int(number) if path.startswith(before) and number.isdigit() else 0
