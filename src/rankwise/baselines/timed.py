"""TF-IDF in time: as many rows, n-grams and iterations as there is room for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rankwise.baselines.regression import Solution, solve
from rankwise.deadline import Deadline

_OF_VECTORS = 0.4
"""of what is left, for counting n-grams; the rest solves"""
_FEWEST_ROWS = 2_000
_SLOWER = 1.5
"""how much slower than measured counting may be: vocabularies grow with the rows"""


class Pace:
    """What a row takes, and for how many there is time."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.kept_s = math.inf
        self.row_s: dict[str, float] = {}

    def part(self, share: float) -> Pace:
        """The same in a share of what is left; the rest is kept."""
        part = Pace(self.deadline.part(share))
        part.row_s, part.kept_s = self.row_s, (1 - share) * max(0.0, self.deadline.left_s())
        return part

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline.has_passed

    @contextmanager
    def measuring(self, kind: str, rows: int) -> Iterator[None]:
        """Around counting n-grams of a kind in so many rows."""
        started = time.perf_counter()
        yield
        self.row_s[kind] = (time.perf_counter() - started) / max(1, rows)

    def room(self, kinds: Sequence[str], count: int) -> float:
        """The share of so many rows that there is time to count these kinds in, in what is kept beside a part."""
        return min(1.0, self._room(kinds, self.kept_s) / count)

    def rows(self, kinds: Sequence[str], count: int) -> int:
        """How many of so many rows to count these kinds in: a few at least."""
        return int(min(count, max(_FEWEST_ROWS, self._room(kinds, self.deadline.left_s()))))

    def _room(self, kinds: Sequence[str], seconds: float) -> float:
        if seconds == math.inf:
            return math.inf
        return _OF_VECTORS * seconds / (_SLOWER * sum(self.row_s.get(kind, math.inf) for kind in kinds))

    def solved(
        self, vectors: Any, labels: np.ndarray, classes: int, strength: float, before: Solution | None = None
    ) -> Solution:
        """A model of a few iterations at least.

        vectors, labels, strength
            As `regression.solve` has them.
        before
            An earlier model of the same rows to go on from.
        """
        return solve(vectors, labels, classes, strength, start=before, over=self.is_over)
