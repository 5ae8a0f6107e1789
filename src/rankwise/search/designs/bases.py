"""Which of several bases `auto` starts from: a larger one where the clock has the steps for it and its frozen features say more.

A base is judged by what decides: steps are counted by the speed that this machine has with it, and features by a head fitted on
a sample of the training rows and scored on some that are held out. The smallest base costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rankwise import config as configuration
from rankwise import packaged
from rankwise.config import Config
from rankwise.encoders import encoder_of
from rankwise.errors import UserError
from rankwise.records import Scores
from rankwise.records.record import Tree
from rankwise.scoring import metrics
from rankwise.scoring.goals import PLAIN, goal_of
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.plan import fit_clock, plan_alone
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.design import how_many
from rankwise.search.floors.floor import probe_tree
from rankwise.training.held_out import logits_of_held_out

DEFAULT, LARGER = "packaged:all-MiniLM-L6-v2", "packaged:all-mpnet-base-v2"
_EPOCHS, _STEPS = 1.0, 300
"""fewer than either leave a larger base behind a smaller one that trains longer"""
_FEWEST_ROWS, _MOST_ROWS = 300, 3_000
"""of a sample: fewer say nothing, and more hardly say anything else"""
_OF_SAMPLE = 2 / 3
"""fitted on; the others score"""
_GUESS = 0.5
"""of the time that its size asks for, which another base takes at least: wider products are nearer to what a machine can do, and 8
times the numbers took 4.5 times as long (LOG.md)"""


def named(models: str | Sequence[str] | None, fixed: set[str]) -> list[str]:
    """The bases that take part: the user's, the one of model.name, or the packaged MiniLM and mpnet, where that has been
    fetched before: it is 438 MB.

    models
        Names, or one string with commas between them.

    Raises: UserError where both are given, or none is left.
    """
    if models is None:
        if "model.name" in fixed:
            return []
        return [DEFAULT, LARGER] if packaged.is_kept(LARGER) else [DEFAULT]
    names = models.split(",") if isinstance(models, str) else list(models)
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if "model.name" in fixed:
        raise UserError("model.name and --models are both given: name all bases in --models")
    if not names:
        raise UserError("--models names no base: give one or more, with commas between them")
    return names


def chosen(
    tree: Tree, names: Sequence[str], roles: Any, clock: Clock, fixed: set[str]
) -> tuple[Config, Speed, list[str]]:
    """The base to start from, with its length of texts and its batch, how fast this machine is with it, and a line about each that
    was left out.

    tree
        What all designs share, but for the base.
    fixed
        The keys that the user has set.

    Raises: UserError for a base that cannot be had.
    """
    trees = sorted((_with_base(tree, name) for name in names), key=_size)
    config, speed = _measured(trees[0], roles, clock, fixed)
    lines, scores = [], None
    for larger in trees[1:]:
        name = larger["model"]["name"]
        said = _too_slow(config, speed.at(times_as_slow(trees[0], name)), roles, clock)
        if said is None:
            other, its_speed = _measured(larger, roles, clock, fixed)
            said = _too_slow(other, its_speed, roles, clock)
        if said is not None:
            lines.append(f"base      {name} left out: {said}")
            continue
        rows, smaller = _sample(roles, clock, its_speed, speed), config.model.name
        scores = scores or _frozen(config, roles, rows)
        others = _frozen(other, roles, rows)
        lines.append(_compared(smaller, scores, name, others, len(rows)))
        if says_more(others, scores, tree["train"]["select"]["metric"]):
            lines.append(_taken(name, its_speed.score_s / speed.score_s, smaller))
            config, speed, scores = other, its_speed, others
    return config, speed, lines


def times_as_slow(tree: Tree, name: str) -> float:
    """How many times as long another base takes than the tree's, at least."""
    return _GUESS * _size(_with_base(tree, name)) / _size(tree)


def _with_base(tree: Tree, name: str) -> Tree:
    return {**tree, "model": {**tree["model"], "name": name}}


def _size(tree: Tree) -> int:
    """Numbers that a token is multiplied with."""
    return sum(site.d_in * site.d_out for site in encoder_of(configuration.from_dict(tree).model).sites)


def _measured(tree: Tree, roles: Any, clock: Clock, fixed: set[str]) -> tuple[Config, Speed]:
    available = how_many(configuration.from_dict(tree), fixed, len(roles.label_names))
    return fit_clock(tree, roles, clock, available)


def _too_slow(config: Config, speed: Speed, roles: Any, clock: Clock) -> str | None:
    """Why the clock is too short for a base; None where it is not."""
    fits = plan_alone(config, speed, roles, clock, 2 * clock.sample_s)
    if fits is None:
        return "the clock has no time for a run of it"
    if fits.steps < _STEPS or fits.epochs < _EPOCHS:
        return f"the clock has time for {fits.steps:,} steps of it ({fits.epochs:.1f} epochs)"
    return None


def _sample(roles: Any, clock: Clock, *speeds: Speed) -> np.ndarray:
    """Training rows whose features there is time for with all bases. Shape: (rows,)"""
    room = int(clock.sample_s / sum(speed.score_s for speed in speeds))
    count = min(len(roles.train), max(_FEWEST_ROWS, min(room, _MOST_ROWS)))
    return np.random.default_rng(0).permutation(len(roles.train))[:count]


def _frozen(config: Config, roles: Any, rows: np.ndarray) -> Scores:
    """Scores of a head on frozen features, of the sample's last third."""
    tree = {**probe_tree(config), "budget": {}}
    kept, out = np.split(rows, [int(_OF_SAMPLE * len(rows))])
    *_, logits = logits_of_held_out(
        configuration.from_dict(tree), roles.train.take(kept), roles.train.take(out), roles.label_names
    )
    return metrics.evaluate(logits, roles.train.labels[out], roles.label_names)


def says_more(one: Scores, other: Scores, goal: str) -> bool:
    """Whether the scores of one are better by the goal, where that is a plain one, and by the loss."""
    metric = goal if goal in PLAIN else "accuracy"
    better = goal_of(metric).better
    return better(one.value(metric)) > better(other.value(metric)) and one.loss < other.loss


def _compared(smaller: str, its: Scores, larger: str, others: Scores, rows: int) -> str:
    return (
        f"base      frozen features of {rows:,} rows: {others.accuracy:.4f} {larger} (loss {others.loss:.3f}), "
        f"{its.accuracy:.4f} {smaller} (loss {its.loss:.3f})"
    )


def _taken(larger: str, slower: float, smaller: str) -> str:
    return f"base      {larger} is taken, which takes {slower:.1f} times as long a text; model.name={smaller} keeps the smaller"
