"""The rows of one role, as training and scoring take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
