"""What `auto` writes down where no trials were run: the best of what is solved at once, or what folds chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rankwise import records
from rankwise.config import Config
from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.records.search import RECORD, SearchTiming
from rankwise.search.explained import STOPPED_LINE, data_lines, floor_line, outcome
from rankwise.search.floors.all_rows import on_all_rows
from rankwise.search.floors.floor import Floor
from rankwise.search.request import Request
from rankwise.search.single_text import SingleText
from rankwise.search.sweep.contest import preferred
from rankwise.search.sweep.trial import look_at_test


def floor_alone(
    request: Request,
    solved: list[Floor],
    config: Config,
    roles: Any,
    single: SingleText,
    why: str,
    until: float,
    base_lines: Sequence[str] = (),
) -> SearchRecord:
    """The record where nothing can be trained: the best of what was solved at once, on all rows where there is time.

    why
        In words.
    until
        `time.time()` at which it should be fitted.
    base_lines
        What is said of the base, and of the ends of texts.
    """
    found = [one.winner() for one in solved]
    lines = [*base_lines, *data_lines(config, roles), f"floor     {floor_line(solved)}", f"plan      {why}"]
    origin = AutoRecord(max_minutes=request.max_minutes, floors=found)
    winner = on_all_rows(msgspec.structs.replace(preferred(request.folder, found, request.goal)), request.folder, until)
    return recorded(request, winner, lines, origin, roles, single)


def recorded(
    request: Request,
    winner: Winner,
    lines: list[str],
    origin: AutoRecord,
    roles: Any,
    single: SingleText,
    shown: int = 0,
) -> SearchRecord:
    """The record of a winner that no trials came before; its test rows are scored.

    shown
        How many of the lines stand on the console.
    """
    winner.test = look_at_test(request.folder, winner)
    record = SearchRecord(
        status="finished",
        metric=request.config.train.select.metric,
        strategy={"name": "factorial"},
        winner=winner,
        timing=SearchTiming(session_s=round(request.spent_s, 1)),
        auto=origin,
    )
    request.show(lines[shown:] if shown else [*roles.report.lines(), *lines])
    seconds = request.spent_s
    origin.minutes, origin.max_ms, origin.planned_lines = round(seconds / 60, 2), single.limit_ms, len(lines)
    timed = single.line(winner, request.folder)
    origin.explanation = [*lines, *timed, *outcome(record, seconds, request.clock_s, 0)]
    records.write(request.folder / RECORD, record)
    return record


def interrupted(request: Request, record: SearchRecord) -> SearchRecord:
    """The record of what the user stopped."""
    record.status = "interrupted"
    assert record.auto is not None
    record.auto.explanation.insert(-1, STOPPED_LINE)
    records.write(request.folder / RECORD, record)
    return record
