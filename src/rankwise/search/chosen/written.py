"""What `auto` writes down where no trials were run."""

from __future__ import annotations

from typing import Any

from rankwise import records
from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.records.search import RECORD, SearchTiming
from rankwise.search.explained import STOPPED_LINE, outcome
from rankwise.search.request import Request
from rankwise.search.sweep.trial import look_at_test


def recorded(
    request: Request, winner: Winner, lines: list[str], origin: AutoRecord, roles: Any, shown: int = 0
) -> SearchRecord:
    """The record of a winner that no trials came before; its test rows are scored.

    shown
        How many of the lines stand on the console.
    """
    winner.test = look_at_test(request.folder, winner, request.clock.testing())
    record = SearchRecord(
        status="finished",
        metric=request.config.train.select.metric,
        strategy={"name": "factorial"},
        winner=winner,
        timing=SearchTiming(session_s=round(request.clock.spent_s, 1)),
        auto=origin,
    )
    request.show(lines[shown:] if shown else [*roles.report.lines(), *lines])
    seconds, single = request.clock.spent_s, request.single
    origin.minutes, origin.max_ms, origin.planned_lines = round(seconds / 60, 2), single.limit_ms, len(lines)
    timed = single.line(winner, request.folder)
    origin.explanation = [*lines, *timed, *outcome(record, seconds, request.clock.seconds, 0)]
    records.write(request.folder / RECORD, record)
    return record


def interrupted(request: Request, record: SearchRecord) -> SearchRecord:
    """The record of what the user stopped."""
    record.status = "interrupted"
    assert record.auto is not None
    record.auto.explanation.insert(-1, STOPPED_LINE)
    records.write(request.folder / RECORD, record)
    return record
