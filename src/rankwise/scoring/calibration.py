"""Confidence that means what it says: temperature, coverage against accuracy, abstention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError
from rankwise.scoring.intervals import Interval, wilson
from rankwise.scoring.metrics import log_sigmoid, log_softmax

Floats = NDArray[np.float64]

# Beyond these a temperature only says that the rows were too few or too easy to fit one.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature with the mean negative log-likelihood (nats) before and after.

    `at_bound`: the likelihood still rose at the end of the range searched (every fitted row is right, say);
    the value is then a limit and no estimate.
    """

    value: float
    loss_before: float
    loss_after: float
    at_bound: bool


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any]) -> Temperature:
    """The one number that logits are divided by to minimise the loss (Guo et al. 2017, section 4.2).

    Fit it on validation rows: it changes no prediction, so it costs no accuracy.

    Args:
        logits: shape (rows, classes).
        labels: class numbers, shape (rows,), or 0s and 1s, shape (rows, classes).

    Raises: UserError: there are no rows.
    """
    from scipy.optimize import minimize_scalar

    if len(logits) == 0:
        raise UserError("a temperature needs labelled validation rows, there are none")
    # In log space the range is symmetric about 1 and the bounded search equally fine everywhere.
    low, high = math.log(COLDEST), math.log(HOTTEST)
    found = minimize_scalar(
        lambda log_t: _loss(logits / math.exp(log_t), labels),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    log_t = float(found.x)
    value = math.exp(log_t)
    return Temperature(
        value=value,
        loss_before=_loss(logits, labels),
        loss_after=_loss(logits / value, labels),
        at_bound=min(log_t - low, high - log_t) < 1e-4,
    )


def losses(logits: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """Negative log-likelihood (nats) of each row, of several labels their mean. Shapes as in `fit_temperature`; (rows,)"""
    if labels.ndim == 2:
        said: Floats = np.where(labels == 1, log_sigmoid(logits), log_sigmoid(-logits)).mean(axis=1)
    else:
        said = log_softmax(logits)[np.arange(len(labels)), labels]
    return -said


def apply_temperature(logits: NDArray[Any], temperature: float, *, multi_label: bool = False) -> Floats:
    """Probabilities of logits divided by a temperature. Shape: (rows, classes) -> the same"""
    scaled = logits / temperature
    probabilities: Floats = np.exp(log_sigmoid(scaled) if multi_label else log_softmax(scaled))
    return probabilities


@dataclass(frozen=True)
class CoverageCurve:
    """Accuracy of the rows kept, from the most confident row alone to all of them.

    One entry a distinct confidence, falling: rows of equal confidence are kept or left together.
    Shape of each array: (thresholds,)
    """

    rows: int
    threshold: Floats
    kept: NDArray[np.int64]
    correct: NDArray[np.int64]

    @property
    def coverage(self) -> Floats:
        """Share of rows kept."""
        return self.kept / self.rows

    @property
    def accuracy(self) -> Floats:
        """Accuracy of the rows kept."""
        return self.correct / self.kept

    def table(self, points: int = 100) -> list[dict[str, float]]:
        """At most about `points` entries {coverage, accuracy, threshold}, evenly spread, for a chart."""
        wanted = np.linspace(0, len(self.kept) - 1, min(points, len(self.kept))).round().astype(np.int64)
        return [
            {
                "coverage": float(self.coverage[i]),
                "accuracy": float(self.accuracy[i]),
                "threshold": float(self.threshold[i]),
            }
            for i in wanted
        ]


def coverage_curve(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> CoverageCurve:
    """What accuracy remains when the least confident rows are left to a person.

    Args:
        confidence: probability of the predicted class. Shape: (rows,)
        correct: whether the prediction is right. Shape: (rows,)

    Raises: UserError: there are no rows.
    """
    if len(confidence) == 0:
        raise UserError("a coverage curve needs labelled rows, there are none")
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order].astype(np.float64)
    last_of_tie = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    return CoverageCurve(
        rows=len(falling),
        threshold=falling[last_of_tie],
        kept=last_of_tie + 1,
        correct=np.cumsum(correct[order], dtype=np.int64)[last_of_tie],
    )


@dataclass(frozen=True)
class Abstention:
    """Keep predictions of at least this confidence; figures are those of the rows it was chosen on."""

    threshold: float
    coverage: float
    accuracy: float
    accuracy_ci95: Interval


def abstention(curve: CoverageCurve, wanted_accuracy: float) -> Abstention | None:
    """The threshold that keeps most rows at the wanted accuracy; None when no threshold reaches it.

    Choose it on validation rows and read its accuracy on others: chosen to be high here, it will be a little
    lower there.
    """
    reached = np.flatnonzero(curve.accuracy >= wanted_accuracy)
    if len(reached) == 0:
        return None
    i = int(reached[-1])
    return Abstention(
        threshold=float(curve.threshold[i]),
        coverage=float(curve.coverage[i]),
        accuracy=float(curve.accuracy[i]),
        accuracy_ci95=wilson(int(curve.correct[i]), int(curve.kept[i])),
    )


def _loss(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(losses(logits, labels).mean())
