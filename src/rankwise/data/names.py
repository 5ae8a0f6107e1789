"""Names of classes as texts: where they are words they say of a class what a few of its rows cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from rankwise.data.rows import Rows

_SENTENCE = "This text is about {}."


def are_words(names: Sequence[str]) -> bool:
    """Whether every class is called by letters, not by a number."""
    return all(any(character.isalpha() for character in name) for name in names)


def with_names(rows: Rows, names: Sequence[str]) -> Rows:
    """The rows, and two texts a class after them: its name as words, and a sentence with it (Schick and Schuetze 2021 on what
    names of classes know).

    names
        Of the classes, in the order of their numbers.
    """
    words = [_as_words(name) for name in names]
    texts = [*words, *(_SENTENCE.format(word) for word in words)]
    numbers = np.arange(len(names))
    labels = np.eye(len(names), dtype=rows.labels.dtype)[numbers] if rows.labels.ndim > 1 else numbers
    ids = [*rows.ids, *(f"name {number}" for number in range(len(texts)))]
    return replace(rows, texts=[*rows.texts, *texts], labels=np.concatenate([rows.labels, labels, labels]), ids=ids)


def _as_words(name: str) -> str:
    """A name with spaces for underscores, and between small letters and capitals of any alphabet."""
    marked = (f" {after}" if before.islower() and after.isupper() else after for before, after in pairwise(f" {name}"))
    return " ".join("".join(marked).replace("_", " ").split())
