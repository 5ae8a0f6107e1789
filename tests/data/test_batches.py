"""The order of rows: every row once, the same for the same seed, the same batches on any number of processes."""

import numpy as np
import pytest

from rankwise.data.batches import batch_order


@pytest.mark.parametrize("lengths", [None, np.random.default_rng(0).integers(5, 100, 1003)], ids=["plain", "grouped"])
def test_every_row_comes_once_an_epoch(lengths):
    batches = batch_order(1003, 16, seed=1, epoch=0, lengths=lengths)
    assert [len(batch) for batch in batches] == [16] * 62 + [11]
    assert sorted(np.concatenate(batches)) == list(range(1003))


@pytest.mark.parametrize("lengths", [None, np.arange(100)], ids=["plain", "grouped"])
def test_the_order_is_a_function_of_seed_and_epoch(lengths):
    def order(seed, epoch):
        return np.concatenate(batch_order(100, 8, seed, epoch, lengths=lengths)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(1, 2) != sorted(order(1, 2))


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("grouped", [False, True])
def test_processes_together_take_the_batches_of_one(world_size, grouped):
    """75 rows in batches of 24: the last, of 3 rows, is short, and too short for four processes."""
    lengths = np.random.default_rng(0).integers(5, 100, 75) if grouped else None
    whole = batch_order(75, 24, seed=0, epoch=1, lengths=lengths)
    ranks = [
        batch_order(75, 24 // world_size, 0, 1, lengths=lengths, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    together = [np.concatenate(parts).tolist() for parts in zip(*ranks, strict=True)]
    assert together == [batch.tolist() for batch in whole if len(batch) >= world_size]
    assert all(len(batch) for batches in ranks for batch in batches)


def test_grouping_saves_padding_and_still_shuffles():
    lengths = np.random.default_rng(0).lognormal(4, 0.5, 5000).astype(int)

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    plain = batch_order(5000, 16, 0, 0)
    grouped = batch_order(5000, 16, 0, 0, lengths=lengths)
    assert padded(grouped) < 1.1 * lengths.sum() < 0.8 * padded(plain)
    means = [lengths[batch].mean() for batch in grouped]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
