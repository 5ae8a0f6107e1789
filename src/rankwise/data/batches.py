"""The order in which training rows are met: a function of seed and epoch alone.

Nothing has to be saved to resume: ask for the epoch again and leave out the batches already done.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GROUP_BATCHES = 50


def batch_order(
    n_rows: int,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    lengths: ArrayLike | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch, shuffled; the last batch may be short.

    Args:
        n_rows: rows of the role.
        batch_size: rows of a batch on one process; all processes together take `batch_size * world_size`.
        seed: of the run.
        epoch: from 0; every epoch has its own order.
        lengths: tokens of each row (rows,). When given, rows of like length share a batch: the shuffled rows
            are sorted by length within groups of fifty batches, and the batches shuffled again.
        rank: which process asks, from 0.
        world_size: number of processes.

    Returns:
        One int64 array a batch. The arrays of all ranks, put together, are the batch that a single process
        with `batch_size * world_size` rows gets. A last batch with fewer rows than processes is left out when
        there are several: a process without rows would keep the others waiting.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(n_rows).astype(np.int64, copy=False)
    whole = batch_size * world_size
    if lengths is not None:
        order = _grouped(order, np.asarray(lengths), whole)
    batches = [order[start : start + whole] for start in range(0, n_rows, whole)]
    if lengths is not None:
        # The short batch stays last, so that the sizes of the steps don't depend on the grouping.
        last = batches.pop() if n_rows % whole else None
        batches = [batches[i] for i in generator.permutation(len(batches))] + ([] if last is None else [last])
    if world_size == 1:
        return batches
    return [np.array_split(batch, world_size)[rank] for batch in batches if len(batch) >= world_size]


def _grouped(order: NDArray[np.int64], lengths: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """The rows with each group of fifty batches sorted by falling length, ties in shuffled order."""
    group = np.arange(len(order)) // (batch * _GROUP_BATCHES)
    return order[np.lexsort((-lengths[order], group))]
