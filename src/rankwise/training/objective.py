"""The loss of a batch: cross-entropy or its sigmoid form, with smoothing and class weights together; or contrastive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rankwise.config import Train
from rankwise.errors import UserError


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over classes, or binary cross-entropy over labels when `multi_label`.

    A batch's loss is a sum divided by a `normaliser` that the caller takes over the whole batch. So the
    gradient is the same however the batch is cut into micro-batches or spread over processes.

    class_weights
        Shape: (classes,), or None for equal weights.
    absent_weights
        With several labels a text: the weight of a label where it is absent, `class_weights` being that where it is
        present; None for one weight of both. Shape: (classes,)
    """

    smoothing: float
    class_weights: Tensor | None
    multi_label: bool
    absent_weights: Tensor | None = None
    _there: dict[torch.device, tuple[Tensor | None, Tensor | None]] = field(default_factory=dict, compare=False)

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The summed loss of some rows.

        logits
            Shape: (texts, classes)
        labels
            Shape: (texts,) class indices, or (texts, classes) of zeros and ones when multi_label.
        """
        logits = logits.float()
        weights, absent_weights = self._weights_on(logits.device)
        if self.multi_label:
            targets = labels.float() * (1 - self.smoothing) + 0.5 * self.smoothing
            absent, ratio = weights, None
            if weights is not None and absent_weights is not None:
                absent, ratio = absent_weights, weights / absent_weights
            total = F.binary_cross_entropy_with_logits(logits, targets, absent, reduction="sum", pos_weight=ratio)
            return total / logits.shape[1]
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.smoothing, reduction="sum")

    def normaliser(self, labels: np.ndarray) -> float:
        """What the summed loss of these rows is divided by: their number, or their summed class weights.

        labels
            Shape: (rows,), or (rows, classes) where a text may carry several.
        """
        if self.class_weights is None or self.multi_label:
            return float(len(labels))
        # Rows of classes with weight zero alone have no loss to divide.
        return max(float(self.class_weights.numpy()[labels].sum()), 1e-12)

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How many rows are predicted exactly (every label of a row, when multi_label). Shape: ()"""
        if self.multi_label:
            return ((logits > 0) == (labels > 0.5)).all(dim=1).sum()
        return (logits.argmax(dim=1) == labels).sum()

    def _weights_on(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """`class_weights` and `absent_weights` on a device, sent there once."""
        if device not in self._there:
            first, second = (w if w is None else w.to(device) for w in (self.class_weights, self.absent_weights))
            self._there[device] = first, second
        return self._there[device]


class Contrastive:
    """Cosines of a batch's texts, each with all the others: squared distance from one within a class, from zero between two;
    both kinds of pairs weigh the same (Tunstall et al. 2022).

    A batch of n texts is n * (n - 1) / 2 pairs for the price of n texts, so the cost is linear in texts where a list of
    pairs passes every text through the encoder once a pair.
    """

    def total(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the batch's pairs, times its rows.

        embedded
            What the head's projection reads. Shape: (texts, features)
        labels
            Shape: (texts,)
        """
        cosines = self._cosines(embedded)
        same = labels[:, None] == labels[None]
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        # Sums over masks, since picking the pairs out would ask the device how many there are. A row alone has none, and a loss of zero.
        kinds = [(same & others, 1 - cosines), (~same, cosines)]
        means = [(near * off.square()).sum() / near.sum().clamp(min=1) for near, off in kinds]
        there = torch.stack([near.any() for near, _ in kinds]).sum()
        return len(labels) * torch.stack(means).sum() / there.clamp(min=1)

    def normaliser(self, labels: np.ndarray) -> float:
        """What the summed loss of these rows is divided by: their number."""
        return float(len(labels))

    def correct(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """How many rows are nearest to one of their own class. Shape: ()"""
        nearest = self._cosines(embedded).fill_diagonal_(-2.0).argmax(1)
        return (labels[nearest] == labels).sum() * (len(labels) > 1)

    @staticmethod
    def _cosines(embedded: Tensor) -> Tensor:
        """Shape: (texts, texts)"""
        directions = F.normalize(embedded.float(), dim=1)
        return directions @ directions.T


def objective(train: Train, labels: np.ndarray, num_labels: int, *, multi_label: bool) -> Objective:
    """The objective of a configuration; `balanced` weights come from the training labels.

    Balanced weights are n / (classes * count), scikit-learn's rule; a class's mean weight is then one. With several
    labels a text each label is such a problem of two classes, there or not, and its rows' mean weight is one.

    Raises: UserError when a list of class weights has the wrong length.
    """
    weights: Tensor | None = None
    absent: Tensor | None = None
    if train.class_weights == "balanced" and multi_label:
        counts = labels.sum(axis=0)
        weights, absent = _balanced(counts, len(labels), 2), _balanced(len(labels) - counts, len(labels), 2)
    elif train.class_weights == "balanced":
        weights = _balanced(np.bincount(labels, minlength=num_labels), len(labels), num_labels)
    elif train.class_weights is not None:
        if len(train.class_weights) != num_labels:
            raise UserError(
                f"train.class_weights has {len(train.class_weights)} numbers, the data has {num_labels} classes"
            )
        if not any(train.class_weights):
            raise UserError("train.class_weights are all zero: give at least one class a weight")
        weights = torch.tensor(train.class_weights, dtype=torch.float32)
    return Objective(train.label_smoothing, weights, multi_label, absent)


def _balanced(counts: np.ndarray, rows: int, classes: int) -> Tensor:
    """Weights by which classes of so many rows each are of equal sum. Shape: (classes,)"""
    return torch.tensor(rows / (classes * np.maximum(counts, 1)), dtype=torch.float32)
