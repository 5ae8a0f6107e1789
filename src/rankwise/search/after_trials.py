"""What follows `auto`'s trials in what its clock has left, in a first session or in one that goes on: the winner's design for longer,
words beside it, all rows, and what more would bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.runs.folder import Run
from rankwise.search.clock.longer import longer
from rankwise.search.clock.plan import SLOWER, spare_until
from rankwise.search.floors import beside
from rankwise.search.floors.all_rows import on_all_rows
from rankwise.search.floors.curve import more_line, of_labels
from rankwise.search.single_text import SingleText
from rankwise.training.deadline import Deadline


@dataclass(frozen=True)
class AfterTrials:
    """What is left of a clock behind the trials in a search's folder.

    clock_s
        Seconds of the whole clock.
    ends
        `time.time()` at which all is over.
    reserve_s, end_s
        Of `ClockPlan`: kept for all that comes after training, and of it for what comes last.
    step_s
        Of an optimizer step, as it was planned with.
    steps_given
        By the user: no run takes more.
    single
        What one text may take, by the configuration of a winner.
    """

    folder: Path
    clock_s: float
    ends: float
    reserve_s: float
    end_s: float
    step_s: float
    steps_given: bool
    single: Callable[[Winner], SingleText]

    @property
    def deadline(self) -> Deadline:
        """By which training must have ended."""
        return Deadline(self.ends, self.reserve_s, SLOWER * self.step_s)

    def rivals(self, winner: Winner) -> Winner | None:
        """The winner of the trials for longer, with words beside it, or both; None where neither is better."""
        again = None if self.steps_given else longer(winner, self.folder, self.deadline)
        return beside.with_words(again or winner, self.folder, self.single(winner).is_quick) or again

    def ending(self, winner: Winner) -> Winner:
        """What is shipped, on all rows where that takes no steps."""
        return on_all_rows(winner, self.folder, self.ends - self.end_s)

    def lines(self, record: SearchRecord, origin: AutoRecord) -> list[str]:
        """What one text takes with the winner, and what more labels and minutes would bring; the former is kept in the origin."""
        assert record.winner is not None
        timed = self.single(record.winner).line(record.winner, self.folder)
        origin.more = of_labels(origin.floors, self.folder, spare_until(self.ends, self.clock_s))
        winner = Run(self.folder / record.winner.run)
        validation = winner.record.data.get("validation")
        return [*timed, *(more_line(origin.more, winner, validation.rows) if validation else [])]
