"""From logits to answers, as every classifier gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankwise.records.result import Decision


class Answers:
    """What a classifier makes of its logits.

    temperature
        What logits are divided by before the softmax; 1 unless calibration is asked for.
    decision
        How probabilities become answers, where that was fitted for a goal; None: the most probable label.
    """

    label_names: list[str]
    multi_label: bool
    temperature: float
    decision: Decision | None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Float64. Shape: (texts, classes)"""
        from rankwise.scoring.calibration import apply_temperature

        return apply_temperature(logits, self.temperature, multi_label=self.multi_label)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The answers by number. Shape: (texts, classes) -> (texts,), or (texts, classes) zeros and ones"""
        from rankwise.scoring.decisions import of_probabilities

        return of_probabilities(
            self.decision,
            probabilities,
            self.label_names,
            multi_label=self.multi_label,
            temperature=self.temperature,
        )

    def names_of(self, probabilities: np.ndarray) -> list[Any]:
        """The label of each text, or the labels it carries. Shape: (texts, classes)"""
        from rankwise.scoring import decisions

        return decisions.names_of(self.decide(probabilities), self.label_names)
