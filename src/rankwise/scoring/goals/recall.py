"""recall@precision=P:CLASS: how much of a class is found where at least P of what is called so is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rankwise.errors import UserError, nearest
from rankwise.scoring.goals.goal import Goal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankwise.records.result import Decision, Scores

    Floats = NDArray[np.float64]

_START = "recall@precision"


@dataclass(frozen=True)
class RecallAtPrecision(Goal):
    """Recall of a class at the threshold that keeps its precision."""

    precision: float
    class_name: str
    WRITTEN: ClassVar[str] = "recall@precision=P:CLASS"

    @classmethod
    def named(cls, text: str) -> bool:
        """By how it begins."""
        return text.startswith(_START)

    @classmethod
    def of(cls, text: str, key: str) -> RecallAtPrecision:
        """Raises: UserError for a precision that is no share, or no class."""
        match = re.fullmatch(rf"{_START}=([^:]+):(.+)", text, re.DOTALL)
        if match is None:
            raise UserError(f"{key}: expected {cls.WRITTEN}, such as recall@precision=0.9:fraud, got {text!r}")
        try:
            precision = float(match[1])
        except ValueError:
            precision = float("nan")
        if not 0 < precision <= 1:
            raise UserError(f"{key}: the precision of {text!r} must be above 0 and at most 1, got {match[1]}")
        return cls(text, precision, match[2])

    def check(self, label_names: Sequence[str], *, multi_label: bool) -> None:
        """Refuse a class that the data do not have."""
        if self.class_name not in label_names:
            hint = nearest(self.class_name, label_names) or f"; the classes are {', '.join(map(str, label_names[:20]))}"
            raise UserError(f"goal {self.text}: there is no class '{self.class_name}'{hint}")

    def value(self, scores: Scores, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> float:
        """0 where no threshold keeps the precision."""
        from rankwise.scoring.thresholds import at_precision

        of_class, true = self._of_class(logits, labels, label_names)
        found = at_precision(of_class, true, self.precision)
        return found.recall if found.precision >= self.precision else 0.0

    def decision(self, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> Decision:
        """The class is the answer from its threshold on, whatever else is more probable; else the best of the others."""
        from rankwise.records.result import Decision
        from rankwise.scoring.thresholds import at_precision, of_several_labels

        scores, true = self._of_class(logits, labels, label_names)
        found = at_precision(scores, true, self.precision)
        others = of_several_labels(self.text, logits, labels, label_names) if labels.ndim == 2 else None
        thresholds = (others.thresholds if others else {}) | {self.class_name: found.threshold}
        note, value = None, found.recall
        if found.precision < self.precision:
            value = 0.0
            note = (
                f"no threshold has a precision of {self.precision:g} for {self.class_name} on the {len(labels):,} validation "
                f"rows: the one with the highest, {found.precision:.3f}, is kept"
            )
        return Decision(goal=self.text, thresholds=thresholds, rows=len(labels), value=value, note=note)

    def reached(self, labels: NDArray[Any], predicted: NDArray[Any], label_names: Sequence[str]) -> dict[str, float]:
        """Recall, and the precision it came with; of no row, 0."""
        true, called = self._sides(labels, predicted, label_names)
        hits = int((true & called).sum())
        return {"value": hits / max(1, int(true.sum())), "precision": hits / max(1, int(called.sum()))}

    def redrawn(self, labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str], weights: Floats) -> Floats:
        """Recall."""
        import numpy as np

        true, called = self._sides(labels, predicted, names)
        return np.asarray((weights @ (true & called)) / np.maximum(weights @ true, 1), dtype=np.float64)

    def _of_class(
        self, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """The class's probability of every row, and whether the row is of it. Shape: (rows,) each"""
        from rankwise.scoring.calibration import apply_temperature

        several, place = labels.ndim == 2, list(label_names).index(self.class_name)
        scores = apply_temperature(logits, 1.0, multi_label=several)[:, place]
        return scores, (labels[:, place] == 1) if several else (labels == place)

    def _sides(
        self, labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether a row is of the class, and whether it is called so. Shape: (rows,) each"""
        place = list(names).index(self.class_name)
        if labels.ndim == 2:
            return labels[:, place] == 1, predicted[:, place] == 1
        return labels == place, predicted == place
