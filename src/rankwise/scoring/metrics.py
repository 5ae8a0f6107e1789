"""Everything measured on labelled rows, from the whole array or batch by batch in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.errors import UserError
from rankwise.records.result import Bin, ClassScores, Scores
from rankwise.scoring.intervals import wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
# Rows worked on at once by `evaluate`: bounds the temporary float64 copies, not the result.
_CHUNK_ROWS = 65_536


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    label_names: Sequence[str],
    *,
    probabilities: bool = False,
    predicted: ArrayLike | None = None,
) -> Scores:
    """Every metric of scored rows.

    Args:
        scores: logits, or probabilities if so marked. Shape: (rows, classes)
        labels: class numbers, shape (rows,), or for several labels a row 0s and 1s, shape (rows, classes).
        label_names: names of the classes, in column order.
        probabilities: the scores are probabilities instead of logits.
        predicted: the answers, of the labels' shape, where they are not the most probable ones (`scoring.decisions`).

    Returns:
        examples, accuracy, accuracy_ci95 (Wilson), loss (mean negative log-likelihood in nats), macro_f1,
        weighted_f1, ece (Guo et al. 2017, 15 bins of equal width), brier (0..2, Brier 1950), per_class by
        name, confusion (rows actual, columns predicted),
        predicted_mix and true_mix (share by name), reliability (one entry a bin).

        A precision, recall or F1 without any row to divide by is None and left out of the means.

        With several labels a row, a label is predicted from probability 0.5 on unless told otherwise; accuracy is that of whole
        label sets (subset accuracy); loss, ece and brier are taken over all label decisions, with the
        probability of the label as confidence; micro_f1 is added; confusion is one [[tn, fp], [fn, tp]] a
        label; the mixes are shares of rows carrying each label.

    Raises: UserError: no rows, shapes or labels that do not fit, scores that are not finite.
    """
    values, targets = np.asarray(scores), np.asarray(labels)
    if len(values) != len(targets):
        raise UserError(f"expected one label a scored row, got {len(targets):,} labels for {len(values):,} rows")
    stream = Streaming(label_names, multi_label=targets.ndim == 2, probabilities=probabilities)
    for start in range(0, len(values), _CHUNK_ROWS):
        here = slice(start, start + _CHUNK_ROWS)
        stream.add(values[here], targets[here], None if predicted is None else np.asarray(predicted)[here])
    return stream.result()


class Streaming:
    """Consumes scored batches and holds only sums: its memory does not grow with the rows.

    `result` gives what `evaluate` gives on all rows at once (see there), up to the rounding of float64 sums.
    """

    def __init__(self, label_names: Sequence[str], *, multi_label: bool = False, probabilities: bool = False) -> None:
        if len(set(label_names)) != len(label_names):
            raise UserError(f"label names must differ from each other, got {list(label_names)}")
        classes = len(label_names)
        self.label_names = list(label_names)
        self.multi_label = multi_label
        self.probabilities = probabilities
        self._rows = 0
        self._correct = 0
        self._loss = 0.0
        self._brier = 0.0
        self._bins = _Bins()
        # One label: confusion[actual, predicted]. Several: [label, actual, predicted] of each yes or no.
        self._confusion = np.zeros((classes, 2, 2) if multi_label else (classes, classes), dtype=np.int64)

    def add(self, scores: ArrayLike, labels: ArrayLike, predicted: NDArray[Any] | None = None) -> None:
        """Count one batch; shapes as in `evaluate`."""
        values, targets = np.asarray(scores), np.asarray(labels)
        self._check(values, targets)
        if len(values) == 0:
            return
        if self.multi_label:
            self._add_multi(values, targets.astype(np.int64), predicted)
        else:
            self._add_single(values, targets.astype(np.int64), predicted)
        self._rows += len(values)

    def result(self) -> Scores:
        """The metrics of everything added so far.

        Raises: UserError: nothing was added.
        """
        if self._rows == 0:
            raise UserError("there are no rows to score")
        hits, predicted, actual = self._class_counts()
        f1 = _ratio(2 * hits, predicted + actual)
        decisions = self._rows * (len(self.label_names) if self.multi_label else 1)
        accuracy = self._correct / self._rows
        micro_f1 = float(np.nan_to_num(_ratio(2 * hits.sum(), (predicted + actual).sum())))
        return Scores(
            examples=self._rows,
            accuracy=accuracy,
            accuracy_ci95=wilson(self._correct, self._rows),
            loss=self._loss / decisions,
            macro_f1=_mean(f1),
            weighted_f1=_mean(f1, actual),
            micro_f1=micro_f1 if self.multi_label else None,
            subset_accuracy=accuracy if self.multi_label else None,
            ece=self._bins.error(),
            brier=self._brier / decisions,
            per_class=_per_class(self.label_names, hits, predicted, actual),
            confusion=self._confusion.tolist(),
            predicted_mix=self._mix(predicted),
            true_mix=self._mix(actual),
            reliability=self._bins.table(),
        )

    def _check(self, scores: NDArray[Any], labels: NDArray[Any]) -> None:
        classes = len(self.label_names)
        if scores.ndim != 2 or scores.shape[1] != classes:
            raise UserError(f"expected scores of shape (rows, {classes}), got {scores.shape}")
        wanted = scores.shape if self.multi_label else scores.shape[:1]
        if labels.shape != wanted:
            raise UserError(f"expected labels of shape {wanted}, got {labels.shape}")
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        if bad:
            raise UserError(
                f"the scores of {bad:,} of {len(scores):,} rows are not finite: "
                "the weights have diverged, train with a lower train.learning_rate"
            )
        top = 1 if self.multi_label else classes - 1
        outside = (labels < 0) | (labels > top) | (labels != np.floor(labels))
        if outside.any():
            raise UserError(f"expected labels 0 to {top}, got {labels[outside][0]}")
        if self.probabilities and len(scores):
            self._check_probabilities(scores)

    def _check_probabilities(self, scores: NDArray[Any]) -> None:
        if scores.min() < 0 or scores.max() > 1 + 1e-3:
            raise UserError("expected probabilities from 0 to 1, got other numbers: are these logits?")
        # Half precision leaves sums up to about 1e-3 away from 1.
        if not self.multi_label and np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() > 5e-3:
            raise UserError("expected probabilities that sum to 1 in each row")

    def _add_single(self, scores: NDArray[Any], labels: Ints, predicted: NDArray[Any] | None) -> None:
        rows = np.arange(len(scores))
        log_p = log_probabilities(scores) if self.probabilities else log_softmax(scores)
        p = scores.astype(np.float64) if self.probabilities else np.exp(log_p)
        # From the scores, not from p: exp can round two different logits to one probability.
        if predicted is None:
            predicted = scores.argmax(axis=1)
        right = predicted == labels
        np.add.at(self._confusion, (labels, predicted), 1)
        self._correct += int(right.sum())
        self._loss -= float(log_p[rows, labels].sum())
        true_p = p[rows, labels]
        self._brier += float(((p * p).sum(axis=1) - true_p**2 + (1 - true_p) ** 2).sum())
        self._bins.add(p[rows, predicted], right)

    def _add_multi(self, scores: NDArray[Any], labels: Ints, predicted: NDArray[Any] | None) -> None:
        if self.probabilities:
            p = scores.astype(np.float64)
            log_yes, log_no = log_probabilities(scores), log_probabilities(1 - scores)
        else:
            log_yes, log_no = log_sigmoid(scores), log_sigmoid(-scores)
            p = np.exp(log_yes)
        if predicted is None:
            predicted = decide(scores, probabilities=self.probabilities)
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        np.add.at(self._confusion, (columns, labels, predicted), 1)
        self._correct += int((predicted == labels).all(axis=1).sum())
        self._loss -= float(np.where(labels == 1, log_yes, log_no).sum())
        self._brier += float(((p - labels) ** 2).sum())
        self._bins.add(p.ravel(), labels.ravel() == 1)

    def _class_counts(self) -> tuple[Ints, Ints, Ints]:
        """Right decisions, predictions and rows of each class. Shape: (classes,) each."""
        if self.multi_label:
            return (
                self._confusion[:, 1, 1],
                self._confusion[:, :, 1].sum(axis=1),
                self._confusion[:, 1, :].sum(axis=1),
            )
        return self._confusion.diagonal().copy(), self._confusion.sum(axis=0), self._confusion.sum(axis=1)

    def _mix(self, counts: Ints) -> dict[str, float]:
        return {name: int(n) / self._rows for name, n in zip(self.label_names, counts, strict=True)}


def decide(scores: NDArray[Any], *, probabilities: bool = False) -> Ints:
    """The labels of probability 0.5 and more. Shape: (rows, classes) -> the same, 0 or 1"""
    return (scores >= (0.5 if probabilities else 0.0)).astype(np.int64)


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Stable logarithm of the softmax over the last axis. Shape: (rows, classes) -> the same, float64"""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def log_sigmoid(logits: NDArray[Any]) -> Floats:
    """Stable logarithm of the sigmoid. Shape: any -> the same, float64"""
    result: Floats = -np.logaddexp(0.0, -logits.astype(np.float64))
    return result


def log_probabilities(p: NDArray[Any]) -> Floats:
    """Logarithm of probabilities, with 0 and 1 moved inside by the epsilon of their own precision.

    A probability stored as 0 has underflowed; minus infinity would hide every other row's loss.
    """
    epsilon = np.finfo(p.dtype).eps if np.issubdtype(p.dtype, np.floating) else np.finfo(np.float64).eps
    result: Floats = np.log(np.clip(p.astype(np.float64), epsilon, 1.0))
    return result


def logits_of_probabilities(p: NDArray[Any], *, multi_label: bool) -> Floats:
    """Raw scores of probabilities, but for a constant; beyond the precision of those they are not known any more."""
    yes = log_probabilities(p)
    return yes - log_probabilities(1 - p) if multi_label else yes


class _Bins:
    """Confidence against outcome in bins of equal width, bin m holding (m/15, (m+1)/15]."""

    def __init__(self) -> None:
        self.edges = np.linspace(0.0, 1.0, BINS + 1)
        self.count = np.zeros(BINS, dtype=np.int64)
        self.right = np.zeros(BINS, dtype=np.int64)
        self.confidence = np.zeros(BINS)

    def add(self, confidence: Floats, right: NDArray[np.bool_]) -> None:
        """Count outcomes. Shape: (decisions,) each."""
        place = np.clip(np.searchsorted(self.edges, confidence, side="left") - 1, 0, BINS - 1)
        self.count += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[right], minlength=BINS)
        self.confidence += np.bincount(place, weights=confidence, minlength=BINS)

    def error(self) -> float:
        """Expected calibration error: mean gap of confidence and outcome by rows (Guo et al. 2017, eq. 3)."""
        return float(np.abs(self.right - self.confidence).sum() / self.count.sum())

    def table(self) -> list[Bin]:
        """One entry a bin, the lowest first."""
        confidence, accuracy = _ratio(self.confidence, self.count), _ratio(self.right, self.count)
        return [
            Bin(
                low=float(self.edges[m]),
                high=float(self.edges[m + 1]),
                count=int(self.count[m]),
                confidence=_number(confidence[m]),
                accuracy=_number(accuracy[m]),
            )
            for m in range(BINS)
        ]


def _per_class(names: Sequence[str], hits: Ints, predicted: Ints, actual: Ints) -> dict[str, ClassScores]:
    precision, recall = _ratio(hits, predicted), _ratio(hits, actual)
    f1 = _ratio(2 * hits, predicted + actual)
    return {
        name: ClassScores(
            precision=_number(precision[c]),
            recall=_number(recall[c]),
            recall_ci95=wilson(int(hits[c]), int(actual[c])) if actual[c] else None,
            f1=_number(f1[c]),
            support=int(actual[c]),
        )
        for c, name in enumerate(names)
    }


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Elementwise quotient, NaN where there is nothing to divide by."""
    below = np.asarray(below, dtype=np.float64)
    quotient: Floats = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return quotient


def _mean(values: Floats, weights: Ints | None = None) -> float:
    """Mean of the defined values; 0 when there are none, or none of weight."""
    defined = ~np.isnan(values)
    shares = defined.astype(np.float64) if weights is None else weights * defined
    total = float(shares.sum())
    return float(np.nansum(values * shares) / total) if total else 0.0


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
