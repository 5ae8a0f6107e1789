"""How a batch is cut into groups, and what becomes of the memory of large ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from rankwise.engine.packing import GROUP_SCORES, Packed, pack
from rankwise.engine.weights import keep_freed_memory


def packed(lengths: list[int], heads: int = 12) -> Packed:
    return pack([np.arange(1, length + 1) for length in lengths], heads=heads)


@pytest.mark.parametrize("lengths", [[512] * 16, [512, 510, 450, 449, 300, 120, 31, 30] * 3, [3000, 2500]])
def test_the_scores_of_a_group_are_few_or_of_one_text(lengths):
    batch = packed(lengths)
    assert sum(group.texts for group in batch.groups) == len(lengths)
    for group in batch.groups:
        # A side is rounded up, by at most seven tokens, after the groups are made.
        assert group.texts == 1 or group.texts * 12 * (group.longest - 7) ** 2 <= GROUP_SCORES
    ends = [group.stop for group in batch.groups]
    assert [group.start for group in batch.groups] == [0, *ends[:-1]]
    assert ends[-1] == sum(lengths)


def test_short_texts_stay_in_few_groups():
    assert len(packed([20, 21, 22, 23] * 4).groups) == 1
    assert len(packed([64] * 32).groups) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is told on Linux alone")
def test_memory_of_any_size_is_there_for_the_next_step():
    import resource

    keep_freed_memory()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24).add_(1.0)  # 64 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000  # of 16,384 pages
