"""`auto` where rows are held out: floors that are solved at once, then a few designs that compete, as many as the clock has room for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from rankwise import config as configuration
from rankwise.config import Config, Keys
from rankwise.errors import UserError
from rankwise.records import AutoRecord, SearchRecord
from rankwise.records.record import Tree
from rankwise.search.chosen.by_floors import chosen_by_floors
from rankwise.search.chosen.trials import Trials
from rankwise.search.chosen.written import interrupted
from rankwise.search.clock.forecast import of_auto
from rankwise.search.clock.plan import HALVING, ClockPlan, plan_clock
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.design import designs_for, how_many
from rankwise.search.explained import facts
from rankwise.search.floors import beside
from rankwise.search.floors.floor import best, floors
from rankwise.search.floors.unspent import spent
from rankwise.search.request import Request


def chosen_by_trials(request: Request, config: Config, speed: Speed, roles: Any) -> SearchRecord:
    """The record of what held-out rows choose.

    config, speed
        Of the encoder that is trained: its length of texts and its batch, and how fast this machine is with them.
    """
    folder, tree = request.folder, request.tree
    clock, fixed, single, labels = request.clock, request.fixed, request.single, len(roles.label_names)
    solved = [one for one in floors(tree, fixed, roles, folder, clock, speed) if single.is_quick(folder / one.run)]
    speed = speed.now()
    if request.stop.requested:
        if not solved:
            raise KeyboardInterrupt
        why = "stopped before anything was trained"
        return interrupted(request, chosen_by_floors(request, solved, config, roles, why, clock.deadline()))
    start = best([one for one in solved if one.pooling], request.goal)
    if start is not None and "head.pooling" not in fixed:
        tree["head"]["pooling"] = start.pooling
        config = configuration.replaced(config, "head", pooling=start.pooling)
    # Words, made small enough to stand beside what is trained; a head with words beside it is one more floor.
    shared, words_s = beside.prepared(tree, roles, solved, folder)
    both = beside.of_features(solved, folder, single.is_quick)
    solved += [] if both is None else [both]
    kept_s = words_s if request.leave_room(shared, labels) else 0.0
    config = msgspec.structs.replace(config, budget=request.config.budget)
    try:
        fits = plan_clock(
            config,
            speed,
            roles,
            clock,
            kept_s=kept_s,
            fitted=start is not None,
            available=how_many(config, fixed, labels),
        )
    except UserError as error:
        if not solved:
            raise
        deadline = clock.deadline(clock.last_s(speed, 0 if roles.test is None else len(roles.test)))
        solved = spent(solved, tree, fixed, roles, folder, speed, deadline, single.is_quick)
        return chosen_by_floors(request, solved, config, roles, str(error), deadline)
    fits = replace(fits, reserve_s=fits.reserve_s + kept_s)
    designs = designs_for(config, fixed, labels, fits.steps)[: fits.designs]
    minutes, peak_mb = of_auto(fits, speed, len(roles.train), len(roles.validation), clock)
    lines = [*request.base_lines, *facts(config, roles, speed, fits, designs, solved)]
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
    return Trials(folder, clock, origin, single, request.console).run(_search_tree(request.tree, config, fits, designs))


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
