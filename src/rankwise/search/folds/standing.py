"""What cross-validation says of a contender, by the goal, and how that stands in the run that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.rows import Rows
from rankwise.models.layout import RECORD as ADAPTER
from rankwise.records import AdapterRecord, Decision, Scores
from rankwise.records.record import changing
from rankwise.records.search import FoldsScore
from rankwise.runs import card
from rankwise.runs.folder import Run
from rankwise.scoring import judged as judging
from rankwise.scoring import predictions
from rankwise.scoring.calibration import fit_temperature
from rankwise.scoring.goals import Goal, goal_of
from rankwise.search.designs.contenders import Contender

_ACCURACY = goal_of("accuracy")
_FITTED_ON_ALL = "this run is fitted on all rows"


@dataclass(frozen=True)
class Standing:
    """What cross-validation says of a contender.

    held_out, labels, logits
        Numbers of the rows that each fold held out, and what goes with them. Shapes: (rows,), (rows,), (rows, classes)
    """

    contender: Contender
    held_out: Sequence[NDArray[np.int64]]
    labels: Sequence[NDArray[np.int64]]
    logits: Sequence[NDArray[np.float32]]
    names: Sequence[str]
    seconds: float
    goal: Goal = _ACCURACY

    @property
    def folds(self) -> int:
        """that it was judged by"""
        return len(self.logits)

    @cached_property
    def _rows(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Logits and labels of all held-out rows together."""
        return np.concatenate(self.logits), np.concatenate(self.labels)

    @cached_property
    def decision(self) -> Decision | None:
        """How it decides for the goal, fitted on all held-out rows together."""
        return self.goal.decision(*self._rows, self.names)

    @cached_property
    def _judged(self) -> tuple[Scores, NDArray[Any]]:
        scores, predicted = judging.judge(self.decision, *self._rows, self.names)
        scores.folds = self.folds
        return scores, predicted

    @property
    def scores(self) -> Scores:
        """Of all held-out rows together."""
        return self._judged[0]

    @cached_property
    def value(self) -> float:
        """What the goal came to."""
        return self.goal.value(self.scores, *self._rows, self.names)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each held-out row was answered rightly, with every label of it. Shape: (rows,)"""
        return judging.right(self._judged[1], self._rows[1])

    @cached_property
    def calibrated_loss(self) -> float:
        """The loss of all held-out rows under the temperature that suits them: what a contender knows, however confident."""
        return fit_temperature(*self._rows).loss_after

    def over(self, folds: int) -> Standing:
        """What the first folds say."""
        return replace(self, held_out=self.held_out[:folds], labels=self.labels[:folds], logits=self.logits[:folds])

    def redrawn(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the goal comes to, the higher the better, of rows that count so often. Shape: (draws, rows) -> (draws,)"""
        return self.goal.redrawn(self._rows[1], self._judged[1], self.names, drawn)

    def keep(self, run: Run, rows: Rows) -> None:
        """Write it down as the validation of a run on all rows, and how that decides: what is calibrated, compared and reported
        by rows held out.

        rows
            Those that folds were made of.
        """
        held = rows.take(np.concatenate(self.held_out))
        said = f"; {self.decision.note}" if self.decision is not None and self.decision.note else ""
        predictions.write_logits(run.path, "validation", self.names, held, *self._rows[:1], self._judged[1])
        with run.changing() as result:
            result.metrics.validation, result.decision = self.scores, self.decision
            result.notes = [note for note in result.notes if _FITTED_ON_ALL not in note]
            low, high = self.scores.accuracy_ci95
            result.notes.append(
                f"accuracy {self.scores.accuracy:.4f} (95% {low:.4f} to {high:.4f}) by {self.folds} folds on {len(held)} rows; "
                f"{_FITTED_ON_ALL}, so none is left to choose by{said}"
            )
        if run.adapter.is_dir():
            with changing(run.adapter / ADAPTER, AdapterRecord) as adapter:
                adapter.decision = self.decision
            card.write(run)

    def record(self) -> FoldsScore:
        """What search.json says of it."""
        scores = self.scores
        return FoldsScore(
            design=self.contender.title,
            steps=self.contender.steps if self.contender.lengths else None,
            seconds=self.seconds,
            examples=scores.examples,
            accuracy=scores.accuracy,
            accuracy_ci95=scores.accuracy_ci95,
            loss=scores.loss,
            macro_f1=scores.macro_f1,
            value=None if self.goal.text == "accuracy" else self.value,
        )
