"""What fits the clock: how many designs may compete, how long a whole run is, and how long its texts.

Steps and scored texts are timed on this machine first; what the end of a run needs is kept back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import Config
from rankwise.data.tokens import Tokens
from rankwise.errors import UserError
from rankwise.planning.steps import PROVEN_ROWS, train_sample_rows
from rankwise.records.record import Tree
from rankwise.search.clock.clock import SLOWER, Clock
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.sweep.spec import Halving
from rankwise.search.sweep.strategies import Round, cost, survivors

HALVING = Halving(factor=3, rungs=3)
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
_LONGER = 2.0
"""times as many tokens, from which on the speed with more or fewer is measured, the shortest texts first; below, it is taken to go by
their number"""
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


def fit_clock(tree: Tree, roles: Any, clock: Clock, available: Callable[[int], int]) -> tuple[Config, Speed]:
    """Measure; long texts are cut to 512 tokens, to 256, 128 or 64 when there is no time for more.

    tree
        The configuration all designs share; its scope should be the largest that will be tried.
    available
        `plan_clock`'s.

    Returns: the configuration with its length of texts and its batch, and the speed.
    """
    from rankwise.models import tokenizer_of
    from rankwise.training.examples import tokenised

    batch = tree.get("train", {}).get("batch_size") or (32 if len(roles.train) >= _LARGE_ROWS else 16)
    config = configuration.replaced(configuration.from_dict(tree), "train", batch_size=batch)
    planned = planning.plan(config, len(roles.label_names))
    steps, tokens = (
        config.train.steps,
        tokenised(roles.train, tokenizer_of(config.model), config.data.max_length, planned),
    )
    lengths = _lengths(config, tokens)

    def measured(length: int, seconds: float) -> tuple[Config, Speed]:
        cut = configuration.replaced(config, "data", max_length=length)
        return cut, measure(cut, roles, seconds)

    def longest_enough(at: int, speed: Speed) -> int:
        """Of what was measured and what is shorter, or of all after the first look; by the tokens."""
        return next(
            (length for length in lengths[:-1] if enough(speed.at(_times_as_many(tokens, length, at)))), lengths[-1]
        )

    def enough(speed: Speed) -> bool:
        try:
            fits = plan_clock(config, speed, roles, clock, available=available)
        except UserError:
            return False
        long_enough = fits.steps >= _FEWEST_STEPS and (fits.epochs >= 1 or fits.steps >= ENOUGH_STEPS)
        return steps is not None or long_enough

    # Steps on the longest texts cost a short clock many seconds on a slow machine: a moment with the shortest says which are worth it.
    if _times_as_many(tokens, lengths[0], lengths[-1]) > _LONGER:
        lengths = lengths[lengths.index(longest_enough(lengths[-1], measured(lengths[-1], 0.0)[1])) :]
    resolved, speed = measured(lengths[0], clock.measuring_s)
    while (chosen := longest_enough(lengths[0], speed)) != lengths[0]:
        share = _times_as_many(tokens, chosen, lengths[0])
        lengths = lengths[lengths.index(chosen) :]
        if share * _LONGER < 1:
            resolved, speed = measured(chosen, clock.measuring_s)
        else:
            resolved, speed = configuration.replaced(config, "data", max_length=chosen), speed.at(share)
    return resolved, speed


def _lengths(config: Config, tokens: Tokens) -> list[int]:
    """Tokens that may be kept of a text, the most first: as many as the user says, or fewer than most texts have."""
    longest = config.data.max_length or min(tokens.max_length, _LENGTHS[0])
    return [longest, *(length for length in _LENGTHS if length < longest and config.data.max_length is None)]


def _times_as_many(tokens: Tokens, length: int, as_of: int) -> float:
    """Tokens of all texts, cut at one length and at another."""
    return float(np.minimum(tokens.full_lengths, length).sum() / np.minimum(tokens.full_lengths, as_of).sum())


def fit_few(config: Config, roles: Any, clock: Clock, steps: int, folds: int) -> tuple[int | None, Speed | None]:
    """Where rows are few: how many tokens of long texts a run may read so that the shortest has time in the folds that choose, None for
    what the configuration says; and the speed with whole texts, None where nothing depends on it: short texts, few test rows.

    config
        With the batch of such a run.
    steps, folds
        Of the shortest run, and that choose.
    """
    from rankwise.models import tokenizer_of
    from rankwise.training.examples import tokenised

    try:
        planned = planning.plan(config, len(roles.label_names))
        planning.require_fit(planned)
    except UserError:  # the budget has no room for what is trained: what is solved at once answers
        return None, None
    tokens = tokenised(roles.train, tokenizer_of(config.model), config.data.max_length, planned)
    lengths, tested = _lengths(config, tokens), 0 if roles.test is None else len(roles.test)
    are_long = _times_as_many(tokens, lengths[0], lengths[-1]) > _LONGER
    if not are_long and not clock.are_many(tested):
        return None, None
    looked_at = lengths[-1] if are_long else lengths[0]
    measured = measure(configuration.replaced(config, "data", max_length=looked_at), roles, 0.0)
    rows = len(roles.train) + len(roles.validation)

    def has_time(speed: Speed) -> bool:
        end_s = clock.end_of_few_s(speed.crowding, tested * speed.score_s)
        return folds * (steps * speed.step_s + speed.once_s(2 * rows)) < clock.choosing(end_s).left_s()

    speeds = {length: measured.at(_times_as_many(tokens, length, looked_at)) for length in lengths}
    if not are_long:
        return None, speeds[lengths[0]]
    length = next((length for length in lengths if has_time(speeds[length])), lengths[-1])
    return (None if length == lengths[0] else length), speeds[lengths[0]]


def choosing_rows(config: Config, held_out: int, speed: Speed, clock: Clock) -> int:
    """Rows to choose by: those that the user has named, or as many as there is time to score."""
    named = config.data.validation is not None or config.data.validation_size is not None
    return held_out if named else clock.choosing_rows(held_out, speed.score_s)


def plan_clock(
    config: Config,
    speed: Speed,
    roles: Any,
    clock: Clock,
    *,
    kept_s: float = 0.0,
    available: Callable[[int], int],
    fitted: bool = False,
) -> ClockPlan:
    """How many designs compete and how long a whole run is, so that all of it ends within the clock.

    config
        With a batch; a number of steps in it is the user's own: then only the number of designs is planned.
    kept_s
        Seconds for something else.
    available
        How many designs there are for runs of so many steps, once the user's words are taken out: time is planned for
        no more.
    fitted
        Whether the head has been fitted already, so that designs start from it at once.

    Raises: UserError when not even one short run fits.
    """
    steps, batch = config.train.steps, config.train.batch_size
    validation = choosing_rows(config, len(roles.validation), speed, clock)
    rows = len(roles.train) + len(roles.validation) - validation
    # A run ends with a reload, a proof, a scoring of validation, test and a sample of train, and the floor beside them.
    tested = len(roles.test) if roles.test is not None else 0
    scored = validation + train_sample_rows(rows, validation) + 2 * PROVEN_ROWS
    reserve, left_s = clock.after_training_s(speed, scored, tested), clock.left_s - kept_s
    evaluation = validation * speed.score_s
    fitting = 0.0 if fitted else SLOWER * (clock.head_rows(rows, speed) or rows) * speed.score_s
    found: ClockPlan | None = None
    there = max(1, available(_FEWEST_STEPS))
    for designs in sorted({min(field, there) for field in _FIELDS}, reverse=True):
        rungs = HALVING.rungs if designs > 1 else 1
        runs = cost([Round(0, designs, rungs)], HALVING)
        visits, alive = 0, designs
        for _ in range(rungs):
            visits, alive = visits + alive, survivors(alive, HALVING)
        # Designs share frozen features. Twice, since in plain torch gelu is rounded otherwise where adapters precede it.
        head_first = min(designs, 2) * fitting
        # A design alone is ended by the clock where the machine slows down: the last steps, at next to no rate, are what it loses.
        margin = clock.margin_s if designs > 1 else 0.0
        room = left_s - reserve - margin - visits * speed.setup_s - head_first
        evaluations = (
            _EVALUATIONS if designs > 1 else min(_EVALUATIONS_ALONE, max(1, int(_OF_EVALUATIONS * room / evaluation)))
        )
        room -= runs * evaluations * evaluation
        most = max(1, round(_MOST_EPOCHS * rows / batch))
        wanted = min(int(room / runs / speed.step_s), most) if steps is None else steps
        if wanted < evaluations or room < wanted * runs * speed.step_s * 0.99 or designs > max(1, available(wanted)):
            continue
        found = ClockPlan(
            designs=designs,
            steps=wanted,
            epochs=wanted * batch / rows,
            eval_every=-(-wanted // evaluations),
            train_s=wanted * runs * speed.step_s + head_first + runs * evaluations * evaluation,
            reserve_s=reserve,
            end_s=clock.last_s(speed, tested),
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


def plan_alone(config: Config, speed: Speed, roles: Any, clock: Clock, kept_s: float = 0.0) -> ClockPlan | None:
    """What fits of one design of a configuration; None where nothing does."""
    try:
        return plan_clock(config, speed, roles, clock, kept_s=kept_s, available=lambda _: 1)
    except UserError:
        return None
