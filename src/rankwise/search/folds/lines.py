"""What folds are planned and what they said, as `auto` explains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise.config import Config
from rankwise.data.folds import FOLDS
from rankwise.search.explained import by_goal, model_line
from rankwise.search.folds.plan import FoldsPlan
from rankwise.search.folds.standing import Standing


def rows_lines(config: Config, others: Sequence[str], roles: Any, folds: int) -> list[str]:
    """What there is to learn from where no rows are held out to choose by, and what may learn."""
    return [
        f"data      {len(roles.train):,} rows, {len(roles.label_names)} classes: too few to hold some out, so {folds} of {FOLDS} folds choose",
        f"model     {config.model.name}" + "".join(f"; {other} where the clock has its folds too" for other in others),
    ]


def plan_lines(config: Config, roles: Any, plan: FoldsPlan, forecast: dict[str, float]) -> list[str]:
    """What there is to learn from where the clock has the time for folds, and what is planned."""
    return [
        f"data      {len(roles.train):,} rows, {len(roles.label_names)} classes: none held out, since the clock has time for folds",
        model_line(config),
        f"plan      about {plan.folds} of {FOLDS} folds choose, then all rows are fitted: runs of {plan.steps:,} steps ({plan.epochs:.1f} "
        f"epochs), {plan.run_s:.0f} s each, {plan.reserve_s:.0f} s kept for the end; about {forecast['minutes']:.1f} minutes in all, and "
        f"{forecast['peak_mb']:,.0f} MB of memory",
    ]


def folds_lines(found: Sequence[Standing], chosen: Standing) -> list[str]:
    """What cross-validation said of each contender."""
    lines = [
        f"folds     {by_goal(one.scores.accuracy, one.value)} {one.contender.title}{_of_lengths(one)}{_cut(one)}, {one.seconds:.0f} s"
        + (", chosen" if one is chosen else "")
        for one in found
    ]
    better = chosen.goal.better
    if better(chosen.value) < max(better(one.value) for one in found):
        lines.append("          the best of so few rows is not told apart from the likeliest, which is kept")
    return lines


def _cut(one: Standing) -> str:
    """How much of a text it reads, where that is less than the others do."""
    length = (one.contender.design or {}).get("data.max_length")
    return "" if length is None else f" on {length} tokens of a text"


def _of_lengths(one: Standing) -> str:
    """Which of the lengths that were tried is meant, where there were several."""
    lengths = one.contender.lengths
    return f" ({one.contender.steps} of {lengths[0]} to {lengths[-1]} steps)" if len(lengths) > 1 else ""
