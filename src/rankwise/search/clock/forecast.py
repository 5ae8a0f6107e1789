"""A run measured before it starts: a few real steps on its own rows, from which minutes and memory are forecast."""

from __future__ import annotations

import time
from typing import Any

from rankwise.baselines import tfidf
from rankwise.config import Config
from rankwise.machine import description
from rankwise.planning import Plan, measured
from rankwise.planning.forecast import RunFigures
from rankwise.planning.steps import total_steps
from rankwise.search.clock.clock import SURE, WORTH, Clock
from rankwise.search.clock.plan import ClockPlan
from rankwise.search.clock.speed import Speed, measure
from rankwise.search.sweep.trial import load_data

_SECONDS = 10.0
"""of training and scoring"""
_END_S = 3.0
"""for the proof, and for what the end writes"""


def measure_run(plan: Plan, *, read_before: bool = False) -> measured.Measured:
    """Figures of a plan's run on its own rows, kept for later plans; the process is as large as the run's afterwards.

    read_before
        Whether this process has read the rows once already, which a run does not.

    Raises: UserError for rows that cannot be read.
    """
    config = plan.config
    started = time.time()
    roles = load_data(config.data, ["train", *(["validation"] if config.train.evaluate else []), "test"])
    twice_s = time.time() - started if read_before else 0.0
    known = measured.read(plan)
    known.runs[measured.run_key(config)] = figures_of(config, roles, twice_s)
    measured.write(plan, known)
    others = {role: rows for role, rows in roles.named().items() if role != "train"}
    tfidf.scores(roles.train, others, roles.label_names)  # which the run then finds in the cache
    return known


def figures_of(config: Config, roles: Any, twice_s: float = 0.0) -> RunFigures:
    """What a run of a configuration takes on rows that have been read.

    twice_s
        Seconds since this process was started that a run does not need.
    """
    read_s = time.time() - _began() - twice_s
    speed = measure(config, roles, _SECONDS, steps=total_steps(len(roles.train), config.train))
    return RunFigures(
        rows=len(roles.train),
        validation_rows=0 if roles.validation is None else len(roles.validation),
        step_s=speed.step_s,
        score_s=speed.score_s,
        setup_s=(speed.setup_s - 0.2 * speed.tokens_s) / 2,
        start_s=read_s + speed.tokens_s,
        peak_mb=description.peak_mb(),
        at=time.time(),
    )


def of_auto(fits: ClockPlan, speed: Speed, rows: int, validation_rows: int, clock: Clock) -> tuple[float, float]:
    """Minutes that all of `auto` will take, and its peak memory in MB.

    What is left of the clock after the search goes to the winner's design once more, where it is enough for that and the steps
    are not the user's own. The process has trained and scored the largest batches already, so it will hardly grow.
    """
    most_s = clock.seconds - fits.reserve_s
    trained_s = clock.spent_s + fits.train_s
    again_s = SURE * (most_s - trained_s)
    if not fits.steps_given and again_s > WORTH * fits.steps * speed.step_s:
        trained_s += again_s
    seconds = min(trained_s, most_s) + speed.once_s(validation_rows + min(rows, validation_rows)) + _END_S
    return round(seconds / 60, 2), description.peak_mb()


def _began() -> float:
    """`time.time()` at which this process was started."""
    import psutil  # type: ignore[import-untyped]  # a dependency of accelerate

    return float(psutil.Process().create_time())
