"""`auto` where no rows are held out, since they are too few or the clock has the time: folds choose, and all rows are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise import config as configuration
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.machine.crowding import crowding
from rankwise.records import AutoRecord, SearchRecord
from rankwise.runs.folder import Run
from rankwise.search.chosen.written import interrupted, recorded
from rankwise.search.clock.plan import fit_few
from rankwise.search.designs import bases, truncation
from rankwise.search.designs.contenders import BATCH, LENGTHS, of_more_rows
from rankwise.search.floors import beside
from rankwise.search.folds.comparison import FEWEST_FOLDS, choose, compared, judged, with_words
from rankwise.search.folds.lines import folds_lines, plan_lines, rows_lines
from rankwise.search.folds.plan import FoldsPlan
from rankwise.search.folds.standing import Standing
from rankwise.search.folds.winner import fit_on_all, with_words_beside
from rankwise.search.request import Request
from rankwise.search.sweep.trial import load_data


def of_few_rows(request: Request, roles: Any) -> SearchRecord:
    """The record of what folds choose of few rows, with whatever fits the clock."""
    clock, others, fixed = request.clock, request.bases[1:], request.fixed
    batch = {} if "train.batch_size" in fixed else {"batch_size": BATCH}
    steps = request.config.train.steps or LENGTHS[0]
    config = configuration.replaced(request.config, "train", **batch)
    length, speed = fit_few(config, roles, clock, steps, FEWEST_FOLDS)
    score_s = None if speed is None else speed.score_s
    read, request.base_lines = truncation.chosen(request.config, roles, fixed, clock, score_s)
    request.tree["data"]["truncation"] = read
    tested_s = (score_s or 0.0) * (0 if roles.test is None else len(roles.test))
    slowest = max([1.0, *(bases.times_as_slow(request.tree, name) for name in others)])
    return chosen_by_folds(request, others, tested_s=slowest * tested_s, length=length)


def chosen_by_folds(
    request: Request,
    others: Sequence[str] = (),
    plan: FoldsPlan | None = None,
    tested_s: float = 0.0,
    length: int | None = None,
) -> SearchRecord:
    """The record of what folds choose.

    others
        Bases that compete beside the request's own, where rows are few and the clock has the time.
    plan
        What fits the clock; None where rows are few, whatever fits.
    tested_s
        In which test rows are scored with the slowest base, where they are so many that it was asked.
    length
        Tokens of a text that runs read, where whole texts leave them no time.
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
    found, kept_s = _judged(request, roles, others, plan, tested_s, length)
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
        lines = [*rows_lines(config, others, roles, standing.folds), *request.base_lines]
    lines += folds_lines(found, standing)
    if whole.contender.steps != standing.contender.steps:
        taken, of_folds = whole.contender.steps, standing.contender.steps
        lines.append(f"all rows  {taken:,} steps, which the clock had left, where the folds had {of_folds:,}")
    origin = AutoRecord(max_minutes=request.max_minutes, forecast=forecast, folds=[one.record() for one in found])
    record = recorded(request, winner, lines, origin, roles, shown)
    return interrupted(request, record) if stopped or stop.requested else record


def _judged(
    request: Request,
    roles: Any,
    others: Sequence[str],
    plan: FoldsPlan | None,
    tested_s: float,
    length: int | None,
) -> tuple[list[Standing], float]:
    """What folds say of every contender, and the seconds kept for what comes after the run on all rows."""
    tree, fixed, train, names, clock = request.tree, request.fixed, roles.train, roles.label_names, request.clock
    if plan is None:
        deadline = clock.choosing(clock.end_of_few_s(crowding(), tested_s))
        found = judged(tree, fixed, train, names, deadline, others, length)
        return found, clock.end_of_few_s(crowding(), tested_s)
    competing, deadline = of_more_rows(fixed, plan.steps), plan.choosing(clock)
    return compared(competing, tree, train, names, deadline, plan.folds, fewest=1), plan.reserve_s
