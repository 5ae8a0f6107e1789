"""Paired tests against hand-worked cases, scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from rankwise.scoring import paired

counts = st.integers(0, 3000)
# The others' binomial tails reach 0 before float64 does (10 against 1,065 is 2.7e-300).
_UNDERFLOW = 1e-200


@given(counts, counts)
@settings(max_examples=60, deadline=None)
def test_mcnemar_agrees_with_scipy_and_statsmodels(only_a, only_b):
    ours = float(paired.mcnemar(only_a, only_b))
    table = [[50, only_a], [only_b, 20]]
    assert ours == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-8, abs=_UNDERFLOW)
    if only_a + only_b:
        assert ours == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-8, abs=_UNDERFLOW)


def test_mcnemar_by_hand():
    # 1 against 5: 2 * (1 + 6) / 2**6.
    assert paired.mcnemar([1, 5, 0, 3], [5, 1, 0, 3]).tolist() == pytest.approx([14 / 64, 14 / 64, 1, 1])


# Few examples: multipletests collects garbage at each call.
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=15, deadline=None)
def test_holm_agrees_with_statsmodels(p):
    np.testing.assert_allclose(paired.holm(p), multipletests(p, method="holm")[1], atol=1e-15)


def test_holm_by_hand():
    # .01*3, .04*1 and .03*2, each at least the one before: .06 holds the .04 up.
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_bootstrap_difference_covers_what_redrawing_rows_covers():
    rng = np.random.default_rng(0)
    difference = np.repeat([-1, 1, 0], [20, 50, 430])
    redrawn = rng.choice(difference, size=(10_000, 500)).mean(axis=1)
    low, high = paired.bootstrap_difference(20, 50, 500)
    assert (low, high) == pytest.approx(np.quantile(redrawn, [0.025, 0.975]), abs=0.0025)
    assert low < 0.06 < high


def rows_right(*wrong, rows=400):
    """One line a model, right everywhere but on the rows named."""
    correct = np.ones((len(wrong), rows), dtype=bool)
    for line, where in zip(correct, wrong, strict=True):
        line[list(where)] = False
    return correct


def test_pairs_count_rows_and_points():
    correct = rows_right(range(30), range(20, 32), range(30))
    pairs = paired.compare_all(correct, ["a", "b", "c"])
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    first = pairs[0]
    assert (first.only_a, first.only_b, first.effect_rows, first.points) == (2, 20, 18, 4.5)
    assert first.points_ci95[0] > 0
    p = [binomtest(2, 22).pvalue, 1.0, binomtest(2, 22).pvalue]
    assert [pair.p for pair in pairs] == pytest.approx(p)
    assert [pair.p_holm for pair in pairs] == pytest.approx(multipletests(p, method="holm")[1])
    assert pairs[2].effect_rows == -18


def test_best_group_leaves_out_only_what_is_worse():
    correct = rows_right(range(80), range(10, 30), range(12, 30), range(60, 200))
    assert paired.best_group(correct) == [2, 1]


def test_best_group_of_one_and_of_equals():
    assert paired.best_group(rows_right([1, 2])) == [0]
    assert paired.best_group(rows_right([1], [1], [2])) == [0, 1, 2]


def test_best_group_rarely_splits_equal_models():
    # The best of 12 equal models beats the worst by chance; testing it alone against the rest would be wrong
    # far more often than 5% (about one time in five here).
    rng = np.random.default_rng(5)
    whole = [len(paired.best_group(rng.random((12, 600)) < 0.9)) == 12 for _ in range(200)]
    assert np.mean(whole) > 0.94


def test_best_group_handles_a_search():
    correct = np.random.default_rng(0).random((200, 2000)) < np.linspace(0.7, 0.95, 200)[:, None]
    group = paired.best_group(correct)
    assert 1 < len(group) < 100
    assert min(group) > 100


def test_agreement_of_classes_and_of_label_sets():
    predicted = np.array([[0, 1, 2, 2], [0, 1, 1, 1], [0, 1, 2, 2]])
    assert paired.agreement(predicted).tolist() == [[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]]
    several = np.array([[[1, 0], [1, 1]], [[1, 1], [1, 1]]])
    assert paired.agreement(several).tolist() == [[1, 0.5], [0.5, 1]]


def test_the_group_is_the_chosen_ones_and_has_it_first():
    right = np.zeros((3, 400), dtype=bool)
    right[0, :200], right[1, 5:200], right[2, :380] = True, True, True
    assert paired.best_group(right) == [2]
    assert paired.best_group(right, best=1) == [1, 0]


def test_a_group_by_another_score_follows_that_score():
    draws = np.random.default_rng(0).normal(size=(1, 500)) + np.random.default_rng(1).normal(scale=0.01, size=(3, 500))
    assert paired.best_group_by([0.80, 0.81, 0.60], draws, best=1) == [1, 0]
    assert paired.best_group_by([0.80, 0.80, 0.60], np.repeat(draws[:1], 3, axis=0), best=0) == [0, 1]
