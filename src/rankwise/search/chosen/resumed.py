"""`auto` gone on with: its search from where it stood, within what is left of its clock."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rankwise import config as configuration
from rankwise import records
from rankwise.errors import UserError
from rankwise.records import SearchRecord
from rankwise.records.search import COPY, RECORD
from rankwise.search.chosen.trials import Trials
from rankwise.search.clock.clock import Clock
from rankwise.search.single_text import SingleText
from rankwise.search.sweep import spec
from rankwise.search.sweep.space import Space
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
    base = configuration.from_dict(Space.of(spec.load(folder / COPY)).tree({}))
    single = SingleText(origin.max_ms, base.budget.ms_percentile, load_data(base.data).train)
    return Trials(folder, Clock(started - 60 * used, 60 * origin.max_minutes), origin, single, console).run(None)
