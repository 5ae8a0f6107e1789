"""Rows in folds: each is held out once and trained on otherwise, so that all of them are scored.

A tenth of a few hundred rows is too few to choose by: of 50 rows an accuracy of 80% is known to 11 points (95%), of 500 to
3.5 (Kohavi 1995 on how many folds).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data import labels as labelling
from rankwise.errors import UserError

FEW_ROWS = 500
"""Labelled rows below which folds say more than a tenth that is held out."""
TENTHS = 10
"""Rows a class, on average, below which a tenth that is held out does not have one of each."""
FOLDS = 5
"""Folds where nobody says how many: four fifths are trained on, and five runs fitted."""
ALWAYS_TRAINED_ON = -1


def fold_of_each(labels: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold from 0 in which each row is held out. Shape: (rows,)

    Every class, or set of classes, is spread evenly, and so are the rows. A row that alone carries some class is in no fold
    (`ALWAYS_TRAINED_ON`): held out, its class would be unknown to what scores it.

    Args:
        labels: class numbers (rows,), or zeros and ones (rows, classes).

    Raises `UserError` where fewer rows can be held out than there are folds, or folds than two.
    """
    if folds < 2:
        raise UserError(f"data.folds is {folds}: expected 2 at least, or leave it out to hold rows out once")
    strata = labelling.strata(labels)
    alone = _carries_a_class_alone(labels)
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    order = order[~alone[order]]
    if len(order) < folds:
        raise UserError(
            f"data.folds={folds} needs {folds} rows whose class has another row, and there are {len(order)}: fewer folds, "
            "or more rows"
        )
    fold = np.full(len(strata), ALWAYS_TRAINED_ON, dtype=np.int64)
    fold[order] = np.arange(len(order)) % folds
    return fold


def splits(labels: NDArray[Any], folds: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Row numbers trained on and held out, fold by fold; see `fold_of_each`."""
    fold = fold_of_each(labels, folds, seed)
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)]


def _carries_a_class_alone(labels: NDArray[Any]) -> NDArray[np.bool_]:
    if labels.ndim == 2:
        return np.asarray((labels[:, labels.sum(axis=0) == 1] > 0).any(axis=1))
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(sizes[place] == 1)
