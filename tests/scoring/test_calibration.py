"""Temperature, coverage and abstention on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import UserError
from rankwise.scoring import calibration
from rankwise.scoring.metrics import evaluate, log_softmax


def calibrated(rows=20_000, classes=4, seed=0):
    """Logits whose softmax is the true distribution of the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    cumulative = np.exp(log_softmax(logits)).cumsum(axis=1)
    return logits, (rng.random((rows, 1)) > cumulative[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_factor_that_spoiled_the_logits_is_found(factor):
    logits, labels = calibrated()
    fitted = calibration.fit_temperature(logits * factor, labels)
    assert fitted.value == pytest.approx(factor, rel=0.04)
    assert fitted.loss_after <= fitted.loss_before
    assert not fitted.at_bound
    names = [str(c) for c in range(4)]
    p = calibration.apply_temperature(logits * factor, fitted.value)
    mended = evaluate(p, labels, names, probabilities=True)
    assert mended.ece < 0.012
    assert mended.loss == pytest.approx(fitted.loss_after)
    assert mended.accuracy == evaluate(logits * factor, labels, names).accuracy


def test_temperature_of_several_labels():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(8000, 3)) * 2
    labels = (rng.random((8000, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    fitted = calibration.fit_temperature(logits * 3, labels)
    assert fitted.value == pytest.approx(3, rel=0.05)
    p = calibration.apply_temperature(logits * 3, fitted.value, multi_label=True)
    assert evaluate(p, labels, ["a", "b", "c"], probabilities=True).loss == pytest.approx(fitted.loss_after)


def test_rows_that_are_all_right_only_give_a_limit():
    fitted = calibration.fit_temperature(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert fitted.at_bound
    assert fitted.value == pytest.approx(calibration.COLDEST, rel=1e-3)


def test_no_rows_are_refused():
    with pytest.raises(UserError, match="validation rows"):
        calibration.fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=int))
    with pytest.raises(UserError, match="labelled rows"):
        calibration.coverage_curve(np.zeros(0), np.zeros(0, dtype=bool))


def test_coverage_by_hand_with_a_tie():
    confidence = np.array([0.6, 0.9, 0.8, 0.8])
    correct = np.array([False, True, True, False])
    curve = calibration.coverage_curve(confidence, correct)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1, 2 / 3, 0.5])
    assert curve.table(2) == [
        {"coverage": 0.25, "accuracy": 1.0, "threshold": 0.9},
        {"coverage": 1.0, "accuracy": 0.5, "threshold": 0.6},
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_coverage_says_what_keeping_rows_gives(seed, rows):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.integers(1, 8, rows) / 8, rng.random(rows) < 0.7
    curve = calibration.coverage_curve(confidence, correct)
    assert np.unique(confidence).tolist() == curve.threshold.tolist()[::-1]
    for threshold, coverage, accuracy in zip(curve.threshold, curve.coverage, curve.accuracy, strict=True):
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert accuracy == pytest.approx(correct[kept].mean())


def test_abstention_keeps_most_rows_at_the_accuracy():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, False, True, True, False])
    curve = calibration.coverage_curve(confidence, correct)
    chosen = calibration.abstention(curve, 0.75)
    assert (chosen.threshold, chosen.coverage, chosen.accuracy) == (0.6, 0.8, 0.75)
    assert list(chosen.accuracy_ci95) == [pytest.approx(0.3006418), pytest.approx(0.9544127)]
    assert calibration.abstention(curve, 0.6).coverage == 1.0
    assert calibration.abstention(calibration.coverage_curve(confidence, ~correct), 0.9) is None
