"""Goals: what they are worth, how they decide, and what is refused; by small inputs worked out by hand."""

import numpy as np
import pytest

from rankwise.errors import UserError
from rankwise.records.result import Decision
from rankwise.scoring import decisions, metrics
from rankwise.scoring.goals import goal_of
from rankwise.scoring.thresholds import at_precision, of_several_labels
from support import scores_of

NAMES = ["ham", "fraud", "other"]


def logits_of(p):
    return np.log(np.asarray(p, dtype=np.float64))


def test_the_threshold_keeps_the_precision_and_finds_the_most():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    true = np.array([True, True, False, True, True, False])
    found = at_precision(scores, true, 0.8)
    assert (found.precision, found.recall) == (0.8, 1.0)
    assert 0.4 < found.threshold < 0.5
    found = at_precision(scores, true, 0.9)
    assert (found.precision, found.recall) == (1.0, 0.5)
    assert 0.7 < found.threshold < 0.8


def test_equal_scores_stay_together():
    found = at_precision(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 1.0)
    assert found.recall == 0.5
    assert 0.5 < found.threshold < 0.9


def test_recall_is_nothing_where_no_threshold_keeps_the_precision():
    goal = goal_of("recall@precision=0.9:fraud")
    logits = logits_of([[0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])
    labels = np.array([0, 1, 2])
    assert goal.value(scores_of(0.5, 1.0), logits, labels, NAMES) == 0
    decision = goal.decision(logits, labels, NAMES)
    assert decision.value == 0
    assert "no threshold has a precision of 0.9 for fraud" in decision.note


def test_a_class_with_a_threshold_is_the_answer_from_there_on_and_not_below():
    decision = Decision(goal="recall@precision=0.5:fraud", thresholds={"fraud": 0.3})
    logits = logits_of([[0.6, 0.35, 0.05], [0.5, 0.25, 0.25], [0.1, 0.29, 0.61], [0.2, 0.2, 0.6]])
    assert decisions.decide(decision, logits, NAMES, multi_label=False).tolist() == [1, 0, 2, 2]
    high = Decision(thresholds={"fraud": 0.8})
    assert decisions.decide(high, logits_of([[0.2, 0.7, 0.1]]), NAMES, multi_label=False).tolist() == [0]


def test_the_answer_of_least_expected_cost_is_given(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,fraud,other,ham\nham,1,1,0\nfraud,0,10,10\nother,1,0,1\n")
    goal = goal_of(f"cost:{path}")
    goal.check(NAMES, multi_label=False)
    assert goal.lower_is_better
    logits = logits_of([[0.8, 0.15, 0.05], [0.95, 0.03, 0.02]])
    decision = goal.decision(np.tile(logits, (50, 1)), np.tile([0, 0], 50), NAMES)
    assert decision.costs == [[0, 1, 1], [10, 0, 10], [1, 1, 0]]
    decision.temperature = 1.0
    # Of the first, ham costs 1.55 and fraud 0.85 to expect; of the second 0.32 and 0.97.
    assert decisions.decide(decision, logits, NAMES, multi_label=False).tolist() == [1, 0]
    path.unlink()
    assert goal.remembered(decision).reached(np.array([1, 0]), np.array([0, 0]), NAMES) == {"value": 5.0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_at_any_temperature_give_the_answers_of_the_raw_scores(temperature):
    from rankwise.scoring.calibration import apply_temperature

    logits = np.random.default_rng(0).normal(0, 3, (500, 3)).astype(np.float32)
    for decision, several in (
        (Decision(thresholds={"fraud": 0.2}), False),
        (Decision(costs=[[0, 1, 2], [5, 0, 5], [1, 1, 0]], temperature=1.7), False),
        (Decision(thresholds={"ham": 0.2, "fraud": 0.6, "other": 0.5}), True),
        (None, True),
        (None, False),
    ):
        expected = decisions.decide(decision, logits, NAMES, multi_label=several)
        p = apply_temperature(logits, temperature, multi_label=several)
        found = decisions.of_probabilities(decision, p, NAMES, multi_label=several, temperature=temperature)
        assert np.array_equal(found, expected)
        if several and decision is not None:
            limits = decisions.thresholds(decision, NAMES, temperature=temperature)
            assert np.array_equal(p >= np.array(limits), expected)


def several_labels(rows, rare, seed=0):
    """Logits that are shifted by label, so that 0.5 is no good threshold; the last label is rare."""
    chance = np.random.default_rng(seed)
    labels = (chance.random((rows, 3)) < [0.4, 0.3, rare]).astype(np.int64)
    return 2.5 * (2 * labels - 1) + chance.normal(0, 1, labels.shape) + [-2.5, 2.5, -2.0], labels


def test_thresholds_of_several_labels_raise_f1_on_other_rows():
    logits, labels = several_labels(600, 0.05)
    decision = of_several_labels("accuracy", logits, labels, NAMES)
    others, true = several_labels(4000, 0.05, seed=1)
    plain = metrics.evaluate(others, true, NAMES).macro_f1
    decided = decisions.decide(decision, others, NAMES, multi_label=True)
    assert metrics.evaluate(others, true, NAMES, predicted=decided).macro_f1 > plain + 0.05
    assert decision.thresholds["ham"] < 0.4 < 0.6 < decision.thresholds["fraud"]


def test_rows_that_tell_nothing_leave_one_half():
    chance = np.random.default_rng(0)
    labels = (chance.random((40, 3)) < 0.3).astype(np.int64)
    logits = 8.0 * (2 * labels - 1)
    assert of_several_labels("accuracy", logits, labels, NAMES) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f1", "expected one of accuracy, loss, macro_f1, recall@precision=P:CLASS, cost:FILE"),
        ("recall@precision=1.5:fraud", "must be above 0 and at most 1"),
        ("recall@precision=0:fraud", "must be above 0 and at most 1"),
        ("recall@precision=nan:fraud", "must be above 0 and at most 1"),
        ("recall@precision=0.9", "expected recall@precision=P:CLASS"),
        ("cost:", "expected cost:FILE"),
    ],
)
def test_a_goal_that_is_none_is_refused(text, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        goal_of(text)


def test_a_class_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="no class 'froud', did you mean 'fraud'"):
        goal_of("recall@precision=0.9:froud").check(NAMES, multi_label=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("true,ham,fraud\nham,0,1\nfraud,1,0\n", "its columns lack other"),
        ("true,ham,fraud,other,spam\nham,0,1,1,1\n", "its columns name spam, which the data do not have"),
        ("true,ham,fraud,other\nham,0,1,1\nfraud,1,0,1\n", "its rows lack other"),
        ("true,ham,fraud,other\nham,0,1,1\nfraud,1,0,1\nother,1,x,0\n", "the cost of answering fraud to other is 'x'"),
        ("true,ham,fraud,other\nham,0,1,1\nfraud,1,0,1\nother,1,-1,0\n", "expected a number from 0"),
        ("true,ham,fraud,other\nham,0,1,1\nfraud,1,0,1\nother,1\n", "the cost of answering fraud to other is ''"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path, content, said):
    path = tmp_path / "costs.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        goal_of(f"cost:{path}").check(NAMES, multi_label=False)
    with pytest.raises(UserError, match="could not be read"):
        goal_of(f"cost:{tmp_path / 'none.csv'}").check(NAMES, multi_label=False)


def test_a_matrix_is_for_one_label_a_text(tmp_path):
    with pytest.raises(UserError, match="is for one label a text"):
        goal_of("cost:anything.csv").check(NAMES, multi_label=True)
