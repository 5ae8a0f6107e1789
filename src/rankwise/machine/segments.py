"""How the ids of a pair's tokens carry which of its two texts they belong to: in bits above any vocabulary.

They so pass through token files, batches and caches as the ids they are.
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


def ids_of(marked: NDArray[Any]) -> NDArray[Any]:
    """Token ids without marks."""
    return marked & _IDS


def types_of(marked: NDArray[Any]) -> NDArray[Any]:
    """Token types, 0 or 1."""
    return (marked & SECOND) // SECOND


def cut(marked: NDArray[np.int32], most: int, behind: int) -> NDArray[np.int32]:
    """The first tokens of a text, its closing special tokens kept; of a pair the longer text gives way first.

    Args:
        most: tokens that are left.
        behind: special tokens that close a text.
    """
    if len(marked) <= most:
        return marked
    boundaries = np.flatnonzero(marked & BOUNDARY)
    closing = marked[len(marked) - behind :]
    if len(boundaries) == 0:
        return np.concatenate([marked[: most - behind], closing]) if behind else marked[:most]
    start = int(boundaries[0])
    closes = ids_of(marked[:start]) == ids_of(marked[-1:])
    gap = start if closes.all() else int(np.argmin(closes[::-1]))
    first, second = _lengths(start - gap - 1, len(marked) - behind - start, most - behind - gap - 1)
    parts = [marked[: first + 1], marked[start - gap : start], marked[start : start + second], closing]
    return np.concatenate(parts)


def _lengths(first: int, second: int, most: int) -> tuple[int, int]:
    """What is left of two texts' tokens: the longer gives way until both are as long, as `tokenizers` does it."""
    short = min(first, second)
    long = max(short, most - short)
    if short + long > most:
        short, long = most // 2, most - most // 2
    return (short, long) if first <= second else (long, short)
