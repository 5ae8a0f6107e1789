"""Thresholds fitted on validation rows: where a class keeps a precision, and where a label's F1 is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.records.result import Decision
from rankwise.scoring.calibration import apply_temperature

Floats = NDArray[np.float64]
_STRENGTHS: tuple[float, ...] = (np.inf, 80.0, 20.0, 5.0, 0.0)
"""rows of a label by which its own threshold and the one of all labels weigh the same: a factor of four apart, since the
best is flat; infinity is one threshold for all, zero none in common"""
_FOLDS = 5


@dataclass(frozen=True)
class AtPrecision:
    """A threshold, and what it came to on the rows it was chosen on."""

    threshold: float
    precision: float
    recall: float


def at_precision(scores: Floats, true: NDArray[np.bool_], wanted: float) -> AtPrecision:
    """The threshold of the highest recall whose precision is the wanted one; of the highest precision where none is.

    It stands midway between two rows' scores, so that rounding does not move a row across it.

    Shape: (rows,) each
    """
    if not true.any():
        return AtPrecision(0.5, 0.0, 0.0)
    limits, called, hits = _steps(scores, true)
    precision, recall = hits / called, hits / hits[-1]
    kept = np.flatnonzero(precision >= wanted)
    place = int(kept[-1]) if len(kept) else int(np.argmax(precision))
    return AtPrecision(float(limits[place]), float(precision[place]), float(recall[place]))


def _steps(scores: Floats, true: NDArray[np.bool_]) -> tuple[Floats, NDArray[Any], NDArray[Any]]:
    """Every threshold that tells rows apart, the highest first, midway between two rows' scores; the rows that are called from
    there on; and how many of them are true. Shape: (rows,) each -> (thresholds,) each"""
    order = np.argsort(-scores, kind="stable")
    falling = np.append(scores[order], 0.0)
    last_of_tie = np.flatnonzero(np.append(falling[1:-1] != falling[:-2], True))
    limits = (falling[last_of_tie] + falling[last_of_tie + 1]) / 2
    return limits, last_of_tie + 1, np.cumsum(true[order])[last_of_tie]


def of_several_labels(
    goal: str, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]
) -> Decision | None:
    """A threshold a label by its best F1, drawn towards the one of all labels the fewer rows carry it.

    How strongly is chosen by folds of the same rows, 0.5 for all of them being among what is tried; None where that is
    best: rows that are few tell no better one.

    logits, labels
        Shape: (rows, classes) each
    """
    p = apply_temperature(logits, 1.0, multi_label=True)
    held = np.arange(len(p)) % _FOLDS
    own = _macro_f1(labels, p >= 0.5)
    best, chosen = own, None
    for strength in _STRENGTHS:
        predicted = np.zeros(p.shape, dtype=bool)
        for fold in range(min(_FOLDS, len(p))):
            inside, outside = held != fold, held == fold
            predicted[outside] = p[outside] >= _drawn(p[inside], labels[inside], strength)
        found = _macro_f1(labels, predicted)
        if found > best:
            best, chosen = found, strength
    if chosen is None:
        return None
    fitted = _drawn(p, labels, chosen)
    named = {str(name): float(limit) for name, limit in zip(label_names, fitted, strict=True)}
    return Decision(goal=goal, thresholds=named, rows=len(p), value=_macro_f1(labels, p >= fitted))


def _drawn(p: Floats, labels: NDArray[Any], strength: float) -> Floats:
    """Every label's threshold between its own and the common one, on the scale of logits. Shape: (classes,)"""
    common = _best_f1(p.ravel(), labels.ravel() == 1)
    if strength == np.inf:
        return np.full(p.shape[1], common)
    rows = labels.sum(axis=0)
    weight = np.where(rows > 0, rows / np.maximum(rows + strength, 1e-9), 0.0)
    own = np.array([_best_f1(p[:, c], labels[:, c] == 1) if rows[c] else common for c in range(p.shape[1])])
    between = weight * _logit(own) + (1 - weight) * _logit(np.float64(common))
    return np.asarray(1 / (1 + np.exp(-between)), dtype=np.float64)


def _best_f1(scores: Floats, true: NDArray[np.bool_]) -> float:
    """The threshold of the highest F1; 0.5 where no row is true."""
    if not true.any():
        return 0.5
    limits, called, hits = _steps(scores, true)
    return float(limits[np.argmax(2 * hits / (called + true.sum()))])


def _macro_f1(labels: NDArray[Any], predicted: NDArray[np.bool_]) -> float:
    """Over the labels that some row carries or is given."""
    true = labels == 1
    ends = true.sum(axis=0) + predicted.sum(axis=0)
    f1 = 2 * (true & predicted).sum(axis=0)[ends > 0] / ends[ends > 0]
    return float(f1.mean()) if len(f1) else 0.0


def _logit(p: Any) -> Floats:
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)
