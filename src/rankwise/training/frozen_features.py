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
from rankwise.machine import caches

LARGEST = 64 * 2**20
"""bytes of one file; more features are computed each time"""


def shared(
    compute: Callable[[Sequence[np.ndarray]], Tensor], texts: Sequence[np.ndarray], way: str, weights: str
) -> Tensor:
    """The features of texts, from the user's cache where another run has made them there.

    They are found by the texts' token ids, by the base's weights, and by what `compute` makes of the first text, to the
    bit: adapters that change nothing yet share them, and another precision or another head does not. Of processes that
    want the same, the first computes.

    compute
        Token ids of texts to features. Shape: (texts, features)
    way
        Whatever else changes rounding, such as how many texts are computed at once.
    weights
        `weights_identity` of the base.

    Returns. Shape: (texts, features)
    """
    first = compute(texts[:1])
    if 4 * first.shape[1] * len(texts) > LARGEST:
        return compute(texts)
    path = caches.cache("features") / f"{_digest(first, texts, f'{way} {weights}')}.npy"
    with FileLock(path.with_suffix(".lock")):
        found = _read(path)
        if found is None:
            found = compute(texts)
            with caches.optional(), files.replacing(path) as file:
                np.save(file, found.numpy(), allow_pickle=False)
        else:
            caches.used(path)
    return found


def _digest(first: Tensor, texts: Sequence[np.ndarray], way: str) -> str:
    digest = hashlib.sha256(
        f"{way} {len(texts)} {first.dtype} {tuple(first.shape)}\n".encode() + first.numpy().tobytes()
    )
    for text in texts:
        digest.update(b"%d:" % len(text) + text.tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> Tensor | None:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):  # absent, or cut short by a failing disk
        return None
