"""Texts as every classifier takes them, and from logits to answers as every one gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rankwise.data.cleaning import PAIR
from rankwise.data.text import joined, mended
from rankwise.errors import UserError
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


def checked(texts: Any, readers: Mapping[str, bool]) -> list[str]:
    """Texts, or pairs of them, as the strings that they travel as.

    readers
        Who reads all of them, and whether that one reads pairs.

    Raises: UserError for what is no sequence of texts or of pairs, and where a reader reads the other.
    """
    if isinstance(texts, str):
        raise UserError("expected a sequence of texts, got one string: wrap it in a list")
    if not isinstance(texts, Iterable):
        raise UserError(f"expected a sequence of texts, got a {type(texts).__name__}")
    return [checked_text(row, text, readers) for row, text in enumerate(texts)]


def checked_text(row: int, text: Any, readers: Mapping[str, bool]) -> str:
    """`checked` of one text, `row` of them. A pair may be two strings, or the one that it travels as."""
    is_pair = isinstance(text, (list, tuple, np.ndarray)) and np.shape(text)[:1] == (2,)
    if not is_pair and not isinstance(text, str):
        raise UserError(f"text {row} is a {type(text).__name__}, expected a string, or two of them for a pair")
    for reader, reads_pairs in readers.items():
        if is_pair and not reads_pairs:
            raise UserError(f"text {row} is a pair, and {reader} reads one text: name the classifier that reads pairs")
        if reads_pairs and not is_pair and PAIR not in text:
            raise UserError(f"text {row} is no pair, and {reader} reads pairs: give two, as in [first, second]")
    if is_pair:
        return mended(joined(text, lambda: f"text {row}", pair=True)) or PAIR
    return mended(text if any(readers.values()) else text.replace(PAIR, " "))
