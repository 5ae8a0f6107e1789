"""Intervals that say how far a measured share can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

# The 97.5th percentile of the standard normal distribution.
_Z95 = 1.959963984540054


def wilson(successes: int, total: int) -> Interval:
    """The 95% score interval of a proportion (Wilson 1927), both ends in 0..1.

    Unlike the normal approximation it stays inside 0..1 and holds its level near 0, near 1 and for few rows.

    Raises: ValueError: `total` is not above zero or `successes` is outside 0..total.
    """
    if total <= 0 or not 0 <= successes <= total:
        raise ValueError(f"expected 0 <= successes <= total and total > 0, got {successes} of {total}")
    share = successes / total
    z2 = _Z95 * _Z95
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    # At the ends the bound is exactly 0 or 1; rounding must not leave 1e-19 or 1.0000000000000002 there.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return low, high


def bootstrap(
    counts: Sequence[int] | NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    *,
    repeats: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The 95% percentile interval of a statistic when rows are drawn again with replacement.

    Rows that count alike are kept as one cell: drawing n rows with replacement is a multinomial draw over the
    cells, so the cost depends on the number of cells and not on the number of rows.

    Args:
        counts: rows of each cell. Shape: (cells,)
        statistic: maps drawn counts, shape (repeats, cells), to one value a draw, shape (repeats,).

    Raises: ValueError: there are no rows.
    """
    cells = np.asarray(counts, dtype=np.int64)
    rows = int(cells.sum())
    if rows == 0:
        raise ValueError("a bootstrap needs at least one row")
    draws: NDArray[Any] = np.random.default_rng(seed).multinomial(rows, cells / rows, size=repeats)
    low, high = np.quantile(statistic(draws), [0.025, 0.975])
    return float(low), float(high)
