"""What every writer of predictions does: batches in row order, labels by name, several labels in one cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.files import writing
from rankwise.scoring.metrics import decide

PROBABILITY_PREFIX = "p_"
# Between the labels of one row where a cell holds a single text and training named nothing else.
LABEL_SEPARATOR = "|"


class Writer:
    """Takes scored batches in row order. Subclasses say what a batch looks like in their format."""

    def __init__(
        self, path: Path, handle: IO[bytes], label_names: Sequence[str], labelled: bool, multi_label: bool
    ) -> None:
        self.path = path
        self.handle = handle
        self.label_names = list(label_names)
        self.labelled = labelled
        self.multi_label = multi_label
        self.rows = 0

    def add(
        self,
        ids: Sequence[Any],
        probabilities: NDArray[Any],
        labels: NDArray[Any] | None = None,
        predicted: NDArray[Any] | None = None,
    ) -> None:
        """Write one batch.

        Args:
            ids: what names each row. Shape: (rows,)
            probabilities: shape (rows, classes).
            labels: class numbers (rows,) or 0s and 1s (rows, classes); given exactly when `labelled`.
            predicted: the answers, of that shape, where they are not the most probable ones (`scoring.decisions`).
        """
        if (labels is not None) != self.labelled:
            raise ValueError("labels must be given exactly when the writer was opened with labelled=True")
        if predicted is None:
            predicted = decide(probabilities, probabilities=True) if self.multi_label else probabilities.argmax(1)
        with writing(self.path):
            self._write(ids, probabilities, predicted, labels)
        self.rows += len(ids)

    def finish(self) -> None:
        """Write what is held back and check the whole."""

    def release(self) -> None:
        """Let go of the open file, after success or failure."""

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        raise NotImplementedError

    def _named(self, numbers: NDArray[Any]) -> list[Any]:
        """Label names of class numbers: one text a row, or a list of texts with several labels."""
        if self.multi_label:
            return [[self.label_names[c] for c in np.flatnonzero(row)] for row in numbers]
        return [self.label_names[c] for c in numbers.tolist()]


def joined_labels(names: Sequence[str], separator: str = LABEL_SEPARATOR) -> str:
    """Labels as one cell that reads back to the same labels: a JSON list where the separator would not do."""
    is_plain = all(separator not in name and not name.startswith("[") for name in names)
    return separator.join(names) if is_plain else json.dumps(list(names), ensure_ascii=False)


def columns(label_names: Sequence[str], labelled: bool) -> list[str]:
    """Column names of a table of predictions."""
    return [
        "id",
        *(["label"] if labelled else []),
        "predicted",
        *(PROBABILITY_PREFIX + n for n in label_names),
    ]
