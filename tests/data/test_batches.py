"""The order of rows: every row once, and the same for the same seed and epoch."""

import numpy as np
import pytest

from rankwise.data.batches import batch_order, micro_batches


def test_every_row_comes_once_an_epoch():
    batches = batch_order(1003, 16, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [16] * 62 + [11]
    assert sorted(np.concatenate(batches)) == list(range(1003))


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(batch_order(100, 8, seed, epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(1, 2) != sorted(order(1, 2))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [48, 35, 3], ids="{} rows".format)
def test_processes_together_take_every_row_of_a_step_once(world_size, rows):
    step = np.random.default_rng(0).permutation(1000)[:rows]
    for batch_size in (12, 16):
        shares = [micro_batches(step, batch_size, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate([piece for share in shares for piece in share])) == sorted(step)
        assert all(0 < len(piece) <= -(-batch_size // world_size) for share in shares for piece in share)


@pytest.mark.parametrize(("rows", "world_size"), [(16, 3), (16, 5), (12, 3), (7, 4)])
def test_a_batch_is_one_pass_on_every_process(rows, world_size):
    passes = [len(micro_batches(np.arange(rows), rows, rank, world_size)) for rank in range(world_size)]
    assert passes == [1] * world_size
