"""What is kept of a text too long, and how the ids of a pair's tokens carry which of its two texts they belong to: in bits
above any vocabulary. They so pass through token files, batches and caches as the ids they are.

Of rankwise it imports nothing: an export that must cut texts at both ends takes this file with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SECOND = 1 << 24
"""on every token that the tokenizer gives the second token type"""
BOUNDARY = 1 << 25
"""on the first token of the second text, whatever its type, or where it is empty on what closes it"""
_IDS = SECOND - 1
HEAD, HEAD_AND_TAIL = "head", "head_and_tail"
"""of a text too long: its first tokens, or half its first and half its last (Sun et al. 2019, section 5.3.1, keep both ends). Halves,
since nothing says beforehand which end decides, and any other split leaves one of them less."""


def ids_of(marked: NDArray[Any]) -> NDArray[Any]:
    """Token ids without marks."""
    return marked & _IDS


def types_of(marked: NDArray[Any]) -> NDArray[Any]:
    """Token types, 0 or 1."""
    return (marked & SECOND) // SECOND


def marks_of(encoding: Any, behind: int) -> NDArray[np.int32]:
    """The ids of a pair as `tokenizers` encodes it, with the marks of its second text; of an empty one the boundary is what closes
    it. Shape: (tokens,)

    Args:
        behind: special tokens that close a text.
    """
    ids = np.array(encoding.ids, dtype=np.int32) | np.array(encoding.type_ids, dtype=np.int32) * SECOND
    closing = len(ids) - behind
    second = next((place for place, owner in enumerate(encoding.sequence_ids) if owner == 1), closing)
    if second < len(ids):
        ids[second] |= BOUNDARY
    return ids


def cut(marked: NDArray[np.int32], most: int, behind: int, truncation: str = HEAD) -> NDArray[np.int32]:
    """A text of so many tokens at most, its special tokens kept; of a pair the longer text gives way first.

    Args:
        most: tokens that are left.
        behind: special tokens that close a text.
        truncation: HEAD, or HEAD_AND_TAIL, of a pair in each text that is cut; an odd token is one of the first.
    """
    return _shortened(marked, most, behind, tails=truncation == HEAD_AND_TAIL)


def storable(marked: NDArray[np.int32], most: int, behind: int) -> NDArray[np.int32]:
    """What every `cut` to so many tokens or fewer makes the same of as of the text itself: the first tokens that either way of
    cutting keeps, and the last ones. At most half as many again are left.
    """
    return _shortened(marked, most, behind, tails=True, whole_heads=True)


def _shortened(
    marked: NDArray[np.int32], most: int, behind: int, *, tails: bool, whole_heads: bool = False
) -> NDArray[np.int32]:
    """whole_heads: whether tails stand behind all first tokens that heads alone would have, not in place of the last of those."""
    if len(marked) <= most:
        return marked
    boundaries = np.flatnonzero(marked & BOUNDARY)
    body, closing = np.split(marked, [len(marked) - behind])
    if len(boundaries) == 0:
        # Special tokens count as the end that they stand at.
        tail = max(0, most // 2 - behind) if tails else 0
        return np.concatenate([*_ends(body, most - behind + whole_heads * tail, tail), closing])
    start = int(boundaries[0])
    closes = ids_of(marked[:start]) == ids_of(marked[-1:])
    gap = start if closes.all() else int(np.argmin(closes[::-1]))
    opening, first, between, second = np.split(body, [1, start - gap, start])
    pieces = []
    for text, kept in zip((first, second), _lengths(len(first), len(second), most - behind - gap - 1), strict=True):
        tail = kept // 2 if tails else 0
        # A first text that is longer stays so, which a shorter cut gives the odd token by.
        longer = text is first and len(first) > len(second)
        pieces.append(_ends(text, kept + whole_heads * (tail + longer), tail))
    return np.concatenate([opening, *pieces[0], between, *pieces[1], closing])


def _ends(text: NDArray[np.int32], kept: int, tail: int) -> tuple[NDArray[np.int32], ...]:
    """So many tokens of a text, of them so many of its last."""
    return (text,) if len(text) <= kept else (text[: kept - tail], text[len(text) - tail :])


def _lengths(first: int, second: int, most: int) -> tuple[int, int]:
    """What is left of two texts' tokens: the longer gives way until both are as long, as `tokenizers` does it."""
    short = min(first, second)
    long = max(short, most - short)
    if short + long > most:
        short, long = most // 2, most - most // 2
    return (short, long) if first <= second else (long, short)
