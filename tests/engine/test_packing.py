"""How a batch is cut into groups."""

from __future__ import annotations

import numpy as np
import pytest

from rankwise.engine.packing import GROUP_SCORES, Packed, pack


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
