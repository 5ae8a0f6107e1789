"""Texts that repeat, exactly or nearly, within train and between roles.

Two texts are exact duplicates when their words are the same (case, spacing and punctuation aside), and near
duplicates when the sets of their three-word shingles have a Jaccard similarity of at least `NEAR`: in a text
of forty words, two changed words. Candidates come from MinHash (Broder 1997) with banding (Leskovec,
Rajaraman, Ullman, Mining of Massive Datasets, 3.4) and are verified on the shingles themselves, so what is
reported is true; a pair at the threshold is missed once in eighty.

Our own arrays rather than a library: `datasketch` keeps Python objects for every row and band, gigabytes at a
million rows, and takes about three times as long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.scripts import WORD

NEAR = 0.7
"""Jaccard similarity of three-word shingles from which two texts count as nearly the same."""

VERSION = 3
"""of what is counted: raised with every change to it, so that stored counts are of this code"""

_BANDS, _ROWS_PER_BAND = 16, 4
_SHINGLE = 3
_CHUNK_TEXTS = 8192
_EXAMPLES = 3
_WORD = re.compile(WORD)

Role = tuple[Sequence[str], Sequence[Any], NDArray[Any]]
"""Texts, ids and labels of a role."""


@dataclass(frozen=True)
class Example:
    """Two rows that repeat each other."""

    ids: tuple[int | str, int | str]
    similarity: float
    texts: tuple[str, str]


@dataclass(frozen=True)
class Overlap:
    """Rows of the second role that repeat a row of the first; within one role, that repeat an earlier one.

    Attributes:
        exact, near: rows with an exact duplicate; further rows with a near one.
        conflicts: those among them whose duplicate carries another label.
    """

    roles: tuple[str, str]
    rows: int
    exact: int
    near: int
    conflicts: int
    examples: tuple[Example, ...]

    def sentence(self) -> str:
        """What was found, with an example."""
        first, second = self.roles
        where = "of train repeat an earlier one" if first == second else f"of {second} repeat one of {first}"
        conflicts = f"; {self.conflicts:,} with another label" if self.conflicts else ""
        example = self.examples[0]
        return (
            f"{self.exact + self.near:,} of {self.rows:,} rows {where} "
            f"({self.exact:,} exactly, {self.near:,} nearly{conflicts}), "
            f"for example {example.ids[0]} and {example.ids[1]}"
        )

    def to_dict(self, *, excerpts: bool = True) -> dict[str, Any]:
        """Plain values for JSON, with or without the beginnings of the examples' texts."""
        tree = asdict(self)
        for example in () if excerpts else tree["examples"]:
            del example["texts"]
        return tree


def audit(roles: Mapping[str, Role]) -> list[Overlap]:
    """The overlap within train and between every two roles."""
    vocabulary: dict[str, int] = {}
    sketches = {role: _sketch(texts, vocabulary) for role, (texts, _, _) in roles.items()}
    pairs = [(a, b) for a, b in combinations_with_replacement(roles, 2) if a != b or a == "train"]
    return [_overlap((a, b), roles[a], roles[b], sketches[a], sketches[b]) for a, b in pairs]


def first_of_each(texts: Sequence[str]) -> NDArray[np.int64]:
    """Row numbers of texts that are not an exact duplicate of an earlier one. Shape: (rows kept,)"""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(" ".join(_words(text)), row)
    return np.fromiter(first.values(), np.int64, len(first))


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the shingles of two texts."""
    first, second = _shingle_set(a), _shingle_set(b)
    return len(first & second) / len(first | second)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower()) or list(text.strip())


def _shingle_set(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}


# --- sketches -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sketch:
    """Keys of each text: of its words, int64 (texts,), and of its bands, uint64 (bands, texts)."""

    exact: NDArray[np.int64]
    bands: NDArray[np.uint64]


def _sketch(texts: Sequence[str], vocabulary: dict[str, int]) -> _Sketch:
    exact = np.empty(len(texts), dtype=np.int64)
    bands = np.empty((_BANDS, len(texts)), dtype=np.uint64)
    for start in range(0, len(texts), _CHUNK_TEXTS):
        ids: list[int] = []
        lengths: list[int] = []
        for row in range(start, min(start + _CHUNK_TEXTS, len(texts))):
            words = _words(texts[row])
            exact[row] = hash(" ".join(words))
            ids.extend([vocabulary.setdefault(word, len(vocabulary) + 1) for word in words])
            padding = max(0, _SHINGLE - len(words))
            ids.extend([0] * padding)
            lengths.append(len(words) + padding)
        bands[:, start : start + len(lengths)] = _band_keys(np.array(ids, dtype=np.uint64), np.array(lengths))
    return _Sketch(exact, bands)


def _band_keys(words: NDArray[np.uint64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Band keys (bands, texts) of texts laid end to end; each has at least a shingle's worth of words."""
    hashed = _mix(words)
    shingles = hashed[: len(hashed) - _SHINGLE + 1].copy()
    for k in range(1, _SHINGLE):
        shingles = _mix(shingles) + hashed[k : len(hashed) - _SHINGLE + 1 + k]
    # A text's last two positions begin shingles that run into the next text.
    keep = np.ones(len(words), dtype=bool)
    ends = np.cumsum(lengths)
    for k in range(1, _SHINGLE):
        keep[ends - k] = False
    shingles = _mix(shingles[keep[: len(shingles)]])
    starts = np.concatenate([[0], np.cumsum(lengths - _SHINGLE + 1)[:-1]])
    factors = np.random.default_rng(0).integers(1, 2**63, size=(_BANDS, _ROWS_PER_BAND), dtype=np.uint64) * 2 + 1
    keys = np.zeros((_BANDS, len(lengths)), dtype=np.uint64)
    for band in range(_BANDS):
        for factor in factors[band]:
            keys[band] = _mix(keys[band]) + np.minimum.reduceat(shingles * factor, starts)
    return keys


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit integers (the finaliser of splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return scattered


# --- overlaps -----------------------------------------------------------------------------------------


def _overlap(names: tuple[str, str], a: Role, b: Role, sketch_a: _Sketch, sketch_b: _Sketch) -> Overlap:
    (texts_a, ids_a, labels_a), (texts_b, ids_b, labels_b) = a, b
    twins = _twins(texts_a, texts_b, sketch_a, sketch_b, names[0] == names[1])
    exact = sum(is_exact for _, _, is_exact in twins.values())
    # Near duplicates are the ones worth a look, and the least alike say most about where the line is.
    shown = sorted(twins, key=lambda row: (twins[row][1], row))[:_EXAMPLES]
    return Overlap(
        roles=names,
        rows=len(texts_b),
        exact=exact,
        near=len(twins) - exact,
        conflicts=sum(not np.array_equal(labels_b[row], labels_a[twin[0]]) for row, twin in twins.items()),
        examples=tuple(
            Example(
                ids=(_plain(ids_a[other]), _plain(ids_b[row])),
                similarity=round(score, 3),
                texts=(_excerpt(texts_a[other]), _excerpt(texts_b[row])),
            )
            for row, (other, score, _) in ((row, twins[row]) for row in shown)
        ),
    )


def _twins(
    texts_a: Sequence[str], texts_b: Sequence[str], a: _Sketch, b: _Sketch, within: bool
) -> dict[int, tuple[int, float, bool]]:
    """For each row of b that repeats a row of a: that row, their similarity, and whether it is an exact one."""
    if not texts_a:
        return {}
    rows, others = _matches(a.exact, b.exact, within)
    twins = {row: (other, 1.0, True) for row, other in zip(rows.tolist(), others.tolist(), strict=True)}
    for row, other in _candidates(a, b, within):
        if row not in twins and (score := similarity(texts_a[other], texts_b[row])) >= NEAR:
            twins[row] = (other, score, False)
    return twins


def _matches(
    keys_a: NDArray[Any], keys_b: NDArray[Any], within: bool, last: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of b, and of a the first (or last) row with the same key; within one role, an earlier row only."""
    order = np.argsort(keys_a, kind="stable")
    ordered = keys_a[order]
    place = np.searchsorted(ordered, keys_b, side="right" if last else "left") - last
    place = np.clip(place, 0, len(ordered) - 1)
    found = ordered[place] == keys_b
    if within:
        found &= order[place] < np.arange(len(keys_b))
    rows = np.flatnonzero(found)
    return rows, order[place[rows]]


def _candidates(a: _Sketch, b: _Sketch, within: bool) -> list[tuple[int, int]]:
    """Pairs (row of b, row of a) that share a band: at most two a row and band, to keep templates cheap."""
    n = len(a.exact)
    codes = [np.empty(0, dtype=np.int64)]
    for keys_a, keys_b in zip(a.bands, b.bands, strict=True):
        for last in (False, True):
            rows, others = _matches(keys_a, keys_b, within, last)
            codes.append(rows * n + others)
        codes = [np.unique(np.concatenate(codes))]
    return [divmod(code, n) for code in codes[0].tolist()]


def _plain(identifier: Any) -> int | str:
    return identifier if isinstance(identifier, (int, str)) else str(identifier)


def _excerpt(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
