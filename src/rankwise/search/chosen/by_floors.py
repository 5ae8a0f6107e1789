"""`auto` where nothing can be trained: the best of what is solved at once."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec

from rankwise.config import Config
from rankwise.deadline import Deadline
from rankwise.errors import BudgetError
from rankwise.records import AutoRecord, SearchRecord
from rankwise.records.search import FLOORS
from rankwise.search.after.all_rows import on_all_rows
from rankwise.search.chosen.written import recorded
from rankwise.search.clock.clock import PROOF_S
from rankwise.search.explained import data_lines, floor_line
from rankwise.search.floors.floor import Floor, of_words
from rankwise.search.request import Request
from rankwise.search.sweep.contest import preferred


def chosen_by_floors(
    request: Request, solved: list[Floor], config: Config, roles: Any, why: str, deadline: Deadline
) -> SearchRecord:
    """The record of the best of what was solved at once, on all rows where there is time.

    why
        In words.
    """
    found = [one.winner() for one in solved]
    lines = [*request.base_lines, *data_lines(config, roles), f"floor     {floor_line(solved)}", f"plan      {why}"]
    origin = AutoRecord(max_minutes=request.max_minutes, floors=found)
    best = msgspec.structs.replace(preferred(request.folder, found, request.goal))
    return recorded(request, on_all_rows(best, request.folder, deadline), lines, origin, roles)


def words_alone(request: Request, roles: Any, error: BudgetError) -> SearchRecord:
    """The record where no design keeps the milliseconds of a text but TF-IDF does.

    Raises: the error where that does not either.
    """
    words = of_words(request.tree, roles, request.folder / FLOORS / "words")
    if words is None or not request.single.is_quick(request.folder / words.run):
        shutil.rmtree(request.folder, ignore_errors=True)
        raise error
    return chosen_by_floors(request, [words], request.config, roles, str(error), request.clock.deadline(PROOF_S))
