"""Whether rows are judged by folds: a few always, more where the clock has the time for some folds and for a whole run on all rows,
of a design that hardly ever loses.

A tenth of some thousand rows neither tells designs apart nor is it free: at 1,000 AG News rows it costs a point (LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rankwise.config import Config
from rankwise.data import Roles
from rankwise.data.folds import FEW_ROWS, FOLDS, TENTHS
from rankwise.deadline import Deadline
from rankwise.search.clock.clock import SLOWER, SURE, Clock
from rankwise.search.clock.plan import ENOUGH_STEPS, WANTED_EPOCHS, plan_alone
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.contenders import AT_ONCE
from rankwise.search.designs.design import usual_rate
from rankwise.search.folds.standing import Standing

_NEED_VALIDATION = {"data.validation_size", "train.evaluate", "train.refit_steps", "train.early_stopping"}
_MOST_ROWS = 2_000
"""of which a tenth knows an accuracy of 90% to four points, as far as designs are apart; of several thousand, a run on all of them is
not told apart from one on nine tenths (LOG.md)"""
_FEWEST_FOLDS = 2
"""that are planned; one alone still chooses, being a fifth, where the machine slows down"""
_MOST_EPOCHS = 10.0
"""beyond which twice the steps are not told apart; from five to ten AG News gains 0.5 to 1 point, trec6 1, emotion 0.2, and sst5 loses 1 (LOG.md)"""


def are_few(roles: Roles, config: Config, fixed: set[str]) -> bool:
    """Whether folds say more than the rows held out, whatever the clock, and nothing else needs those. Of several labels a text
    there are no pairs, and what is left to train takes the steps that the clock has to be asked for (`planned`).
    """
    assert roles.train is not None
    assert roles.validation is not None
    few = len(roles.train) + len(roles.validation) < max(FEW_ROWS, TENTHS * len(roles.label_names))
    return few and not config.data.multi_label and can_be_folded(config, fixed)


def can_be_folded(config: Config, fixed: set[str]) -> bool:
    """Whether nothing needs rows that are held out, which the user has named."""
    return config.data.validation is None and not fixed & _NEED_VALIDATION


@dataclass(frozen=True)
class FoldsPlan:
    """What fits the clock.

    folds
        Of which every contender answers for the rows held out, at least.
    steps
        Of a run, in every fold and on all rows.
    run_s, step_s
        Seconds of a run, and of a step of it.
    reserve_s
        For what comes after the last run.
    choosing_s
        For all folds of all contenders.
    longest
        Steps of the run on all rows, where more than a fold's fit; None where the user has fixed them.
    """

    folds: int
    steps: int
    epochs: float
    run_s: float
    step_s: float
    reserve_s: float
    choosing_s: float
    longest: int | None

    def choosing(self, clock: Clock) -> Deadline:
        """When the last fold has to be over."""
        return clock.deadline(self.reserve_s + self.run_s)

    def on_all_rows(self, chosen: Standing, left_s: float) -> Standing:
        """What folds chose, for as many more steps as what is left of the clock has room for, up to the most epochs.

        left_s
            Seconds for that run.
        """
        if self.longest is None or chosen.contender.steps is None:
            return chosen
        steps = min(self.longest, int(SURE * left_s * chosen.folds / chosen.seconds * self.steps))
        if steps <= self.steps:
            return chosen
        design = chosen.contender.of_length(steps).design or {}
        usual = {"train.learning_rate": usual_rate(steps)} if "train.learning_rate" in design else {}
        return replace(chosen, contender=replace(chosen.contender, design=design | usual))

    def seconds(self, left_s: float) -> float:
        """That it takes about, of so many."""
        longest = (self.longest or self.steps) / self.steps * self.run_s
        room = left_s - self.reserve_s - self.choosing_s
        return self.choosing_s + max(self.run_s, min(longest, SURE * room)) + 0.5 * self.reserve_s


def planned(config: Config, roles: Roles, speed: Speed, clock: Clock) -> FoldsPlan | None:
    """The most folds of the longest run that is worth its steps; None where there is no time for two of the shortest that is, or a
    tenth of the rows is enough to choose by."""
    assert roles.train is not None
    assert roles.validation is not None
    rows, batch, given = len(roles.train) + len(roles.validation), config.train.batch_size, config.train.steps
    alone = None if rows > _MOST_ROWS else plan_alone(config, speed, roles, clock)
    if alone is None:
        return None
    once_s = speed.once_s(SLOWER * rows)
    reserve_s = alone.reserve_s + once_s + clock.margin_s
    room_s = clock.left_s - reserve_s - clock.words_of_folds_s

    def steps_of(folds: int) -> int:
        solved_s = (folds * (1 + len(AT_ONCE)) + 1) * once_s
        return int((room_s - solved_s) / (folds + 1) / speed.step_s)

    least = given or max(ENOUGH_STEPS, round(WANTED_EPOCHS * rows / batch))
    steps = given or min(max(least, round(_MOST_EPOCHS * rows / batch)), steps_of(_FEWEST_FOLDS))
    if steps < least or steps > steps_of(_FEWEST_FOLDS):
        return None
    folds = max(folds for folds in range(_FEWEST_FOLDS, FOLDS + 1) if steps <= steps_of(folds))
    run_s = once_s + steps * speed.step_s
    longest = None if given else round(_MOST_EPOCHS * rows / batch)
    choosing_s = folds * (run_s + len(AT_ONCE) * once_s) + clock.words_of_folds_s
    return FoldsPlan(folds, steps, steps * batch / rows, run_s, speed.step_s, reserve_s, choosing_s, longest)
