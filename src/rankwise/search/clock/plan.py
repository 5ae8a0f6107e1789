"""What fits the clock: how many designs may compete, how long a whole run is, and how long its texts.

Steps and scored texts are timed on this machine first; what the end of a run needs is kept back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import Config
from rankwise.errors import UserError
from rankwise.planning.steps import PROBE_FIRST_ROWS, PROVEN_ROWS, train_sample_rows
from rankwise.records.record import Tree
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.sweep.spec import Halving
from rankwise.search.sweep.strategies import Round, cost, survivors

HALVING = Halving(factor=3, rungs=3)
# Shares of the clock: what measuring may take, and what is kept back for a machine that slows down.
_MEASURE_SHARE, MARGIN_SHARE, _END_SHARE = 0.03, 0.05, 0.02
_END_S = 4.0
_OF_FEATURES = 0.1
"""of the clock, for computing the frozen features that heads are fitted on: of a large file those of as many rows as that takes"""
_MOST_CHOOSING = 20
"""rows held out to choose by, for a second of the clock: where a text takes two milliseconds, which a small encoder does on two
cores, an evaluation is a twenty-fifth of it"""
_SURE_ROWS = 1_000
"""that are held out in any case: an accuracy of 90% is known to two points by them (95%)"""
SLOWER = 1.3
"""How much slower than measured the end may score."""
_FIELDS: tuple[int, ...] = (9, 6, 3, 1)
"""Designs that may compete; fewer when the runs would become too short."""
WANTED_EPOCHS, _MOST_EPOCHS = 5.0, 30.0
_FEWEST_STEPS = 120
"""Below either of epochs wanted and fewest steps, fewer designs compete; above the most epochs, time is left rather than
spent."""
_EVALUATIONS = HALVING.factor ** (HALVING.rungs - 1)
_EVALUATIONS_ALONE, _OF_EVALUATIONS = 4, 0.1
"""of a whole run, and their share of its time: where designs compete, the rungs need one each; a design alone spends its time on
training, and is evaluated at its end whatever that takes"""
_LENGTHS = (512, 256, 128, 64)
"""Tokens kept of long texts, the fewer the less time there is."""
ENOUGH_STEPS = 300
"""of one design: so many, or an epoch and the fewest steps, are worth more on long texts than more designs on short
ones: on BBC News in three minutes 98.0% at 256 tokens, 96.3% for the best of nine at 64 (LOG.md)"""
_LARGE_ROWS = 5_000


@dataclass(frozen=True)
class ClockPlan:
    """What fits the clock."""

    designs: int
    steps: int
    epochs: float
    eval_every: int
    train_s: float
    reserve_s: float
    """for all that comes after the search"""
    end_s: float = 0.0
    """of it, for what comes last: the proof, and scoring test rows"""
    steps_given: bool = False
    """by the user: no run takes more, whatever is left of the clock"""


def probe_rows(rows: int, speed: Speed, clock_s: float) -> int | None:
    """Training rows that heads are fitted on, so that their features take no more than a share of the clock; None for all.

    rows
        Training rows there are.
    speed
        With which texts are scored.
    """
    room = int(_OF_FEATURES * clock_s / speed.score_s)
    return None if room >= rows else max(room, PROBE_FIRST_ROWS)


def choosing_rows(held_out: int, clock_s: float) -> int:
    """Of the rows that would be held out to choose by, as many as a clock has the time to score again and again."""
    return min(held_out, max(_SURE_ROWS, int(_MOST_CHOOSING * clock_s)))


def last_s(speed: Speed, roles: Any, clock_s: float) -> float:
    """Seconds for what comes last, whatever is shipped: the proof, and scoring test rows."""
    tested = len(roles.test) if roles.test is not None else 0
    return speed.setup_s + SLOWER * tested * speed.score_s + 0.5 * _END_S * speed.crowding + _END_SHARE * clock_s


def spare_until(ends: float, clock_s: float) -> float:
    """Until when (`time.time()`) what may be left out has time; what is written after it takes its seconds."""
    return ends - MARGIN_SHARE * clock_s - 0.5 * _END_S


def fit_clock(
    tree: Tree, roles: Any, ends: float, clock_s: float, available: Callable[[int], int] | None = None
) -> tuple[Config, Speed]:
    """Measure; long texts are cut to 512 tokens, to 256, 128 or 64 when there is no time for more.

    tree
        The configuration all designs share; its scope should be the largest that will be tried.
    ends
        `time.time()` at which everything must be over.
    clock_s
        Seconds of the whole clock.
    available
        `plan_clock`'s.

    Returns: the configuration with its length of texts and its batch, and the speed.
    """
    from rankwise.models import tokenizer_of
    from rankwise.training.examples import tokenised

    config = configuration.from_dict(tree)
    planned = planning.plan(config, len(roles.label_names))
    given = config.data.max_length
    tokens = tokenised(roles.train, tokenizer_of(config.model), given, planned)
    named = tree.get("train", {})
    batch = named.get("batch_size") or (32 if len(roles.train) >= _LARGE_ROWS else 16)
    longest = given or min(tokens.max_length, _LENGTHS[0])
    lengths = [longest] if given else [longest, *(length for length in _LENGTHS if length < longest)]

    def measured(length: int) -> tuple[Config, Speed]:
        cut = _with(config, length, batch)
        return cut, measure(cut, roles, min(20.0, _MEASURE_SHARE * clock_s))

    def planned_at(speed: Speed) -> ClockPlan:
        return plan_clock(
            speed, roles, batch, ends - time.time(), clock_s, steps=config.train.steps, available=available
        )

    def enough(length: int) -> bool:
        share = np.minimum(tokens.full_lengths, length).sum() / np.minimum(tokens.full_lengths, longest).sum()
        try:
            fits = planned_at(speed.at(float(share)))
        except UserError:
            return False
        if config.train.steps is not None:
            return True
        return fits.steps >= _FEWEST_STEPS and (fits.epochs >= 1 or fits.steps >= ENOUGH_STEPS)

    resolved, speed = measured(longest)
    # Measuring costs seconds of a short clock: a shorter length is chosen by its share of the tokens, then measured once.
    chosen = next((length for length in lengths[:-1] if enough(length)), lengths[-1])
    if chosen != longest:
        resolved, speed = measured(chosen)
    return resolved, speed


def _with(config: Config, length: int, batch: int) -> Config:
    replace = msgspec.structs.replace
    return replace(config, data=replace(config.data, max_length=length), train=replace(config.train, batch_size=batch))


def plan_clock(
    speed: Speed,
    roles: Any,
    batch: int,
    left_s: float,
    clock_s: float,
    *,
    steps: int | None = None,
    available: Callable[[int], int] | None = None,
    fitted: bool = False,
) -> ClockPlan:
    """How many designs compete and how long a whole run is, so that all of it ends within `left_s`.

    steps
        The user's own number of steps, when given: then only the number of designs is planned.
    available
        How many designs there are for runs of so many steps, once the user's words are taken out: time is planned for
        no more.
    fitted
        Whether the head has been fitted already, so that designs start from it at once.

    Raises: UserError when not even one short run fits.
    """
    rows = len(roles.train)
    # A run ends with a reload, a proof, a scoring of validation, test and a sample of train, and the floor beside them.
    tested = len(roles.test) if roles.test is not None else 0
    scored = len(roles.validation) + train_sample_rows(rows, len(roles.validation)) + 2 * PROVEN_ROWS
    once = 2 * speed.setup_s + SLOWER * scored * speed.score_s
    end = last_s(speed, roles, clock_s)
    reserve = once + SLOWER * tested * speed.score_s + _END_S * speed.crowding + _END_SHARE * clock_s
    evaluation = len(roles.validation) * speed.score_s
    fitting = 0.0
    if not fitted:
        fitting = SLOWER * (probe_rows(rows, speed, clock_s) or rows) * speed.score_s
    found: ClockPlan | None = None
    fields = _FIELDS
    if available is not None:
        there = max(1, available(_FEWEST_STEPS))
        fields = tuple(sorted({min(field, there) for field in _FIELDS}, reverse=True))
    for designs in fields:
        rungs = HALVING.rungs if designs > 1 else 1
        runs = cost([Round(0, designs, rungs)], HALVING)
        visits, alive = 0, designs
        for _ in range(rungs):
            visits, alive = visits + alive, survivors(alive, HALVING)
        # Designs share frozen features. Twice, since in plain torch gelu is rounded otherwise where adapters precede it.
        head_first = min(designs, 2) * fitting
        # A design alone is ended by the clock where the machine slows down: the last steps, at next to no rate, are what it loses.
        margin = MARGIN_SHARE * clock_s if designs > 1 else 0.0
        room = left_s - reserve - margin - visits * speed.setup_s - head_first
        evaluations = (
            _EVALUATIONS if designs > 1 else min(_EVALUATIONS_ALONE, max(1, int(_OF_EVALUATIONS * room / evaluation)))
        )
        room -= runs * evaluations * evaluation
        most = max(1, round(_MOST_EPOCHS * rows / batch))
        wanted = min(int(room / runs / speed.step_s), most) if steps is None else steps
        if available is not None and wanted > 0 and designs > max(1, available(wanted)):
            continue
        if wanted < evaluations or room < wanted * runs * speed.step_s * 0.99:
            continue
        found = ClockPlan(
            designs=designs,
            steps=wanted,
            epochs=wanted * batch / rows,
            eval_every=-(-wanted // evaluations),
            train_s=wanted * runs * speed.step_s + head_first + runs * evaluations * evaluation,
            reserve_s=reserve,
            end_s=end,
            steps_given=steps is not None,
        )
        if steps is not None or (wanted >= _FEWEST_STEPS and found.epochs >= WANTED_EPOCHS):
            return found
    if found is None:
        raise UserError(
            f"the clock is too short: {max(0.0, left_s):.0f} s are left to train in, one step takes "
            f"{speed.step_s:.2f} s and an evaluation {evaluation:.0f} s; give more --max-minutes or fewer rows"
        )
    return found
