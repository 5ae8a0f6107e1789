"""The minutes of `auto`, and what every stage may take of them, in the order in which stages come.

A stage gets seconds, or a `Deadline` by which it must be over; what it does with them is its own (`Deadline.part`). What is left
for training, in runs and steps, is planned in `plan`, by what is kept here for the end.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rankwise.deadline import Deadline
from rankwise.planning.steps import PROBE_FIRST_ROWS
from rankwise.search.clock.speed import Speed

SLOWER = 1.3
"""How much slower than measured the end may score."""
SURE = 0.9
"""of the time that is left for one more run: what the machine may slow down by"""
WORTH = 0.6
"""of the winner's steps: a run much shorter than the winner's hardly beats it"""
PROOF_S = 5.0
"""for the proof and the test rows, where nobody has measured how fast this machine is"""
_CHOOSE = 500
"""rows, at least"""
_TESTED = 0.25
"""of the clock, for test rows at most: more of them tell a score a little better, and leave the classifier worse"""
_END_S = 2.0
"""for the proof, and for what is written, as often as other programs make them longer"""


@dataclass(frozen=True)
class Clock:
    """The minutes of `auto`.

    started
        `time.time()` from which they count.
    seconds
        In all.
    """

    started: float
    seconds: float

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return time.time() - self.started

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.seconds - self.spent_s

    def deadline(self, kept_s: float = 0.0, step_s: float = math.inf) -> Deadline:
        """The end of what leaves so many seconds: of training, the sooner, the slower steps have become.

        step_s
            Of an optimizer step, as it was planned with.
        """
        return Deadline(self.started + self.seconds, kept_s, SLOWER * step_s)

    # --- what there is to learn from, and how fast this machine is ------------------------------------------------

    def choosing_rows(self, held_out: int, score_s: float) -> int:
        """Of the rows that would be held out to choose by, as many as a twenty-fifth of the clock scores, since they are scored again
        and again in place of training: half of them, a quarter and so on, but five hundred in any case, by which an accuracy of 90%
        is known to three points (95%).

        score_s
            Of a text.
        """
        rows = held_out
        while rows // 2 >= _CHOOSE and rows * score_s > 0.04 * self.seconds:
            rows //= 2
        return rows

    @property
    def measuring_s(self) -> float:
        """For timing steps and scores, each time."""
        return min(20.0, 0.03 * self.seconds)

    @property
    def sample_s(self) -> float:
        """For frozen features of a sample of rows, by which bases are compared."""
        return 0.03 * self.seconds

    @property
    def cuts_s(self) -> float:
        """For frozen features of long texts cut in two ways."""
        return 0.03 * self.seconds

    @property
    def most_cuts_s(self) -> float:
        """For the same, of no more rows than are sure; where rows are few, for one more way to cut them, since choosing needs the
        other anyway and has most of that clock."""
        return 0.1 * self.seconds

    # --- what is solved at once -----------------------------------------------------------------------------------

    @property
    def words_s(self) -> float:
        """For counting words: of a large file as many rows as that takes."""
        return 0.1 * self.seconds

    def head_rows(self, rows: int, speed: Speed) -> int | None:
        """Training rows that heads are fitted on, so that their features take no more than a tenth of the clock; None for all.

        rows
            Training rows there are.
        speed
            With which texts are scored.
        """
        room = int(0.1 * self.seconds / speed.score_s)
        return None if room >= rows else max(room, PROBE_FIRST_ROWS)

    def floors(self) -> Deadline:
        """After which no further floor is begun."""
        return Deadline.after(0.2 * self.seconds)

    def a_floor(self) -> Deadline:
        """What one of them may take where there is one already."""
        return self.deadline().part(0.4)

    # --- choosing by folds ----------------------------------------------------------------------------------------

    def choosing(self, end_s: float) -> Deadline:
        """Of few rows; a fifth of what the end leaves is for fitting the chosen one on all rows.

        end_s
            For the proof and the test rows (`end_of_few_s`).
        """
        return self.deadline(end_s + 0.2 * max(0.0, self.seconds - end_s))

    def end_of_few_s(self, crowding: float, tested_s: float = 0.0) -> float:
        """For that proof and those scores: where other work comes after the folds were timed, they take several times what they would
        alone; choosing leaves little more.

        crowding
            How many times as long as alone a thread takes.
        tested_s
            For scoring the test rows, as long as it takes by now.
        """
        least = max(min(PROOF_S * crowding, 0.35 * self.seconds), 0.25 * self.seconds)
        return max(least, self.tested_s(SLOWER * tested_s) + PROOF_S)

    def are_many(self, tested: int) -> bool:
        """Whether test rows may take more than the margin, at the twentieth of a second that a text takes where machine and base are
        slow, so that the seconds are well spent that tell how long they take here."""
        return 0.05 * tested > self.margin_s

    @property
    def words_of_folds_s(self) -> float:
        """For counting words in every fold, of more rows than a few."""
        return 0.05 * self.seconds

    # --- the end --------------------------------------------------------------------------------------------------

    @property
    def margin_s(self) -> float:
        """For a machine that slows down."""
        return 0.05 * self.seconds

    def tested_s(self, all_s: float) -> float:
        """For scoring test rows: for as many as a quarter of the clock scores, drawn by chance, where all of them take longer.

        all_s
            What all of them take.
        """
        return min(all_s, _TESTED * self.seconds)

    def testing(self) -> Deadline:
        """After which no more test rows are scored."""
        return self.deadline(_END_S + 0.02 * self.seconds)

    def last_s(self, speed: Speed, tested: int) -> float:
        """For what comes last, whatever is shipped: the proof, and scoring test rows."""
        tested_s = self.tested_s(SLOWER * tested * speed.score_s)
        return speed.setup_s + tested_s + _END_S * speed.crowding + 0.02 * self.seconds

    def after_training_s(self, speed: Speed, scored: int, tested: int) -> float:
        """For a reload, a scoring of rows that are not the test's, and what comes last."""
        return speed.once_s(SLOWER * scored) + _END_S * speed.crowding + self.last_s(speed, tested)

    def spare(self) -> Deadline:
        """Until when what may be left out has time; what is written after it takes its seconds."""
        return self.deadline(self.margin_s + _END_S)
