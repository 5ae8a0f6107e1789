"""Which evaluation is the best so far, whether training should stop, and a loss that says that it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch.optim.optimizer import StateDict

from rankwise.config import EarlyStopping, Select
from rankwise.errors import UserError
from rankwise.records import HistoryRow, Scores
from rankwise.scoring.goals import goal_of


class Diverged(UserError):
    """Training met a loss or weights that are not finite: what comes after would be worth nothing."""


def better(new: float, old: float | None, metric: str, mode: str | None = None, min_delta: float = 0.0) -> bool:
    """Whether `new` beats `old` by more than `min_delta`; any number beats None, nothing beats by being equal."""
    if new != new:
        return False
    if old is None:
        return True
    lower = mode == "min" if mode else goal_of(metric).lower_is_better
    return (old - new if lower else new - old) > min_delta


@dataclass
class Selection:
    """The best evaluation by the named metric; ties go to the lower loss, then to the earlier step."""

    metric: str
    mode: str | None
    step: int = 0
    value: float | None = None
    loss: float | None = None

    @classmethod
    def of(cls, select: Select) -> Selection:
        """An empty selection."""
        return cls(select.metric, select.mode)

    def observe(self, step: int, scores: Scores) -> bool:
        """Take in an evaluation; True when it is the best so far."""
        value, loss = scores.value(self.metric), scores.loss
        tie = value == self.value and self.loss is not None and loss < self.loss
        if not (tie or better(value, self.value, self.metric, self.mode)):
            return False
        self.step, self.value, self.loss = step, value, loss
        return True


@dataclass
class Stopper:
    """Counts evaluations without an improvement of more than `min_delta` (the Trainer's rule)."""

    metric: str
    patience: int
    min_delta: float
    best: float | None = None
    waited: int = 0

    @classmethod
    def of(cls, rule: EarlyStopping) -> Stopper:
        """A fresh count."""
        return cls(rule.metric, rule.patience, rule.min_delta)

    def observe(self, scores: Scores) -> bool:
        """Take in an evaluation; True when training should stop."""
        value = scores.value(self.metric)
        if better(value, self.best, self.metric, min_delta=self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def restore(target: Selection | Stopper, state: StateDict) -> None:
    """Put a saved `asdict` back."""
    for name in asdict(target):
        setattr(target, name, state[name])


def warnings(history: Sequence[HistoryRow], selection: Selection, last_step: int, *, stopped_early: bool) -> list[str]:
    """What the reader of a finished run should know about where its best lies."""
    notes: list[str] = []
    if len(history) >= 2 and stopped_early and history[-1].validation_loss < history[-2].validation_loss:
        notes.append("still improving when stopped: the validation loss fell at the last evaluation")
    if len(history) >= 2 and selection.step == last_step:
        notes.append("the best evaluation was the last: more steps may score higher")
    return notes
