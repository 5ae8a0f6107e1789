"""`auto` where rows are held out: floors that are solved at once, then a few designs that compete, as many as the clock has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from rankwise import config as configuration
from rankwise.config import Config, Keys
from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.records import AutoRecord, SearchRecord
from rankwise.records.record import Tree, changing
from rankwise.records.search import RECORD
from rankwise.search.after_trials import AfterTrials
from rankwise.search.clock.forecast import of_auto
from rankwise.search.clock.plan import HALVING, ClockPlan, last_s, plan_clock
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.bases import Measured
from rankwise.search.designs.design import designs_for, has_room
from rankwise.search.driver import search
from rankwise.search.explained import facts, outcome
from rankwise.search.floors import beside
from rankwise.search.floors.floor import Floor, best, floors
from rankwise.search.floors.unspent import spent
from rankwise.search.request import Request
from rankwise.search.single_text import SingleText
from rankwise.search.without_trials import floor_alone, interrupted


def chosen_by_trials(
    request: Request, base: Measured, base_lines: Sequence[str], roles: Any, single: SingleText
) -> SearchRecord:
    """The record of what held-out rows choose.

    base
        The encoder that is trained, and how fast this machine is with it.
    base_lines
        What is said of it.
    """
    config, speed, folder, tree = base.config, base.speed, request.folder, request.tree
    solved = floors(tree, request.fixed, roles, folder, request.clock_s, speed, request.ends)
    solved, speed = single.quick_enough(solved, folder), speed.now()
    if request.stop.requested:
        if not solved:
            raise KeyboardInterrupt
        why = "stopped before anything was trained"
        return interrupted(request, floor_alone(request, solved, config, roles, single, why, request.ends, base_lines))
    start = best([one for one in solved if one.pooling], request.goal)
    if start is not None and "head.pooling" not in request.fixed:
        tree["head"]["pooling"] = start.pooling
        config = configuration.replaced(config, "head", pooling=start.pooling)
    unshared = tree
    end_s = _leave_room_for_words(request, roles, solved, single)
    config = msgspec.structs.replace(config, budget=request.config.budget)
    try:
        fits = _planned(request, config, speed, roles, end_s, fitted=start is not None)
    except UserError as error:
        if not solved:
            raise
        until = request.ends - last_s(speed, roles, request.clock_s)
        solved = spent(solved, unshared, request.fixed, roles, folder, speed, until, single.is_quick)
        return floor_alone(request, solved, config, roles, single, str(error), until, base_lines)
    designs = designs_for(config, request.fixed, len(roles.label_names), fits.steps)[: fits.designs]
    minutes, peak_mb = of_auto(fits, speed, len(roles.train), len(roles.validation), request.spent_s, request.clock_s)
    lines = [*base_lines, *facts(config, roles, speed, fits, designs, solved)]
    lines[-1] += f"; about {minutes:.1f} minutes in all, and {peak_mb:,.0f} MB of memory"
    request.show([*roles.report.lines(), *lines])
    origin = AutoRecord(
        max_params=request.max_params,
        max_ms=single.limit_ms,
        max_minutes=request.max_minutes,
        speed=msgspec.to_builtins(speed),
        schedule=msgspec.to_builtins(fits),
        forecast={"minutes": minutes, "peak_mb": peak_mb},
        floors=[one.winner() for one in solved],
        planned_lines=len(lines),
        explanation=lines,
    )
    after = AfterTrials(
        folder,
        request.clock_s,
        request.ends,
        fits.reserve_s,
        fits.end_s,
        speed.step_s,
        fits.steps_given,
        lambda _: single,
    )
    search(
        _search_tree(request.tree, config, fits, designs),
        out=folder,
        console=request.console,
        deadline=after.deadline,
        origin=origin,
        rivals=after.rivals,
        ending=after.ending,
    )
    with changing(folder / RECORD, SearchRecord) as record:
        said = after.lines(record, origin)
        seconds = request.spent_s
        origin.minutes, origin.peak_mb = round(seconds / 60, 2), description.peak_mb()
        origin.explanation = [*lines, *said, *outcome(record, seconds, request.clock_s, fits.steps)]
        record.auto = origin
    return record


def _leave_room_for_words(request: Request, roles: Any, solved: list[Floor], single: SingleText) -> float:
    """Words, made small enough to stand beside what is trained, and the budgets that they leave; a head with words beside it is
    one more floor. Returns: the seconds that words need at the end."""
    folder = request.folder
    shared, end_s = beside.prepared(request.tree, roles, solved, folder)
    both = beside.of_features(solved, folder, single.is_quick)
    solved += [] if both is None else [both]
    if not has_room(shared, request.fixed, len(roles.label_names)):
        beside.put_away(folder)
        return 0.0
    request.tree = shared
    return end_s


def _planned(request: Request, config: Config, speed: Speed, roles: Any, end_s: float, *, fitted: bool) -> ClockPlan:
    """What fits the clock.

    end_s
        Seconds that words need at the end.
    fitted
        Whether designs start from a fitted head.

    Raises: UserError where nothing that trains does.
    """
    labels = len(roles.label_names)
    fits = plan_clock(
        speed,
        roles,
        config.train.batch_size,
        request.left_s - end_s,
        request.clock_s,
        steps=config.train.steps,
        fitted=fitted,
        available=lambda steps: len(designs_for(config, request.fixed, labels, steps)),
    )
    return replace(fits, reserve_s=fits.reserve_s + end_s)


def _search_tree(tree: Tree, config: Config, fits: ClockPlan, designs: list[Keys]) -> Tree:
    """The search file that `auto` stands for; its copy in the folder runs again without the clock."""
    base: Tree = msgspec.to_builtins(tree)
    base["train"].pop("epochs", None)
    base["train"] |= {"steps": fits.steps, "eval_every": fits.eval_every}
    made: Tree = {"base": base, "axes": {"design": designs}, "strategy": {"name": "factorial"}}
    made["metric"] = config.train.select.metric
    if fits.designs > 1:
        made["halving"] = msgspec.to_builtins(HALVING)
    return made
