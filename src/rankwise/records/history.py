"""history.csv: a run's evaluations, one a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from rankwise.records.result import Scores


class HistoryRow(msgspec.Struct, kw_only=True):
    """One evaluation.

    train_loss, train_accuracy
        Of the training rows since the evaluation before, as seen with dropout.
    goal
        The run's goal and its value, where it is no metric that stands there anyway; in the column `validation_GOAL`.
    loss_spread, loss_ratio, accuracy_spread, accuracy_ratio
        How far validation is from train: overfitting.
    """

    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float
    validation_accuracy: float
    learning_rate: float | None = None
    epoch: float | None = None
    loss_spread: float | None = None
    loss_ratio: float | None = None
    accuracy_spread: float | None = None
    accuracy_ratio: float | None = None
    validation_macro_f1: float
    goal: tuple[str, float] | None = None

    @classmethod
    def of(
        cls,
        step: int,
        scores: Scores,
        *,
        train_loss: float | None = None,
        train_accuracy: float | None = None,
        learning_rate: float | None = None,
        epoch: float | None = None,
    ) -> HistoryRow:
        """The row of validation scores, and how far they are from train's where there were training rows."""
        row = cls(
            step=step,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=scores.loss,
            validation_accuracy=scores.accuracy,
            validation_macro_f1=scores.macro_f1,
            learning_rate=learning_rate,
            epoch=epoch,
            goal=(scores.goal.name, scores.goal.value) if scores.goal is not None else None,
        )
        if train_loss is not None and train_accuracy is not None:
            row.loss_spread = scores.loss - train_loss
            row.loss_ratio = scores.loss / train_loss if train_loss else None
            row.accuracy_spread = train_accuracy - scores.accuracy
            row.accuracy_ratio = train_accuracy / scores.accuracy if scores.accuracy else None
        return row

    def values(self) -> dict[str, float | None]:
        """The row by column."""
        columns = msgspec.structs.asdict(self)
        del columns["goal"]
        return columns if self.goal is None else columns | {f"validation_{self.goal[0]}": self.goal[1]}


COLUMNS = tuple(name for name in HistoryRow.__struct_fields__ if name != "goal")


def to_csv(rows: Sequence[HistoryRow]) -> str:
    """A table of rows, numbers at eight digits and empty cells for None."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row.values())
    table = csv.DictWriter(text, columns or COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _cell(value) for name, value in row.values().items()} for row in rows)
    return text.getvalue()


def of_csv(text: str) -> list[dict[str, float | None]]:
    """The rows of a table, also of one with other columns than this version's, None where a cell is empty.

    Raises: ValueError for a cell that is no number.
    """
    return [
        {name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))
    ]


def _cell(value: float | None) -> str | int:
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else value
