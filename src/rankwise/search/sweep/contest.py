"""Who wins on validation rows: the best by the goal, and of those that the rows do not tell apart from it the surest.

A share of a thousand rows right is a point off as often as not, and by one row more of them a floor once displaced a classifier
that is a point better on others; the loss at the best temperature, which asks how sure each answer is, had all of them in order
(LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise.records import Winner
from rankwise.scoring import predictions
from rankwise.scoring.calibration import fit_temperature
from rankwise.scoring.goals import Goal
from rankwise.scoring.paired import mcnemar

_CHANCE = 0.05
"""that a split of rows as uneven comes about where two are equal"""


@dataclass(frozen=True)
class Contestant:
    """What validation rows say of a classifier.

    value
        What the goal came to.
    right
        Which rows it has right. Shape: (rows,)
    loss
        Mean negative log-likelihood (nats) at the temperature that is best for it.
    """

    value: float
    right: NDArray[np.bool_]
    loss: float

    @classmethod
    def of_run(cls, folder: Path, value: float) -> Contestant:
        """What the predictions in a run's folder say. Raises: UserError where there are none."""
        read = predictions.read(folder, "validation")
        return cls(value, read.correct, fit_temperature(read.logits, read.labels).loss_after)


def winner_of(found: Sequence[Contestant], goal: Goal) -> int:
    """The place of the one that is preferred. For a goal other than accuracy, whose rows are no tosses of a coin, the loss decides
    among equals alone.
    """
    best = max(found, key=lambda one: (goal.better(one.value), -one.loss))

    def near(one: Contestant) -> bool:
        return goal.better(one.value) == goal.better(best.value) or (
            goal.text == "accuracy" and not told_apart(best.right, one.right)
        )

    return min((place for place, one in enumerate(found) if near(one)), key=lambda place: found[place].loss)


def preferred(folder: Path, found: Sequence[Winner], goal: Goal) -> Winner:
    """Of the runs in a search's folder, by their values and by the predictions that are kept there."""
    read = [Contestant.of_run(folder / one.run, math.nan if one.mean is None else one.mean) for one in found]
    return found[winner_of(read, goal)]


def told_apart(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether two differ in the rows that they have right by more than chance, by an exact test. Shape of each: (rows,)"""
    return bool(mcnemar(int((one & ~other).sum()), int((other & ~one).sum())) < _CHANCE)
