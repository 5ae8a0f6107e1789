"""cost:FILE: the mean cost of answers, by a matrix of what each mistake costs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rankwise.errors import UserError
from rankwise.scoring.goals.goal import Goal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankwise.records.result import Decision, Scores

    Floats = NDArray[np.float64]

_START = "cost:"
Costs = list[list[float]]
"""by true class and answer"""


@dataclass(frozen=True)
class Cost(Goal):
    """Mean cost of the answers that are expected to cost least.

    costs
        The matrix, where it need not be read.
    """

    costs: Costs | None = None

    LOWER: ClassVar[bool] = True
    WRITTEN: ClassVar[str] = "cost:FILE"

    @classmethod
    def named(cls, text: str) -> bool:
        """By how it begins."""
        return text.startswith(_START)

    @classmethod
    def of(cls, text: str, key: str) -> Cost:
        """Raises: UserError where no file is named; it is read with the classes at hand."""
        if not text.removeprefix(_START):
            raise UserError(f"{key}: expected {cls.WRITTEN}, the file of a matrix of costs, got {text!r}")
        return cls(text)

    def check(self, label_names: Sequence[str], *, multi_label: bool) -> None:
        """Refuse a file that is no matrix of these classes."""
        if multi_label:
            raise UserError(f"goal {self.text}: a matrix of costs is for one label a text, and these carry several")
        self._matrix(label_names)

    def remembered(self, decision: Decision) -> Cost:
        """With the matrix that the decision was made with: the file may be gone."""
        return Cost(self.text, decision.costs)

    def value(self, scores: Scores, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> float:
        """Mean cost a row."""
        value = self.decision(logits, labels, label_names).value
        assert value is not None
        return value

    def decision(self, logits: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]) -> Decision:
        """The answer that is expected to cost least, by probabilities that mean what they say (Elkan 2001)."""
        from rankwise.records.result import Decision
        from rankwise.scoring.calibration import fit_temperature
        from rankwise.scoring.decisions import decide

        made = Decision(
            goal=self.text,
            costs=self._matrix(label_names),
            temperature=fit_temperature(logits, labels).value,
            rows=len(labels),
        )
        predicted = decide(made, logits, label_names, multi_label=False)
        made.value = self.reached(labels, predicted, label_names)["value"]
        return made

    def reached(self, labels: NDArray[Any], predicted: NDArray[Any], label_names: Sequence[str]) -> dict[str, float]:
        """Mean cost a row."""
        return {"value": float(self._of_rows(labels, predicted, label_names).mean())}

    def redrawn(self, labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str], weights: Floats) -> Floats:
        """Minus the mean cost."""
        import numpy as np

        return np.asarray(-(weights @ self._of_rows(labels, predicted, names)) / weights.sum(axis=1), dtype=np.float64)

    def _of_rows(self, labels: NDArray[Any], predicted: NDArray[Any], label_names: Sequence[str]) -> Floats:
        import numpy as np

        of_rows: Floats = np.asarray(self._matrix(label_names), dtype=np.float64)[labels, predicted]
        return of_rows

    def _matrix(self, label_names: Sequence[str]) -> Costs:
        """Costs by true class and answer, both in the order of the classes."""
        if self.costs is not None:
            return self.costs
        return read_costs(Path(self.text.removeprefix(_START)), label_names)


def read_costs(path: Path, label_names: Sequence[str]) -> Costs:
    """A matrix in CSV: answers name the columns, true classes the rows, in any order. Shape: (true, answer)

    Raises: UserError for a file that is not there or no such matrix, and for classes that disagree.
    """
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: a matrix of costs could not be read there: {error}") from error
    if not rows:
        raise UserError(f"{path} is empty, expected a matrix of costs with the names of the classes")
    answers, true = [cell.strip() for cell in rows[0][1:]], [row[0].strip() for row in rows[1:]]
    names = [str(name) for name in label_names]
    for what, those in (("columns", answers), ("rows", true)):
        missing, strange = [n for n in names if n not in those], [n for n in those if n not in names]
        if missing or strange or len(set(those)) != len(those):
            said = [f"lack {', '.join(missing)}"] if missing else []
            said += [f"name {', '.join(strange)}, which the data do not have"] if strange else []
            raise UserError(f"{path}: its {what} {' and '.join(said) or 'name a class twice'}")
    return [[_cost(path, rows[1 + true.index(t)], t, 1 + answers.index(a), a) for a in names] for t in names]


def _cost(path: Path, row: Sequence[str], true: str, place: int, answer: str) -> float:
    cell = row[place].strip() if place < len(row) else ""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{path}: the cost of answering {answer} to {true} is {cell!r}, expected a number from 0")
    return value
