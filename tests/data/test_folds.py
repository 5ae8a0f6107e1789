"""Folds: every row held out once, classes spread evenly, and no class unknown to what scores it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.data import Rows, folds
from rankwise.errors import UserError


@given(
    labels=st.lists(st.integers(0, 6), min_size=4, max_size=80),
    count=st.integers(2, 6),
    seed=st.integers(0, 3),
)
def test_each_row_is_held_out_once_and_each_class_stays_known(labels, count, seed):
    labels = np.array(labels)
    sizes = np.bincount(labels)
    alone = sizes[labels] == 1
    if (~alone).sum() < count:
        with pytest.raises(UserError, match="whose class has another row"):
            folds.splits(labels, count, seed)
        return
    held = [out for _, out in folds.splits(labels, count, seed)]
    assert sorted(np.concatenate(held)) == np.flatnonzero(~alone).tolist()
    assert max(map(len, held)) - min(map(len, held)) <= 1
    for kept, out in folds.splits(labels, count, seed):
        assert set(labels[out]) <= set(labels[kept])
        assert not set(kept) & set(out)
        assert len(kept) + len(out) == len(labels)
    for name in np.flatnonzero(sizes > 1):  # spread evenly
        shares = [int((labels[out] == name).sum()) for out in held]
        assert max(shares) - min(shares) <= 1


def test_of_several_labels_a_row_that_alone_carries_one_is_always_trained_on():
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]], dtype=np.float32)
    fold = folds.fold_of_each(labels, 2, 0)
    assert fold[5] == folds.ALWAYS_TRAINED_ON
    assert sorted(fold[:5].tolist()) == [0, 0, 0, 1, 1] or sorted(fold[:5].tolist()) == [0, 0, 1, 1, 1]


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    labels = np.arange(60) % 3
    assert (folds.fold_of_each(labels, 5, 1) == folds.fold_of_each(labels, 5, 1)).all()
    assert (folds.fold_of_each(labels, 5, 1) != folds.fold_of_each(labels, 5, 2)).any()


def test_one_fold_is_none():
    with pytest.raises(UserError, match="expected 2 at least"):
        folds.splits(np.array([0, 0, 1, 1]), 1, 0)


def test_rows_taken_have_hashes_of_their_own():
    rows = Rows(["a", "b", "c"], np.array([0, 1, 0]), [7, 8, 9], "x", "y")
    some, others = rows.take([2, 0]), rows.take([0, 1])
    assert (some.texts, some.labels.tolist(), some.ids) == (["c", "a"], [0, 0], [9, 7])
    assert len({rows.sha256, some.sha256, others.sha256}) == 3
    assert rows.take([2, 0]).sha256 == some.sha256
