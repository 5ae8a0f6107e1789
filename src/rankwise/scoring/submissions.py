"""Answers as competitions want them: the papers' `ID,Label`, a file with its own ids, and a sample's layout."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import UserError
from rankwise.scoring.writers import Cells, Column

KAGGLE_HEADERS = (("ID", "Label"), ("ID", "label"))
"""Headers of the papers' hidden test, whose rows are numbered and whose labels are numbers."""


def names_in(header: str) -> tuple[str, str]:
    """The names of a header's two columns. Raises: UserError for any other number of them."""
    names = next(csv.reader([header]), [])
    if len(names) != 2 or not all(name.strip() for name in names):
        raise UserError(f"the kaggle header '{header}' names {len(names)} columns, expected two: the id and the label")
    return names[0], names[1]


@dataclass
class Submission:
    """Two columns: an id and a label.

    With neither `own_ids` nor `spelled` it is the papers' hidden-test file: rows numbered from 0 in input order, and
    labels as numbers, in the order of the classes.
    """

    header: tuple[str, str]
    own_ids: bool
    spelled: bool
    _rows: int = 0

    @property
    def columns(self) -> list[Column]:
        """Of the file."""
        identifier, label = self.header
        return [Column(identifier, "id"), Column(label, "label")]

    def cells(self, ids: Sequence[Any], p: np.ndarray, answers: np.ndarray, names: Sequence[str]) -> Cells:
        """Of a window: its ids, probabilities (rows, classes), answers (rows,) and their names."""
        numbers = range(self._rows, self._rows + len(ids))
        self._rows += len(ids)
        return [list(map(_id_text, ids)) if self.own_ids else numbers, names if self.spelled else answers.tolist()]

    def rest(self) -> None:
        """Nothing was held back."""


@dataclass
class Sample:
    """A sample submission decides the columns, the order and the ids; answers are held until all are known.

    asked
        Its columns: the id, then one for the label, or one a class for its probability.
    ids
        As text, in order.

    Raises: UserError for columns that are neither.
    """

    path: Path
    asked: Sequence[str]
    ids: Sequence[str]
    label_names: Sequence[str]
    _held: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = self.asked[1:]
        self._places = [list(self.label_names).index(name) for name in wanted if name in self.label_names]
        self._shares = len(wanted) > 1 or bool(self._places)
        if self._shares and len(self._places) != len(wanted):
            unknown = next(name for name in wanted if name not in self.label_names)
            raise UserError(
                f"{self.path} has the columns {', '.join(self.asked)}: expected an id and a label, or an id and "
                f"classes, and '{unknown}' is no class of {', '.join(self.label_names[:10])}"
            )

    @property
    def columns(self) -> list[Column]:
        """Of the file."""
        identifier, *wanted = self.asked
        return [Column(identifier, "id"), *(Column(name, "share" if self._shares else "label") for name in wanted)]

    def cells(self, ids: Sequence[Any], p: np.ndarray, answers: np.ndarray, names: Sequence[str]) -> Cells:
        """None yet; see `Submission.cells`."""
        rows = p[:, self._places].tolist() if self._shares else [[name] for name in names]
        self._held.update(zip(map(_id_text, ids), map(tuple, rows), strict=True))
        return [[] for _ in self.asked]

    def rest(self) -> Cells:
        """All rows, in order. Raises: UserError for an id that the texts do not have."""
        missing = [name for name in self.ids if name not in self._held]
        if missing:
            raise UserError(
                f"{self.path} asks for the id {missing[0]}, one of {len(missing):,} that the texts do not have"
            )
        return [self.ids, *zip(*(self._held[name] for name in self.ids), strict=True)]


def _id_text(name: Any) -> str:
    return str(int(name)) if isinstance(name, (float, np.floating)) and float(name).is_integer() else str(name)
