"""`auto`'s trials and what follows them in what its clock has left, in a first session or in one that goes on: the winner's design
for longer, words beside it, all rows, and what more would bring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from rankwise import config as configuration
from rankwise import records
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.records.record import Tree, changing
from rankwise.records.search import COPY, RECORD
from rankwise.runs.folder import Run
from rankwise.search.after.all_rows import on_all_rows
from rankwise.search.after.curve import more_line, of_labels
from rankwise.search.after.longer import longer
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.plan import ClockPlan
from rankwise.search.driver import search
from rankwise.search.explained import outcome
from rankwise.search.floors import beside
from rankwise.search.single_text import SingleText
from rankwise.search.sweep import spec
from rankwise.search.sweep.space import Space
from rankwise.search.sweep.trial import load_data


@dataclass(frozen=True)
class Trials:
    """The trials in a search's folder.

    origin
        What was found and planned before them; how it ends is written into it.
    single
        What one text may take.
    """

    folder: Path
    clock: Clock
    origin: AutoRecord
    single: SingleText
    console: Console

    @property
    def plan(self) -> ClockPlan:
        """What was planned."""
        schedule = self.origin.schedule or {}
        return msgspec.convert({"end_s": schedule["reserve_s"], **schedule}, ClockPlan)

    def run(self, tree: Tree | None) -> SearchRecord:
        """The record of what is chosen, once the clock is spent.

        tree
            The search file; None goes on with the one in the folder.
        """
        search(
            tree,
            out=self.folder,
            resume=tree is None,
            console=self.console,
            deadline=self._deadline,
            origin=self.origin,
            rivals=self._rivals,
            ending=self._ending,
            testing=self.clock.testing(),
        )
        with changing(self.folder / RECORD, SearchRecord) as record:
            origin, said, seconds = self.origin, self._lines(record), self.clock.spent_s
            origin.minutes = round(seconds / 60, 2)
            origin.peak_mb = max(origin.peak_mb or 0.0, description.peak_mb())
            planned = origin.explanation[: origin.planned_lines]
            origin.explanation = [*planned, *said, *outcome(record, seconds, self.clock.seconds, self.plan.steps)]
            record.auto = origin
        return record

    @property
    def _deadline(self) -> Deadline:
        """By which training must have ended."""
        return self.clock.deadline(self.plan.reserve_s, (self.origin.speed or {}).get("step_s", math.inf))

    def _rivals(self, winner: Winner) -> Winner | None:
        """The winner for longer, with words beside it, or both; None where neither is better."""
        again = None if self.plan.steps_given else longer(winner, self.folder, self._deadline)
        return beside.with_words(again or winner, self.folder, self.single.is_quick) or again

    def _ending(self, winner: Winner) -> Winner:
        """What is shipped, on all rows where that takes no steps."""
        return on_all_rows(winner, self.folder, self.clock.deadline(self.plan.end_s))

    def _lines(self, record: SearchRecord) -> list[str]:
        """What one text takes with the winner, and what more labels and minutes would bring."""
        assert record.winner is not None
        timed = self.single.line(record.winner, self.folder)
        self.origin.more = of_labels(self.origin.floors, self.folder, self.clock.spare())
        winner = Run(self.folder / record.winner.run)
        validation = winner.record.data.get("validation")
        return [*timed, *(more_line(self.origin.more, winner, validation.rows) if validation else [])]


def resumed(folder: Path, console: Console, started: float) -> SearchRecord:
    """Go on with the trials of a folder from where they stood, within what is left of their clock.

    Raises: UserError for a search that `auto` did not make.
    """
    before = records.read(folder / RECORD, SearchRecord)
    origin = before.auto
    if origin is None:
        raise UserError(f"{folder} holds a search that auto did not make: rankwise search --out {folder} --resume")
    # A winner of folds, or a floor alone, is whole once it is written: no trials are there to go on with.
    if before.status == "finished" or origin.schedule is None:
        console.print(f"{folder} is finished already", highlight=False)
        return before
    # Of one that was killed, no minutes were written: its files say when it began and was last heard of.
    used = origin.minutes
    if used is None:
        used = ((folder / RECORD).stat().st_mtime - (folder / COPY).stat().st_mtime) / 60
    base = configuration.from_dict(Space.of(spec.load(folder / COPY)).tree({}))
    single = SingleText(origin.max_ms, base.budget.ms_percentile, load_data(base.data).train)
    return Trials(folder, Clock(started - 60 * used, 60 * origin.max_minutes), origin, single, console).run(None)
