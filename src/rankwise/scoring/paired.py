"""Two or more models on the same rows: exact tests, corrected for how many were made.

Models scored on the same rows err on many of the same rows. Only the rows on which exactly one of two is
right say which is better, so a paired test finds smaller differences than two separate intervals do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.scoring.intervals import Interval, bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ALPHA = 0.05
"""the chance of even one false rejection that a family of tests may have"""
_DRAWS = 500


@dataclass(frozen=True)
class Pair:
    """Model b against model a on the same rows; every difference is b minus a.

    `points` are percentage points of accuracy and `points_ci95` their bootstrap interval; `p` is McNemar's
    exact probability, `p_holm` the same corrected for the family of tests it was made in.
    """

    a: str
    b: str
    rows: int
    only_a: int
    only_b: int
    effect_rows: int
    points: float
    points_ci95: Interval
    p: float
    p_holm: float


def mcnemar(only_a: ArrayLike, only_b: ArrayLike) -> Floats:
    """Exact two-sided McNemar test (McNemar 1947; the binomial form).

    Under the null hypothesis a row that only one model has right is as likely to be either's.

    Args:
        only_a: rows that only the first model has right; a number or an array.
        only_b: rows that only the second has right, of the same shape.

    Returns:
        The probability of a split at least this uneven, of the shape given; 1 where the models never differ.
    """
    from scipy.special import bdtr

    a, b = np.asarray(only_a, dtype=np.int64), np.asarray(only_b, dtype=np.int64)
    # Halves are equally likely, so both tails weigh the same; at a tie they overlap, hence the cap.
    p: Floats = np.minimum(1.0, 2.0 * bdtr(np.minimum(a, b).astype(np.float64), a + b, 0.5))
    return p


def bootstrap_difference(only_a: int, only_b: int, rows: int, *, seed: int = 0) -> Interval:
    """95% paired bootstrap interval of accuracy(b) - accuracy(a), as shares.

    Rows are drawn again with replacement, both models' answers staying together.
    """
    cells = [only_a, only_b, rows - only_a - only_b]
    return bootstrap(cells, lambda drawn: (drawn[:, 1] - drawn[:, 0]) / rows, seed=seed)


def holm(p: ArrayLike) -> Floats:
    """Probabilities corrected for the number of tests made together (Holm 1979). Shape: (tests,) -> (tests,)

    Rejecting those below ALPHA keeps the chance of even one false rejection below it.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * steps))
    return adjusted


def compare_all(correct: Bools, names: Sequence[str]) -> list[Pair]:
    """Every pair of models, Holm-corrected over all pairs.

    Args:
        correct: which rows each model has right. Shape: (models, rows)
        names: the models' names.
    """
    only = _only(correct)
    rows = correct.shape[1]
    places = list(combinations(range(len(names)), 2))
    p = np.array([float(mcnemar(only[i, j], only[j, i])) for i, j in places])
    corrected = holm(p)
    return [
        Pair(
            a=names[i],
            b=names[j],
            rows=rows,
            only_a=int(only[i, j]),
            only_b=int(only[j, i]),
            effect_rows=int(only[j, i] - only[i, j]),
            points=100 * float(only[j, i] - only[i, j]) / rows,
            points_ci95=_points(bootstrap_difference(int(only[i, j]), int(only[j, i]), rows)),
            p=float(p[k]),
            p_holm=float(corrected[k]),
        )
        for k, (i, j) in enumerate(places)
    ]


def best_group(correct: Bools, *, best: int | None = None) -> list[int]:
    """The models whose accuracy is not distinguishable from the best one's, best first.

    The best is named by the same rows, so any model could have been it: the family corrected for is every
    pair. The best against the rest alone would find differences among equal models more often than ALPHA.

    Args:
        correct: which rows each model has right. Shape: (models, rows)
        best: the model compared with, where something else chose it; the most accurate one otherwise.

    Returns:
        Indices of models, the best one first, then by accuracy (ties: the earlier one first).
    """
    only = _only(correct)
    upper = np.triu_indices(len(correct), k=1)
    return _not_apart(correct.sum(axis=1), mcnemar(only[upper], only.T[upper]), best)


def best_group_by(value: ArrayLike, redrawn: ArrayLike, *, best: int) -> list[int]:
    """`best_group` by any score, through its bootstrap over rows: a pair's difference against its own spread.

    Args:
        value: each model's score, the higher the better. Shape: (models,)
        redrawn: the same on rows drawn again, the same rows for every model. Shape: (models, draws)
        best: the model compared with.
    """
    from scipy.special import ndtr

    scores, draws = np.asarray(value, dtype=np.float64), np.asarray(redrawn, dtype=np.float64)
    i, j = np.triu_indices(len(scores), k=1)
    apart, spread = np.abs(scores[i] - scores[j]), (draws[i] - draws[j]).std(axis=1)
    ratio = np.divide(apart, spread, out=np.where(apart > 0, np.inf, 0.0), where=spread > 0)
    return _not_apart(scores, 2.0 * ndtr(-ratio), best)


def rows_drawn_again(rows: int) -> Floats:
    """How often every row is drawn, in every draw of a bootstrap. Shape: (draws, rows)"""
    return np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=_DRAWS).astype(np.float64)


def _not_apart(scores: NDArray[Any], p: Floats, best: int | None) -> list[int]:
    """The models that no test of a family tells apart from the best.

    p: of every pair, in the order of the upper triangle.
    """
    order = [int(place) for place in np.argsort(-scores, kind="stable")]
    first = order[0] if best is None else best
    corrected = np.ones((len(scores), len(scores)))
    corrected[np.triu_indices(len(scores), k=1)] = holm(p)
    corrected = np.minimum(corrected, corrected.T)
    return [first, *(i for i in order if i != first and corrected[first, i] > ALPHA)]


def agreement(predicted: NDArray[Any]) -> Floats:
    """Share of rows on which two models predict the same.

    Shape: (models, rows) or, with several labels a row, (models, rows, classes) -> (models, models)
    """
    models = len(predicted)
    shares = np.ones((models, models))
    for i, j in combinations(range(models), 2):
        same = predicted[i] == predicted[j]
        shares[i, j] = shares[j, i] = (same if same.ndim == 1 else same.all(axis=-1)).mean()
    return shares


def _only(correct: Bools) -> Ints:
    """Rows that model i has right and model j wrong. Shape: (models, rows) -> (models, models)"""
    # float64 goes through the fast matrix product and counts exactly up to 2**53 rows.
    right = correct.astype(np.float64)
    only: Ints = (right @ (1.0 - right).T).astype(np.int64)
    return only


def _points(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]
