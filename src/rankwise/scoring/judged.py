"""Scores of rows as a classifier answers them: decided as it decides, with what its goal came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.records.result import Decision, GoalScore, Scores
from rankwise.scoring import metrics
from rankwise.scoring.decisions import decide
from rankwise.scoring.goals import PLAIN, Goal, goal_of


def reached(goal: Goal, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> Scores:
    """The metrics of raw scores, and what a goal came to, decided as best these rows allow. Shapes as in `judge`."""
    scores = metrics.evaluate(logits, labels, label_names)
    if goal.text not in PLAIN:
        scores.goal = GoalScore(name=goal.text, value=goal.value(scores, logits, labels, label_names))
    return scores


def judge(
    decision: Decision | None,
    logits: NDArray[Any],
    labels: NDArray[Any],
    label_names: Sequence[str],
    *,
    step: int | None = None,
) -> tuple[Scores, NDArray[Any]]:
    """The metrics of raw scores, and the answers.

    logits, labels
        Shapes: (rows, classes); (rows,) class numbers, or (rows, classes) zeros and ones.
    step
        The optimizer step of the weights that are scored.
    """
    predicted = decide(decision, logits, label_names, multi_label=labels.ndim == 2)
    scores = metrics.evaluate(logits, labels, label_names, predicted=predicted)
    scores.step = step
    if decision is not None and decision.goal not in PLAIN:
        worth = goal_of(decision.goal).remembered(decision).reached(labels, predicted, label_names)
        scores.goal = GoalScore(name=decision.goal, value=worth["value"], precision=worth.get("precision"))
    return scores, predicted


def right(predicted: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are answered rightly, every label of them. Shape: (rows,) or (rows, classes) each -> (rows,)"""
    same = np.asarray(predicted == labels)
    return np.asarray(same.all(axis=1)) if labels.ndim == 2 else same
