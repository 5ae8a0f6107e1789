"""Metrics against hand-worked cases, scikit-learn and torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rankwise.errors import UserError
from rankwise.scoring.metrics import Streaming, evaluate

NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def scored_rows(draw):
    """Logits (rows, classes) and labels (rows,), with classes that may never be labelled or predicted."""
    classes = draw(st.integers(2, 5))
    rows = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.1, 2.0, 30.0]))
    logits = rng.normal(size=(rows, classes)) * spread
    return logits.astype(np.float32), rng.integers(0, draw(st.integers(1, classes)), rows)


@st.composite
def multi_label_rows(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 100)), draw(st.integers(2, 5)))
    return rng.normal(size=shape) * 3, (rng.random(shape) < 0.4).astype(np.float32)


def leaves(tree):
    """All numbers of a nested result, in order; None stays."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def test_hand_worked_case():
    # Four rows of two classes; probabilities chosen so that each figure can be done on paper.
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    result = evaluate(p, np.array([0, 0, 1, 1]), ["no", "yes"], probabilities=True)
    assert result.examples == 4
    assert result.accuracy == 0.75
    assert result.confusion == [[2, 0], [1, 1]]
    assert result.loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4) + np.log(0.7)) / 4)
    assert result.brier == pytest.approx((2 * 0.01 + 2 * 0.04 + 2 * 0.36 + 2 * 0.09) / 4)
    # Each confidence has a bin of its own: gaps .1, .2, .6, .3.
    assert result.ece == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    assert result.per_class["no"].precision == pytest.approx(2 / 3)
    assert result.per_class["yes"].recall == 0.5
    assert result.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert result.predicted_mix == {"no": 0.75, "yes": 0.25}
    assert result.true_mix == {"no": 0.5, "yes": 0.5}


@given(scored_rows())
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn_and_torch(case):
    logits, labels = case
    classes = logits.shape[1]
    predicted = logits.argmax(axis=1)
    result = evaluate(logits, labels, NAMES[:classes])
    assert result.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert result.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert result.weighted_f1 == pytest.approx(sk.f1_score(labels, predicted, average="weighted"))
    assert result.confusion == sk.confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=np.nan
    )
    for c, row in enumerate(result.per_class.values()):
        ours = [np.nan if value is None else value for value in (row.precision, row.recall, row.f1)]
        np.testing.assert_allclose(ours, [precision[c], recall[c], f1[c]])
        assert row.support == support[c]
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels))
    assert result.loss == pytest.approx(loss.item(), rel=1e-9)
    one_hot = np.eye(classes)[labels]
    p = torch.tensor(logits, dtype=torch.float64).softmax(-1).numpy()
    assert result.brier == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), rel=1e-9, abs=1e-15)
    assert result.ece == pytest.approx(plain_ece(p.max(axis=1), predicted == labels), abs=1e-9)


def plain_ece(confidence, right, bins=15):
    """Equation 3 of Guo et al. (2017), written as they write it."""
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@given(scored_rows())
@settings(max_examples=30, deadline=None)
def test_probabilities_give_the_figures_of_their_logits(case):
    logits, labels = case
    p = torch.tensor(logits, dtype=torch.float64).softmax(-1).numpy()
    names = NAMES[: logits.shape[1]]
    from_logits, from_p = evaluate(logits, labels, names), evaluate(p, labels, names, probabilities=True)
    for key in ("accuracy", "macro_f1", "ece", "brier"):
        assert from_p.value(key) == pytest.approx(from_logits.value(key), abs=1e-9)
    np.testing.assert_allclose(from_p.loss, sk.log_loss(labels, p, labels=range(len(names))), atol=1e-12)


@given(multi_label_rows())
@settings(max_examples=60, deadline=None)
def test_several_labels_agree_with_scikit_learn_and_torch(case):
    logits, labels = case
    predicted = (logits >= 0).astype(int)
    result = evaluate(logits, labels, NAMES[: logits.shape[1]])
    assert result.accuracy == result.subset_accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert result.micro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="micro", zero_division=0))
    defined = (labels.sum(axis=0) + predicted.sum(axis=0)) > 0
    if defined.any():
        assert result.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=np.nan))
    assert result.confusion == sk.multilabel_confusion_matrix(labels, predicted).tolist()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.float64)
    )
    assert result.loss == pytest.approx(loss.item(), rel=1e-9)
    p = 1 / (1 + np.exp(-logits))
    assert result.brier == pytest.approx(((p - labels) ** 2).mean(), rel=1e-9)
    assert result.ece == pytest.approx(plain_ece(p.ravel(), labels.ravel() == 1), abs=1e-9)
    from_p = evaluate(p, labels, NAMES[: logits.shape[1]], probabilities=True)
    assert from_p.loss == pytest.approx(result.loss, rel=1e-6)


@given(st.one_of(scored_rows(), multi_label_rows()), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_batches_give_the_figures_of_the_whole(case, size):
    scores, labels = case
    names = NAMES[: scores.shape[1]]
    stream = Streaming(names, multi_label=labels.ndim == 2)
    for start in range(0, len(scores), size):
        stream.add(scores[start : start + size], labels[start : start + size])
    whole, streamed = evaluate(scores, labels, names).to_dict(), stream.result().to_dict()
    assert list(whole) == list(streamed)
    for one, other in zip(leaves(whole), leaves(streamed), strict=True):
        assert one == (None if other is None else pytest.approx(other, rel=1e-9, abs=1e-12))


def test_stream_holds_only_sums():
    stream = Streaming(NAMES)

    def held():
        arrays = [*vars(stream).values(), *vars(stream._bins).values()]
        return sum(value.nbytes for value in arrays if isinstance(value, np.ndarray))

    before = held()
    stream.add(np.zeros((50_000, 5)), np.zeros(50_000))
    assert held() == before


def test_class_never_predicted_and_class_never_seen():
    logits = np.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    result = evaluate(logits, np.array([0, 1]), ["a", "b", "c"])
    assert result.per_class["b"].to_dict() == {
        "precision": None,
        "recall": 0.0,
        "recall_ci95": [0.0, pytest.approx(0.7934506)],
        "f1": 0.0,
        "support": 1,
    }
    assert result.per_class["c"].to_dict() == {
        "precision": None,
        "recall": None,
        "recall_ci95": None,
        "f1": None,
        "support": 0,
    }
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_row():
    result = evaluate(np.array([[0.0, 1.0]]), np.array([1]), ["a", "b"])
    assert (result.examples, result.accuracy) == (1, 1.0)
    assert result.accuracy_ci95 == (pytest.approx(0.2065493), 1.0)


def test_perfect_calibration_has_no_error():
    # 3 of 4 rows right at confidence .75; in a bin away from its edges.
    p = np.tile([0.75, 0.25], (4, 1))
    result = evaluate(p, np.array([0, 0, 0, 1]), ["a", "b"], probabilities=True)
    assert result.ece == pytest.approx(0, abs=1e-15)
    filled = [entry.to_dict() for entry in result.reliability if entry.count]
    assert filled == [{"low": pytest.approx(11 / 15), "high": 0.8, "count": 4, "confidence": 0.75, "accuracy": 0.75}]


def test_ties_go_to_the_first_class():
    assert evaluate(np.zeros((1, 3)), np.array([0]), NAMES[:3]).accuracy == 1.0


def test_huge_logits_stay_finite():
    result = evaluate(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0]), ["a", "b"])
    assert result.loss == pytest.approx(1e4)
    several = evaluate(np.array([[1e4, -1e4]]), np.array([[0, 0]]), ["a", "b"])
    assert several.loss == pytest.approx(5e3)


def test_underflowed_probability_does_not_hide_the_loss():
    result = evaluate(np.array([[1, 0]], dtype=np.float32), np.array([1]), ["a", "b"], probabilities=True)
    assert result.loss == pytest.approx(-np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize(
    ("scores", "labels", "options", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), {}, "no rows"),
        (np.zeros((2, 3)), np.zeros(2), {}, r"shape \(rows, 2\), got \(2, 3\)"),
        (np.zeros((2, 2)), np.zeros(3), {}, "3 labels for 2 rows"),
        (np.zeros((2, 2)), np.array([0, 2]), {}, "labels 0 to 1, got 2"),
        (np.zeros((2, 2)), np.array([0, -1]), {}, "labels 0 to 1, got -1"),
        (np.zeros((2, 2)), np.array([[0, 1], [0.5, 0]]), {}, "labels 0 to 1, got 0.5"),
        (np.array([[0, np.nan], [0, 1]]), np.zeros(2), {}, "1 of 2 rows are not finite"),
        (np.array([[-1.0, 2.0]]), np.zeros(1), {"probabilities": True}, "are these logits"),
        (np.array([[0.5, 0.1]]), np.zeros(1), {"probabilities": True}, "sum to 1"),
    ],
)
def test_what_does_not_fit_is_refused(scores, labels, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(scores, labels, ["a", "b"], **options)


def test_repeated_label_names_are_refused():
    with pytest.raises(UserError, match="must differ"):
        evaluate(np.zeros((1, 2)), np.zeros(1), ["a", "a"])
