"""Goals: what evaluations, trials and the winner are chosen by, and how a classifier trained for it decides.

    accuracy, macro_f1, loss           of `scoring.metrics`; the most probable label is the answer
    recall@precision=P:CLASS           how much of a class is found where at least P of what is called so is right
    cost:FILE                          mean cost of the answers, by a matrix of what each mistake costs

A new one is a file beside these and an entry in `KINDS`. Light to import: configurations are checked with it.
"""

from __future__ import annotations

from rankwise.errors import UserError
from rankwise.scoring.goals.cost import Cost
from rankwise.scoring.goals.goal import Goal
from rankwise.scoring.goals.plain import PLAIN, Plain
from rankwise.scoring.goals.recall import RecallAtPrecision

KINDS: tuple[type[Goal], ...] = (Plain, RecallAtPrecision, Cost)
WRITTEN = (*PLAIN, RecallAtPrecision.WRITTEN, Cost.WRITTEN)
"""how goals are written"""

__all__ = ["KINDS", "PLAIN", "WRITTEN", "Goal", "goal_of"]


def goal_of(text: str, key: str = "goal") -> Goal:
    """The goal that a text names.

    key
        What the sentence of a refusal calls it.

    Raises: UserError for one that is not there, or whose numbers are none.
    """
    for kind in KINDS:
        if kind.named(text):
            return kind.of(text, key)
    raise UserError(f"{key}: unknown value, got {text!r}; expected one of {', '.join(WRITTEN)}")
