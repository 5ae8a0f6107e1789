"""Goals that are metrics as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rankwise.scoring.goals.goal import Goal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rankwise.records.result import Decision, Scores

PLAIN = ("accuracy", "loss", "macro_f1")


class Plain(Goal):
    """Accuracy, mean loss or macro F1."""

    @classmethod
    def named(cls, text: str) -> bool:
        """By its name alone."""
        return text in PLAIN

    @classmethod
    def of(cls, text: str, key: str) -> Plain:
        """The goal of a metric's name."""
        return cls(text)

    @property
    def lower_is_better(self) -> bool:
        """Of the loss alone."""
        return self.text == "loss"

    def value(self, scores: Scores, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> float:
        """The metric."""
        return scores.value(self.text)

    def decision(self, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> Decision | None:
        """A threshold a label where a text may carry several; else the most probable label."""
        from rankwise.scoring.thresholds import of_several_labels

        return of_several_labels(self.text, logits, labels, label_names) if labels.ndim == 2 else None
