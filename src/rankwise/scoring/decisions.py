"""How scores become answers: the most probable label, or what a decision fitted for a goal says.

Everything that answers goes through `decide`, so that a run's own scores, a reloaded predictor, files of predictions and
a server say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError
from rankwise.records.result import Decision
from rankwise.scoring.calibration import apply_temperature
from rankwise.scoring.metrics import logits_of_probabilities

Ints = NDArray[np.int64]
THRESHOLD = 0.5
"""probability from which a text carries a label, where nothing else was fitted"""


def decide(decision: Decision | None, logits: NDArray[Any], label_names: Sequence[str], *, multi_label: bool) -> Ints:
    """The answers to texts of these raw scores.

    Shape: (rows, classes) -> (rows,) class numbers, or with several labels a text (rows, classes) zeros and ones
    Raises: UserError when the decision names other classes than the classifier has.
    """
    if multi_label:
        limits = np.array(thresholds(decision, label_names))
        return (apply_temperature(logits, 1.0, multi_label=True) >= limits).astype(np.int64)
    if decision is None or not (decision.thresholds or decision.costs):
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)
    p = apply_temperature(logits, decision.temperature)
    if decision.costs:
        if np.shape(decision.costs) != (p.shape[1], p.shape[1]):
            raise UserError(f"its costs are of {len(decision.costs)} classes, the classifier has {p.shape[1]}")
        return np.asarray((p @ np.array(decision.costs)).argmin(axis=1), dtype=np.int64)
    return _by_threshold(decision, p, label_names)


def of_probabilities(
    decision: Decision | None,
    p: NDArray[Any],
    label_names: Sequence[str],
    *,
    multi_label: bool,
    temperature: float = 1.0,
) -> Ints:
    """`decide` from probabilities that were made at a temperature: they say the raw scores but for a constant."""
    if decision is None:
        return (p >= THRESHOLD).astype(np.int64) if multi_label else np.asarray(p.argmax(axis=1), dtype=np.int64)
    logits = temperature * logits_of_probabilities(p, multi_label=multi_label)
    return decide(decision, logits, label_names, multi_label=multi_label)


def names_of(answers: NDArray[Any], label_names: Sequence[str]) -> list[Any]:
    """Answers by name: a label a text, or a list of those that it carries. Shape: (rows,) or (rows, classes) zeros and ones"""
    if answers.ndim == 2:
        return [[label_names[label] for label in np.flatnonzero(row).tolist()] for row in answers]
    return [label_names[label] for label in answers.tolist()]


def thresholds(decision: Decision | None, label_names: Sequence[str], *, temperature: float = 1.0) -> list[float]:
    """From which probability on a text carries each label, for probabilities made at a temperature."""
    fitted = decision.thresholds if decision is not None else {}
    _check_names(fitted, label_names)
    limits = np.array([fitted.get(name, THRESHOLD) for name in label_names])
    if temperature != 1.0:
        limits = 1 / (1 + ((1 - limits) / limits) ** (1 / temperature))
    return [float(limit) for limit in limits]


def _by_threshold(decision: Decision, p: NDArray[Any], label_names: Sequence[str]) -> Ints:
    """A class with a threshold is the answer from there on; else the most probable of the others is."""
    _check_names(decision.thresholds, label_names)
    places = [list(label_names).index(name) for name in decision.thresholds]
    limits = np.array(list(decision.thresholds.values()))
    rest = p.copy()
    rest[:, places] = -1.0
    predicted = rest.argmax(axis=1)
    over = p[:, places] / limits
    best = over.argmax(axis=1)
    called = over.max(axis=1) >= 1
    return np.asarray(np.where(called, np.array(places)[best], predicted), dtype=np.int64)


def _check_names(fitted: dict[str, float], label_names: Sequence[str]) -> None:
    strange = [name for name in fitted if name not in label_names]
    if strange:
        raise UserError(f"its thresholds are of {', '.join(strange)}, which the classifier does not know")
