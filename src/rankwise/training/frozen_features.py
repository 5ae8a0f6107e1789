"""Frozen features once a machine: what the head's projection receives, kept on disk for the other trials of a search."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from rankwise import files
from rankwise.deadline import NEVER, Deadline
from rankwise.machine import caches

LARGEST = 64 * 2**20
"""bytes of one file; more features are computed each time"""
_AT_ONCE = 256
"""texts between two looks at the clock, or a batch of them"""


def shared(
    compute: Callable[[Sequence[np.ndarray]], Tensor],
    texts: Sequence[np.ndarray],
    batch_size: int,
    weights: str,
    way: str | None = None,
    deadline: Deadline = NEVER,
) -> Tensor:
    """The features of texts, from the user's cache where another run has made them there.

    They are found by the texts' token ids, by the base's weights, and by what `compute` makes of the first text, to the
    bit: adapters that change nothing yet share them, and another precision or another head does not. Of processes that
    want the same, the first computes.

    compute
        Token ids of texts to features. Shape: (texts, features)
    batch_size
        How many texts are computed at once, which changes rounding.
    weights
        `weights_identity` of the base.
    way
        The arithmetic and what the head reads, where these and the weights say it all; the first text is not asked then.
    deadline
        After which no more are computed: those of the first texts then, a few at least.

    Returns. Shape: (texts, features)
    """
    if way is None:
        first = compute(texts[:1])
        way = f"{first.dtype} {tuple(first.shape)} {hashlib.sha256(first.numpy().tobytes()).hexdigest()}"
    path = _place(texts, batch_size, weights, way)
    with FileLock(path.with_suffix(".lock")):
        found = _read(path)
        if found is None:
            found = _in_time(compute, texts, max(_AT_ONCE, batch_size), deadline)
            if 4 * found.numel() > LARGEST:
                return found
            path = _place(texts[: len(found)], batch_size, weights, way)
            with caches.optional(), files.replacing(path) as file:
                np.save(file, found.numpy(), allow_pickle=False)
        else:
            caches.used(path)
    return found


def _in_time(
    compute: Callable[[Sequence[np.ndarray]], Tensor], texts: Sequence[np.ndarray], at_once: int, deadline: Deadline
) -> Tensor:
    found = [compute(texts[:at_once])]
    for start in range(at_once, len(texts), at_once):
        if deadline.has_passed:
            break
        found.append(compute(texts[start : start + at_once]))
    return torch.cat(found)


def known(texts: Sequence[np.ndarray], batch_size: int, weights: str, way: str) -> Tensor | None:
    """What `shared` has of some texts already; None where that is nothing. Shape: (texts, features)"""
    return _read(_place(texts, batch_size, weights, way))


def _place(texts: Sequence[np.ndarray], batch_size: int, weights: str, way: str) -> Path:
    return caches.cache("features") / f"{_digest(way, texts, f'by {batch_size} {weights}')}.npy"


def _digest(way: str, texts: Sequence[np.ndarray], base: str) -> str:
    digest = hashlib.sha256(f"{way} {len(texts)} {base}\n".encode())
    for text in texts:
        digest.update(b"%d:" % len(text) + text.tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> Tensor | None:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):  # absent, or cut short by a failing disk
        return None
