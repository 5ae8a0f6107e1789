"""What the loop trains and scores on: tokenised texts with their labels, augmented anew in every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise.data import Rows
from rankwise.data.text import augment
from rankwise.data.tokens import Tokens, encode, tokenise
from rankwise.machine import caches
from rankwise.planning import Plan


def tokenised(rows: Rows, tokenizer: Any, max_length: int | None, plan: Plan) -> Tokens:
    """Tokenised rows, from the cache when these texts met this tokenizer before."""
    return tokenise(
        rows.texts,
        tokenizer,
        max_length,
        caches.cache("tokens"),
        positions=plan.positions,
        truncation=plan.config.data.truncation,
    )


@dataclass(frozen=True)
class Augmentation:
    """Changes to training texts. What a row becomes depends on (seed, epoch, row) alone, so a resume repeats it."""

    texts: Sequence[str]
    changes: Mapping[Any, float]
    tokenizer: Any
    max_length: int
    truncation: str
    seed: int

    def take(self, rows: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Token ids of some rows as they are met in an epoch, made on the spot: they are needed once.

        Shape of each: (tokens,)
        """
        changed = [
            augment(self.texts[row], self.changes, seed=self.seed, epoch=epoch, row=row) for row in map(int, rows)
        ]
        return list(encode(changed, self.tokenizer, self.max_length, self.truncation))


@dataclass(frozen=True)
class Examples:
    """Tokenised texts with their labels. labels: (texts,) classes, or (texts, classes) zeros and ones."""

    tokens: Tokens
    labels: np.ndarray
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Token ids of some rows, augmented for the epoch where that is asked for. Shape of each: (tokens,)"""
        if self.augmentation is not None:
            return self.augmentation.take(rows, epoch)
        return self.tokens.take(rows)
