"""`auto` where no rows are held out, since they are too few or the clock has the time: folds choose, and all rows are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.machine.crowding import crowding
from rankwise.records import AutoRecord, SearchRecord
from rankwise.runs.folder import Run
from rankwise.search.chosen.written import interrupted, recorded
from rankwise.search.clock.speed import testing_s
from rankwise.search.designs import bases
from rankwise.search.designs.contenders import of_more_rows
from rankwise.search.floors import beside
from rankwise.search.folds.comparison import choose, compared, judged, with_words
from rankwise.search.folds.lines import folds_lines, plan_lines, rows_lines
from rankwise.search.folds.plan import FoldsPlan
from rankwise.search.folds.standing import Standing
from rankwise.search.folds.winner import fit_on_all, with_words_beside
from rankwise.search.request import Request
from rankwise.search.sweep.trial import load_data


def chosen_by_folds(request: Request, others: Sequence[str] = (), plan: FoldsPlan | None = None) -> SearchRecord:
    """The record of what folds choose.

    others
        Bases that compete beside the request's own, where rows are few and the clock has the time.
    plan
        What fits the clock; None where rows are few, whatever fits.
    """
    config, folder, clock, stop = request.config, request.folder, request.clock, request.stop
    roles = load_data(config.data, ["train", "test"])
    words_by, names = Deadline.after(clock.words_s), roles.label_names
    request.leave_room(beside.of_all_rows(request.tree, roles.train, names, folder, words_by), len(names))
    lines, forecast = list(request.base_lines), None
    if plan is not None:
        seconds = plan.seconds(clock.left_s) + clock.spent_s
        forecast = {"minutes": round(seconds / 60, 2), "peak_mb": description.peak_mb()}
        lines += plan_lines(config, roles, plan, forecast)
        request.show([*roles.report.lines(), *lines])
    shown = 0 if plan is None else len(lines)
    tested_s = _tested_s(request, roles, others) if plan is None else 0.0
    found, kept_s = _judged(request, roles, others, plan, tested_s)
    if not found and stop.requested:
        raise KeyboardInterrupt
    if not found:
        raise UserError(
            "no classifier fits the budget and the clock: raise --max-params or --max-minutes, or see  rankwise plan  for what fits"
        )
    standing = choose(found, request.goal)
    helped = with_words(standing, roles.train, folder) if clock.left_s > kept_s else None
    # Nothing is there before the chosen one is fitted, which takes seconds: that is done whole.
    stopped, stop.requested = stop.requested, False
    # A threshold holds for answers as sure as those it was fitted on: of a longer run they are surer.
    may_be_longer = not stopped and standing.decision is None
    whole = plan.on_all_rows(standing, clock.left_s - kept_s) if plan and may_be_longer else standing
    deadline = clock.deadline(kept_s, plan.step_s) if plan else clock.deadline(kept_s)
    winner = fit_on_all(whole, request.tree, folder, deadline)
    if helped is not None and clock.left_s > 0.5 * kept_s:
        both, weight = helped
        again = with_words_beside(winner, both, weight, folder, request.single.is_quick)
        if again is not None:
            both.keep(Run(folder / again.run), roles.train)
            winner, standing, found = again, both, [*found, both]
    if plan is None:
        lines = [*rows_lines([config.model.name, *others], roles, standing.folds), *request.base_lines]
    lines += folds_lines(found, standing)
    if whole.contender.steps != standing.contender.steps:
        taken, of_folds = whole.contender.steps, standing.contender.steps
        lines.append(f"all rows  {taken:,} steps, which the clock had left, where the folds had {of_folds:,}")
    origin = AutoRecord(max_minutes=request.max_minutes, forecast=forecast, folds=[one.record() for one in found])
    record = recorded(request, winner, lines, origin, roles, shown)
    return interrupted(request, record) if stopped or stop.requested else record


def _judged(
    request: Request, roles: Any, others: Sequence[str], plan: FoldsPlan | None, tested_s: float
) -> tuple[list[Standing], float]:
    """What folds say of every contender, and the seconds kept for what comes after the run on all rows."""
    tree, fixed, train, names, clock = request.tree, request.fixed, roles.train, roles.label_names, request.clock
    if plan is None:
        found = judged(tree, fixed, train, names, clock.choosing(clock.end_of_few_s(crowding(), tested_s)), others)
        return found, clock.end_of_few_s(crowding(), tested_s)
    competing, deadline = of_more_rows(fixed, plan.steps), plan.choosing(clock)
    return compared(competing, tree, train, names, deadline, plan.folds, fewest=1), plan.reserve_s


def _tested_s(request: Request, roles: Any, others: Sequence[str]) -> float:
    """Seconds of scoring the test rows with the slowest base that competes."""
    clock = request.clock
    if roles.test is None or not clock.are_many(len(roles.test)):
        return 0.0
    slowest = max([1.0, *(bases.times_as_slow(request.tree, name) for name in others)])
    return slowest * testing_s(request.config, roles, 0.5 * clock.measuring_s)
