"""The rows of one role, as training and scoring take them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """The rows of one role.

    Attributes:
        texts: after `data.preprocess`.
        labels: int64 class indices (rows,), or multi-hot float32 (rows, classes).
        ids: the source's `id` column, else row numbers of the source from 0.
        sha256: of the texts and class names as they were read, in order: equal rows, equal hash.
        texts_sha256: of the texts as they were read in any order: what was seen of them does not depend on it.
    """

    texts: list[str]
    labels: NDArray[Any]
    ids: list[Any]
    sha256: str
    texts_sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in their order; their hashes are of the whole and the numbers."""
        chosen = np.asarray(rows, dtype=np.int64)
        part = hashlib.sha256(chosen.tobytes()).hexdigest()

        def of_part(whole: str) -> str:
            return hashlib.sha256(f"{whole} {part}".encode()).hexdigest()

        return Rows(
            texts=[self.texts[row] for row in chosen],
            labels=self.labels[chosen],
            ids=[self.ids[row] for row in chosen],
            sha256=of_part(self.sha256),
            texts_sha256=of_part(self.texts_sha256),
        )
