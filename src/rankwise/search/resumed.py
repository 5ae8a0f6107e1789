"""`auto` gone on with: its search from where it stood, within what is left of its clock."""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.console import Console

from rankwise import records
from rankwise.errors import UserError
from rankwise.records import SearchRecord, Winner
from rankwise.records.record import changing
from rankwise.records.search import COPY, RECORD
from rankwise.runs.folder import Run
from rankwise.search.after_trials import AfterTrials
from rankwise.search.driver import search
from rankwise.search.explained import outcome
from rankwise.search.single_text import SingleText
from rankwise.search.sweep.trial import load_data


def resumed(folder: Path, console: Console, started: float) -> SearchRecord:
    """Go on with the search of a folder.

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
    clock_s, reserve_s = 60 * origin.max_minutes, float(origin.schedule["reserve_s"])
    ends = started + max(0.0, clock_s - 60 * used)
    end_s, steps_given = float(origin.schedule.get("end_s", reserve_s)), bool(origin.schedule.get("steps_given", False))

    def single(winner: Winner) -> SingleText:
        config = Run(folder / winner.run).config
        rows = load_data(config.data).train
        return SingleText(origin.max_ms, config.budget.ms_percentile, rows)

    step_s = float((origin.speed or {}).get("step_s", math.inf))
    after = AfterTrials(folder, clock_s, ends, reserve_s, end_s, step_s, steps_given, single)
    search(
        None,
        out=folder,
        resume=True,
        console=console,
        deadline=after.deadline,
        rivals=after.rivals,
        ending=after.ending,
    )
    with changing(folder / RECORD, SearchRecord) as record:
        said = after.lines(record, origin)
        seconds = 60 * used + time.time() - started
        origin.minutes = round(seconds / 60, 2)
        planned, steps = origin.explanation[: origin.planned_lines], int(origin.schedule["steps"])
        origin.explanation = [*planned, *said, *outcome(record, seconds, clock_s, steps)]
        record.auto = origin
    return record
