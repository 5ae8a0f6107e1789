"""Intervals against published numbers, scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from rankwise.scoring.intervals import bootstrap, wilson


@pytest.mark.parametrize(
    ("successes", "total", "percent"),
    [
        (582, 640, (88.46, 92.92)),
        (585, 640, (88.98, 93.34)),
        (583, 640, (88.63, 93.06)),
        (591, 640, (90.02, 94.16)),
        (7128, 7600, (93.22, 94.31)),
        (3402, 4000, (83.91, 86.12)),
        (3427, 4000, (84.56, 86.73)),
        (3384, 4000, (83.45, 85.69)),
    ],
)
def test_wilson_gives_the_figures_worked_out_by_hand(successes, total, percent):
    assert tuple(round(100 * end, 2) for end in wilson(successes, total)) == percent


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy_and_statsmodels(case):
    successes, total = case
    scipy_interval = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    ours = wilson(successes, total)
    assert ours == pytest.approx((scipy_interval.low, scipy_interval.high), rel=1e-9, abs=1e-12)
    assert ours == pytest.approx(proportion_confint(successes, total, method="wilson"), rel=1e-9, abs=1e-12)
    assert 0 <= ours[0] <= successes / total <= ours[1] <= 1


def test_wilson_ends_exactly_at_none_and_all():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, total):
    with pytest.raises(ValueError, match="expected 0 <= successes <= total"):
        wilson(successes, total)


def test_bootstrap_of_a_share_is_near_the_exact_interval():
    low, high = bootstrap([900, 100], lambda draws: draws[:, 0] / 1000)
    exact = binomtest(900, 1000).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.002)


def test_bootstrap_equals_drawing_single_rows():
    values = np.repeat([1.0, 0.0, -1.0], [30, 50, 20])
    rng = np.random.default_rng(1)
    means = rng.choice(values, size=(20_000, 100)).mean(axis=1)
    by_cells = bootstrap([30, 50, 20], lambda draws: (draws[:, 0] - draws[:, 2]) / 100, repeats=20_000)
    assert by_cells == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.011)


def test_bootstrap_repeats_itself_and_needs_rows():
    # Many rows, so that another seed cannot land on the same two quantiles.
    counts = [70_000, 30_000]
    assert bootstrap(counts, lambda d: d[:, 0] / 1e5) == bootstrap(counts, lambda d: d[:, 0] / 1e5)
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap([0, 0], lambda d: d[:, 0] / 1)
