"""What every goal answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankwise.records.result import Decision, Scores

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Goal:
    """What is to be as high, or as low, as can be. `text` is how it is written, and its name among scores."""

    text: str
    LOWER: ClassVar[bool] = False
    """whether less is better"""

    @classmethod
    def named(cls, text: str) -> bool:
        """Whether a text is meant to be a goal of this kind."""
        raise NotImplementedError

    @classmethod
    def of(cls, text: str, key: str) -> Goal:
        """The goal of a text of this kind. Raises: UserError."""
        raise NotImplementedError

    @property
    def lower_is_better(self) -> bool:
        """Whether less is better."""
        return self.LOWER

    def better(self, value: float) -> float:
        """A value such that the higher is the better, whatever the goal; minus infinity for none."""
        if value != value:
            return float("-inf")
        return -value if self.lower_is_better else value

    def check(self, label_names: Sequence[str], *, multi_label: bool) -> None:
        """Refuse classes that the goal does not fit, in one sentence. Raises: UserError."""

    def value(self, scores: Scores, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> float:
        """What was reached on validation rows, decided as best these rows allow.

        scores
            What `scoring.metrics.evaluate` says of the rows.
        logits, labels
            Shapes: (rows, classes); (rows,) class numbers, or (rows, classes) zeros and ones.
        """
        raise NotImplementedError

    def decision(self, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> Decision | None:
        """How a classifier decides for this goal, fitted on validation rows; None: the most probable label."""
        return None

    def remembered(self, decision: Decision) -> Goal:
        """The goal as it was when a decision was fitted for it."""
        return self

    def reached(self, labels: NDArray[Any], predicted: NDArray[Any], label_names: Sequence[str]) -> dict[str, float]:
        """What answers are worth by this goal: `value`, and what belongs to it. Shapes as in `value`."""
        raise NotImplementedError

    def redrawn(self, labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str], weights: Floats) -> Floats:
        """The goal, the higher the better, of rows that count so often. Shape: (draws, rows) -> (draws,)"""
        raise NotImplementedError
