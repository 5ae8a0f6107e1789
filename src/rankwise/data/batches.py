"""The order in which training rows are met: a function of seed and epoch alone.

Nothing has to be saved to resume: ask for the epoch again and leave out the batches already done.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUP_ROWS = 4
"""rows of a class that meet in a batch of the contrastive objective"""


def batch_order(n_rows: int, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch, over all processes, shuffled; the last may be short. Shape of each: (rows,)"""
    order = np.random.default_rng((seed, epoch)).permutation(n_rows).astype(np.int64, copy=False)
    return [order[start : start + batch_size] for start in range(0, n_rows, batch_size)]


def grouped_order(labels: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch, where rows of a class come in groups: pairs of one class are there even if
    classes are many. Of few classes it is `batch_order`, nearly.

    Shape: labels (rows,), each batch (rows,)
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(labels)).astype(np.int64, copy=False)
    by_class = order[np.argsort(labels[order], kind="stable")]
    ends = np.flatnonzero(np.diff(labels[by_class])) + 1
    groups = [
        group[start : start + GROUP_ROWS]
        for group in np.split(by_class, ends)
        for start in range(0, len(group), GROUP_ROWS)
    ]
    mixed = np.concatenate([groups[place] for place in generator.permutation(len(groups))])
    return [mixed[start : start + batch_size] for start in range(0, len(mixed), batch_size)]


def micro_batches(rows: NDArray[np.int64], batch_size: int, rank: int, world_size: int) -> list[NDArray[np.int64]]:
    """One process's share of a step's rows, cut into forward passes; none when a short step has no row for it.

    rows, batch_size
        Of an optimizer step and of a forward pass, over all processes. Shape of rows, and of each pass: (rows,)
    """
    own = rows[rank::world_size]
    size = -(-batch_size // world_size)  # as large as the largest share, so that nobody has a pass more
    return [own[start : start + size] for start in range(0, len(own), size)]
