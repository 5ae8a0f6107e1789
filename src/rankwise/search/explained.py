"""What `auto` found, planned and chose, in some ten lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise.config import Config, Keys
from rankwise.machine.segments import HEAD_AND_TAIL
from rankwise.records import SearchRecord
from rankwise.records.result import Refit
from rankwise.records.search import TestLook
from rankwise.scoring import looks
from rankwise.search.clock.plan import ClockPlan
from rankwise.search.clock.speed import Speed
from rankwise.search.floors.floor import Floor

STOPPED_LINE = "stopped   by the user, with the best so far; --resume goes on"


def data_lines(config: Config, roles: Any) -> list[str]:
    """What there is to learn from, and what learns."""
    return [
        f"data      {len(roles.train):,} rows to train on, {len(roles.validation):,} to choose by, "
        f"{len(roles.label_names)} classes",
        model_line(config),
    ]


def model_line(config: Config) -> str:
    """What learns, and what it reads of a text."""
    ends = " of both ends" if config.data.truncation == HEAD_AND_TAIL else ""
    return f"model     {config.model.name}, texts cut at {config.data.max_length} tokens{ends}"


def facts(
    config: Config, roles: Any, speed: Speed, fits: ClockPlan, designs: list[Keys], solved: Sequence[Floor]
) -> list[str]:
    """What was found and planned, before anything is trained."""
    rates = sorted({design["train.learning_rate"] for design in designs if "train.learning_rate" in design})
    shown = f", learning rate {rates[0]:g}" if rates else ""
    shown = f", learning rates {rates[0]:g} to {rates[-1]:g}" if len(rates) > 1 else shown
    count = f"{len(designs)} designs" if len(designs) > 1 else "one design"
    return [
        *data_lines(config, roles),
        f"speed     {speed.step_s:.3f} s a step of {config.train.batch_size} texts, {1 / speed.score_s:,.0f} texts/s scored, "
        "measured with the largest scope",
        f"floor     {floor_line(solved)}",
        f"plan      {count} at the largest rank that fits{shown}; a whole run is {fits.steps:,} steps "
        f"({fits.epochs:.1f} epochs), {fits.train_s:.0f} s of training and evaluation, {fits.reserve_s:.0f} s kept for the end",
    ]


def floor_line(solved: Sequence[Floor]) -> str:
    """What was solved at once, with its share of validation rows right."""
    if not solved:
        return "none: the budget has no room for one"
    return "; ".join(f"{by_goal(one.scores.accuracy, one.value)} {one.title}, {one.seconds:.0f} s" for one in solved)


def by_goal(accuracy: float, value: float | None) -> str:
    """The accuracy, and what the goal came to where that is another figure."""
    return f"{accuracy:.4f}" if value is None or value == accuracy else f"{accuracy:.4f} ({value:.4f} by the goal)"


def _goal_of_test(test: TestLook, metric: str) -> str:
    """What the goal came to, where that is another figure than the accuracy; with the precision that its threshold has there."""
    if test.goal is not None:
        precision = "" if test.goal.precision is None else f" at precision {test.goal.precision:.4f}"
        return f"{metric} {test.goal.value:.4f}{precision}; "
    return "" if metric == "accuracy" or not hasattr(test, metric) else f"{metric} {getattr(test, metric):.4f}; "


def _drawn(rows: int, of: int) -> str:
    """That the clock had no time for all test rows."""
    return f" of {rows:,} of the {of:,} rows, drawn by chance in the time that was left (rankwise evaluate scores all)"


def _refitted(done: Refit) -> str:
    """That the score is of the weights before."""
    again = "TF-IDF was fitted once more" if done.words else "it was fitted once more"
    what = f"{done.steps:,} steps more" if done.steps else again
    return f"; scored before {what} on all {done.rows:,} rows"


def outcome(record: SearchRecord, seconds: float, clock_s: float, steps: int) -> list[str]:
    """What came of it.

    seconds, clock_s
        Taken, and allowed.
    steps
        Planned for a whole run.
    """
    winner = record.winner
    assert winner is not None
    low, high = winner.chosen_ci95
    mean = winner.mean
    goal = f"{record.metric} {mean:.4f}; " if record.metric != "accuracy" and mean is not None else ""
    others = [row for row in record.table if row.trial != winner.trial and row.chosen is not None]
    next_best = ""
    if others:
        value = None if record.metric == "accuracy" else others[0].mean
        next_best = (
            f"; the next best design had {by_goal(others[0].chosen or 0.0, value)} after {others[0].steps:,} steps"
        )
    rows = [row.steps for row in record.table if row.trial == winner.trial]
    reached = winner.steps if winner.steps is not None else rows[0] if rows else steps
    cut = f"; the clock ended it after {reached:,} of {steps:,} steps" if reached < steps else ""
    of_rank = f"rank {winner.rank}, " if winner.rank else "the floor, which no trained design beat; "
    lines = []
    if record.counts.points:
        lines.append(f"halving   {record.counts.done} of {record.counts.points} designs were run to the end{next_best}")
    folds = record.auto.folds if record.auto is not None else []
    folded = f"by folds, of {folds[0].examples:,} rows; fitted on all" if folds else None
    lines += [
        f"winner    {winner.point['design']}: {of_rank}{winner.trainable:,} trainable parameters{cut}",
        f"score     {goal}validation accuracy {winner.chosen:.4f} (95% {low:.4f} to {high:.4f}); "
        + (folded or f"peak {winner.peak:.4f}, last {winner.final:.4f}")
        + (_refitted(winner.refit) if winner.refit else ""),
    ]
    if winner.test:
        low, high = winner.test.accuracy_ci95
        drawn = "" if winner.test.drawn_from is None else _drawn(winner.test.examples, winner.test.drawn_from)
        lines.append(
            f"test      {_goal_of_test(winner.test, record.metric)}accuracy {winner.test.accuracy:.4f} (95% {low:.4f} to {high:.4f})"
            f"{drawn}; "
            f"{looks.sentence(winner.test.looks, winner.test.looks_all)}"
        )
    if record.status == "interrupted":
        lines.append(STOPPED_LINE)
    lines.append(f"time      {seconds / 60:.1f} of {clock_s / 60:g} minutes")
    return lines
