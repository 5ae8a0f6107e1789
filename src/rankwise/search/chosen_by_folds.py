"""`auto` where no rows are held out, since they are too few or the clock has the time: folds choose, and all rows are fitted."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.machine.crowding import crowding
from rankwise.records import AutoRecord, SearchRecord
from rankwise.runs.folder import Run
from rankwise.search.clock.plan import SLOWER
from rankwise.search.designs.contenders import of_more_rows
from rankwise.search.designs.design import has_room
from rankwise.search.floors import beside
from rankwise.search.folds.comparison import choose, compared, judged, with_words
from rankwise.search.folds.lines import folds_lines, plan_lines, rows_lines
from rankwise.search.folds.plan import FoldsPlan
from rankwise.search.folds.standing import Standing
from rankwise.search.folds.winner import fit_on_all, with_words_beside
from rankwise.search.request import Request
from rankwise.search.single_text import SingleText
from rankwise.search.sweep.trial import load_data
from rankwise.search.without_trials import interrupted, recorded
from rankwise.training.deadline import Deadline

END_S = 5.0
"""seconds for the proof and the test rows, as often as other programs make them longer"""
_END_SHARE, _MOST_END = 0.25, 0.35
"""of a clock of few rows, for the same at least and at most: where other work comes after the folds were timed, the end takes
several times what it would alone; choosing leaves little more"""
_OF_WORDS = 0.1
"""of the clock, for words that may stand beside what folds choose"""


def chosen_by_folds(
    request: Request,
    single: SingleText,
    others: Sequence[str],
    plan: FoldsPlan | None = None,
    base_lines: Sequence[str] = (),
) -> SearchRecord:
    """The record of what folds choose.

    others
        Bases that compete beside the request's own, where the clock has the time.
    plan
        What fits the clock; None where rows are few, whatever fits.
    base_lines
        What is said of the base, and of the ends of texts.
    """
    config, folder, stop = request.config, request.folder, request.stop
    roles = load_data(config.data, ["train", "test"])
    _leave_room_for_words(request, roles)
    lines, forecast = list(base_lines), None
    if plan is not None:
        seconds = plan.seconds(request.left_s) + request.spent_s
        forecast = {"minutes": round(seconds / 60, 2), "peak_mb": description.peak_mb()}
        lines += plan_lines(config, roles, plan, forecast)
        request.show([*roles.report.lines(), *lines])
    shown = 0 if plan is None else len(lines)
    found, end_s = _judged(request, roles, others, plan)
    if not found and stop.requested:
        raise KeyboardInterrupt
    if not found:
        raise UserError("no classifier fits the budget: raise --max-params, or see  rankwise plan  for what fits")
    standing = choose(found, request.goal)
    helped = with_words(standing, roles.train, folder) if request.left_s > end_s else None
    # Nothing is there before the chosen one is fitted, which takes seconds: that is done whole.
    stopped, stop.requested = stop.requested, False
    # A threshold holds for answers as sure as those it was fitted on: of a longer run they are surer.
    may_be_longer = not stopped and standing.decision is None
    whole = plan.on_all_rows(standing, request.left_s - end_s) if plan and may_be_longer else standing
    winner = fit_on_all(
        whole, request.tree, folder, Deadline(request.ends, end_s, SLOWER * plan.step_s if plan else math.inf)
    )
    if helped is not None and request.left_s > 0.5 * end_s:
        both, weight = helped
        again = with_words_beside(winner, both, weight, folder, single.is_quick)
        if again is not None:
            both.keep(Run(folder / again.run), roles.train)
            winner, standing, found = again, both, [*found, both]
    if plan is None:
        lines = [*rows_lines([config.model.name, *others], roles, standing.folds), *base_lines]
    lines += folds_lines(found, standing)
    if whole.contender.steps != standing.contender.steps:
        taken, of_folds = whole.contender.steps, standing.contender.steps
        lines.append(f"all rows  {taken:,} steps, which the clock had left, where the folds had {of_folds:,}")
    origin = AutoRecord(max_minutes=request.max_minutes, forecast=forecast, folds=[one.record() for one in found])
    record = recorded(request, winner, lines, origin, roles, single, shown)
    return interrupted(request, record) if stopped or stop.requested else record


def _leave_room_for_words(request: Request, roles: Any) -> None:
    """Words on all rows, and the budgets that they leave, unless they leave no room for anything that is trained."""
    names, until = roles.label_names, time.time() + _OF_WORDS * request.clock_s
    shared = beside.of_all_rows(request.tree, roles.train, names, request.folder, until)
    if has_room(shared, request.fixed, len(names)):
        request.tree = shared
    else:
        beside.put_away(request.folder)


def _judged(
    request: Request, roles: Any, others: Sequence[str], plan: FoldsPlan | None
) -> tuple[list[Standing], float]:
    """What folds say of every contender, and the seconds kept for what comes after the run on all rows."""
    tree, fixed, train, names = request.tree, request.fixed, roles.train, roles.label_names
    if plan is None:
        found = judged(tree, fixed, train, names, request.ends, request.clock_s, others)
        return found, max(min(END_S * crowding(), _MOST_END * request.clock_s), _END_SHARE * request.clock_s)
    competing, until = of_more_rows(fixed, plan.steps), plan.until(request.ends)
    return compared(competing, tree, train, names, until, plan.folds, fewest=1), plan.reserve_s
