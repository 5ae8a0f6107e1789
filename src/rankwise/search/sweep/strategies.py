"""The rounds of a search: which points are proposed together, and over how many rungs they are thinned out.

Rounds follow one another; within a round every rung ends before the next begins. So what is tried depends on the
search file alone, not on how many workers there are, which of them was faster, or when one was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rankwise.errors import UserError
from rankwise.search.sweep.space import Point, Space
from rankwise.search.sweep.spec import Halving, Search

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_One = TypeVar("_One")
DEFAULT_TRIALS = 20
TPE_BATCH = 2
DRAWS_PER_TRIAL = 20
"""Draws at most for each trial wanted: points over budget and repeats are drawn again."""


@dataclass(frozen=True)
class Round:
    """Trials proposed together. `rungs` is how many stops there are, the last being the whole run."""

    number: int
    count: int
    rungs: int = 1
    drawn: bool = False
    """the sampler proposes the points; else they are listed"""


@dataclass(frozen=True)
class Walk:
    """All rounds of a search, known in number and size before the first starts."""

    search: Search
    space: Space
    rounds: tuple[Round, ...]
    listed: tuple[Point, ...]

    @classmethod
    def of(cls, search: Search, space: Space) -> Walk:
        """The walk that a search file asks for."""
        strategy, halving = search.strategy, search.halving
        rungs = halving.rungs if halving else 1
        if strategy.name == "one_at_a_time":
            counts = [1, *(len(axis.choices) for axis in space.axes)]
            # A round of one has nobody to be compared with.
            rounds = [Round(number, count, rungs if count > 1 else 1) for number, count in enumerate(counts)]
            return cls(search, space, tuple(rounds), ())
        if strategy.name in ("grid", "factorial"):
            points = _listed(search, space)
            return cls(search, space, _brackets(len(points), halving, drawn=False), tuple(points))
        trials = min(strategy.trials or DEFAULT_TRIALS, space.size or 10**9)
        if strategy.name == "random" or (halving and halving.kind == "hyperband"):
            return cls(search, space, _brackets(trials, halving, drawn=True), ())
        batch = strategy.batch or (halving.factor ** (rungs - 1) if halving else TPE_BATCH)
        sizes = [min(batch, trials - start) for start in range(0, trials, batch)]
        rounds = [Round(number, size, rungs, drawn=True) for number, size in enumerate(sizes)]
        return cls(search, space, tuple(rounds), ())

    def points(self, round: Round, best: Point) -> list[Point]:
        """The points of a listed round; `best` is the best point of the rounds before."""
        if self.search.strategy.name == "one_at_a_time":
            if round.number == 0:
                return [{}]
            axis = self.space.axes[round.number - 1]
            return [{**best, axis.name: value} for value in axis.choices]
        start = sum(earlier.count for earlier in self.rounds[: round.number])
        return list(self.listed[start : start + round.count])

    def sampler(self, number: int) -> BaseSampler:
        """The sampler that draws a trial: it depends on the trial's number and the scores told before, no more."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(np.random.SeedSequence([self.search.strategy.seed, number]).generate_state(1)[0])
        if self.search.strategy.name == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _listed(search: Search, space: Space) -> list[Point]:
    """Every point in order (factorial), or in an order drawn from the seed and cut to `trials` (grid)."""
    if space.size is None:
        next(axis for axis in space.axes if axis.count is None).choices  # noqa: B018 (raises, naming the axis)
    points = list(space.every_point())
    if search.strategy.name == "factorial":
        return points
    order = np.random.default_rng(search.strategy.seed).permutation(len(points))
    return [points[place] for place in order[: search.strategy.trials]]


def _brackets(count: int, halving: Halving | None, *, drawn: bool) -> tuple[Round, ...]:
    """One round; or for Hyperband one a start, so that about equal numbers of steps go to each."""
    if count == 0:
        raise UserError("the search has no points")
    if halving is None or halving.kind == "successive":
        return (Round(0, count, halving.rungs if halving else 1, drawn),)
    starts = range(halving.rungs, 0, -1)
    weights = [halving.rungs / rungs * halving.factor ** (rungs - 1) for rungs in starts]
    ends = [round(count * sum(weights[: place + 1]) / sum(weights)) for place in range(len(weights))]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    rounds = [(size, rungs) for size, rungs in zip(sizes, starts, strict=True) if size]
    return tuple(Round(number, size, rungs, drawn) for number, (size, rungs) in enumerate(rounds))


def stops(total_steps: int, rungs: int, halving: Halving) -> list[int]:
    """The steps at which a trial of `total_steps` is compared, the last being `total_steps`.

    Each is evaluated (`train.evaluate_at`), so that trials are compared where the schedule says. Of a very short run
    several may be one step.
    """
    return [-(-total_steps // halving.factor ** (rungs - 1 - rung)) for rung in range(rungs)]


def survivors(count: int, halving: Halving) -> int:
    """How many of `count` trials go on."""
    return min(count, max(halving.least, count // halving.factor))


def in_turns(ranked: Sequence[_One], value: Callable[[_One], Hashable]) -> list[_One]:
    """Ranked things in another order: the best of every value, then the second best of each, and so on."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for one in ranked:
        turns.append(seen[value(one)])
        seen[value(one)] += 1
    return [ranked[place] for place in sorted(range(len(ranked)), key=turns.__getitem__)]


def cost(rounds: Iterable[Round], halving: Halving) -> float:
    """Whole runs that rounds are worth, when every trial is as long as the others."""
    runs = 0.0
    for each in rounds:
        alive, done = each.count, 0.0
        for rung in range(each.rungs):
            share = halving.factor ** (rung - each.rungs + 1)
            runs += alive * (share - done)
            alive, done = survivors(alive, halving), share
    return runs
