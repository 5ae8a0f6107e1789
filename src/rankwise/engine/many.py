"""Several classifiers on one base: rows of any of them share a pass, each with its own low-rank terms and head.

The frozen products run once over all rows. For rows of adapter m, y = W x + scale B_m A_m x, DoRA's rows brought to their
magnitudes, IA3's inputs or outputs multiplied, plus m's biases, those of norms too. A text that all are asked about is computed
once up to the lowest layer that any of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.encoders import Family
from rankwise.engine.changes import changes_of
from rankwise.engine.mixed import Member, Rows, Update
from rankwise.engine.model import FastClassifier, Head
from rankwise.engine.native.several import Changes, numbered
from rankwise.engine.weights import SavedWeights


class ManyClassifier(nn.Module):
    """One base and any number of members, which may come and go between passes.

    Several threads may ask it at once.
    """

    def __init__(self, trunk: FastClassifier) -> None:
        """trunk: the base with nothing on its layers; its own head is not asked."""
        super().__init__()
        self.trunk = trunk
        self._sites, self._norms = numbered(trunk.modules())
        self._biases = {norm.path: norm.bias for norm in self._norms}
        """of norms that have biases of their own, by path, the embeddings' among them"""
        self._start, bias = f"{trunk.family.prefix}.{trunk.family.embedding_norm}", trunk.embeddings.norm_bias
        if bias is not None and trunk.embeddings.projection is None:
            self._biases[self._start] = bias

    def member(self, weights: SavedWeights) -> Member:
        """A classifier on this base, from its weights."""
        trunk, family, device = self.trunk, self.trunk.family, self.trunk.embeddings.words.device
        changes = changes_of(weights, (part for sites in self._sites for part in sites.parts))
        norms = {
            path: apart for path, bias in self._biases.items() if (apart := _apart(weights, path, bias)) is not None
        }
        head = Head(weights, family, trunk.sizes).eval().to(device)
        lowest = min((_layer_number(family, path) for path in (*changes, *norms)), default=len(trunk.layers))
        if trunk.backend is None:
            updates = {path: Update.of(change, trunk.precision, device) for path, change in changes.items()}
            return Member(head, lowest, norms, updates=updates)
        biases = {norm: norm.bias + norms[norm.path] for norm in self._norms if norm.path in norms}
        native = Changes(trunk.backend, self._sites, self._norms, changes, biases)
        return Member(head, lowest, norms, native=native)

    @torch.inference_mode()
    def mixed(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of texts, each by its own member, in one pass; fp32. Shape of each: (classes,)

        texts
            Token ids with their special tokens. Shape of each: (tokens,)
        """
        # Texts of one member and one length lie side by side: their rows are then one product's.
        order = sorted(range(len(texts)), key=lambda row: id(members[row]))
        rows = Rows(self.trunk.collate([texts[row] for row in order]), [members[row] for row in order])
        answers = dict(zip(order, self._heads(self._run(self.trunk.layers, rows)[0], rows), strict=True))
        return [answers[row] for row in range(len(texts))]

    @torch.inference_mode()
    def every(self, texts: Sequence[np.ndarray], members: Sequence[Member]) -> list[np.ndarray]:
        """The logits of all texts by every member, fp32. Shape of each: (texts, classes), one a member"""
        layers, count = self.trunk.layers, len(texts)
        lowest = min(member.lowest for member in members)
        below = max(0, min(lowest, len(layers) - 1))
        shared = Rows(self.trunk.collate(texts), [])
        x, low = self._run(layers[:below], shared)
        rows = Rows(self.trunk.collate([text for _ in members for text in texts]), [m for m in members for _ in texts])
        again = _again(shared, rows, count).to(x.device)
        wide = x.index_select(0, again)
        x, _ = self._run(layers[below:], rows, (wide, wide if low is x else low.index_select(0, again)))
        logits = self._heads(x, rows)
        return [np.stack(logits[start : start + count]) for start in range(0, len(logits), count)]

    def _run(
        self, layers: Iterable[nn.Module], rows: Rows, both: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Through some layers. Shape of all: (rows, hidden)

        both
            The residual stream in fp32 and in the precision of products; by default as the embeddings begin it.
        """
        trunk, batch = self.trunk, rows.batch
        shared = replace(trunk._begin(batch, dropout=False), mixed=rows)
        x, low = both or trunk.embeddings(batch, shared)
        return trunk._through(layers, rows.normed(self._start, x, low), shared)

    def _heads(self, x: Tensor, rows: Rows) -> list[np.ndarray]:
        """Every text's logits by its member's head, in the order given. Shape of each: (classes,)"""
        batch, texts = rows.batch, rows.texts
        shared = self.trunk._begin(batch, dropout=False)
        read = texts.sorted(self.trunk._read(x, batch))
        by_member = [
            row for n, place in texts.spans for row in rows.members[n].head(read[place], shared).float().cpu().numpy()
        ]
        packed = by_member if texts.inverse is None else [by_member[place] for place in texts.inverse.tolist()]
        return [packed[place] for place in batch.given.tolist()]


def _again(shared: Rows, rows: Rows, count: int) -> Tensor:
    """For every token of `rows`, which has the texts of `shared` several times over, its place there. Shape: (tokens,)"""
    lengths = shared.counts[:-1]
    starts = np.cumsum(lengths) - lengths
    place = shared.batch.given.cpu().numpy()
    text_of = np.empty(len(rows.of_text), np.int64)
    text_of[rows.batch.given.cpu().numpy()] = np.arange(len(text_of)) % count
    tokens = [np.arange(starts[place[text]], starts[place[text]] + lengths[place[text]]) for text in text_of]
    return torch.from_numpy(np.concatenate([*tokens, np.zeros(rows.counts[-1], np.int64)]))


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
