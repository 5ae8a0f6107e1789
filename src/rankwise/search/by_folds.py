"""Whether rows that are more than a few are judged by folds too: where the clock has the time for some of them and for a whole
run on all rows, of a design that hardly ever loses.

A tenth of some thousand rows neither tells designs apart nor is it free: at 1,000 AG News rows it costs a point (LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from rankwise.config import Config
from rankwise.data import Roles
from rankwise.data.folds import FOLDS
from rankwise.errors import UserError
from rankwise.search.clock import ENOUGH_STEPS, MARGIN_SHARE, SLOWER, WANTED_EPOCHS, plan_clock
from rankwise.search.speed import Speed

_MOST_ROWS = 2_000
"""of which a tenth knows an accuracy of 90% to four points, as far as designs are apart; of several thousand, a run on all of them is
not told apart from one on nine tenths (LOG.md)"""
_FEWEST_FOLDS = 2
"""that are planned; one alone still chooses, being a fifth, where the machine slows down"""
_MOST_EPOCHS = 10.0
"""of which so few rows gain, half a point over five (LOG.md)"""
_AT_ONCE = 3
"""contenders that are solved at once, of which each takes what setting up and scoring does"""
_OF_WORDS = 0.05
"""of the clock, for TF-IDF in every fold"""


@dataclass(frozen=True)
class FoldsPlan:
    """What fits the clock.

    folds
        Of which every contender answers for the rows held out, at least.
    steps
        Of a run, in every fold and on all rows.
    run_s
        Seconds of a run.
    reserve_s
        For what comes after the last run.
    """

    folds: int
    steps: int
    epochs: float
    run_s: float
    reserve_s: float

    def until(self, ends: float) -> float:
        """When the last fold has to be over, by the time at which all must."""
        return ends - self.reserve_s - self.run_s


def planned(config: Config, roles: Roles, speed: Speed, left_s: float, clock_s: float) -> FoldsPlan | None:
    """The most folds of the longest run that is worth its steps; None where there is no time for two of the shortest that is, or a
    tenth of the rows is enough to choose by."""
    assert roles.train is not None
    assert roles.validation is not None
    rows, batch, given = len(roles.train) + len(roles.validation), config.train.batch_size, config.train.steps
    if rows > _MOST_ROWS:
        return None
    try:
        fits = plan_clock(speed, roles, batch, left_s, clock_s, steps=given, available=lambda _: 1)
    except UserError:
        return None
    once_s = speed.setup_s + SLOWER * rows * speed.score_s
    reserve_s = fits.reserve_s + once_s + MARGIN_SHARE * clock_s

    def room_s(folds: int) -> float:
        return left_s - reserve_s - _OF_WORDS * clock_s - (folds * (1 + _AT_ONCE) + 1) * once_s

    def steps_of(folds: int) -> int:
        return int(room_s(folds) / (folds + 1) / speed.step_s)

    least = given or max(ENOUGH_STEPS, round(WANTED_EPOCHS * rows / batch))
    steps = given or min(max(least, round(_MOST_EPOCHS * rows / batch)), steps_of(_FEWEST_FOLDS))
    if steps < least or steps > steps_of(_FEWEST_FOLDS):
        return None
    folds = max(folds for folds in range(_FEWEST_FOLDS, FOLDS + 1) if steps <= steps_of(folds))
    return FoldsPlan(folds, steps, steps * batch / rows, once_s + steps * speed.step_s, reserve_s)
