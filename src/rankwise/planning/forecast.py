"""What a run will take, before it starts: minutes and memory, from what this machine was measured to need for a step."""

from __future__ import annotations

from rankwise.config import Config
from rankwise.methods import method_of
from rankwise.planning.steps import PROVEN_ROWS, eval_every, head_rows, steps_per_epoch, total_steps, train_sample_rows
from rankwise.records import Record

_END_S = 1.0
"""for what the end writes, calibrates and proves; TF-IDF beside the scores is kept from when the run was measured"""


class RunFigures(Record, kw_only=True):
    """What was measured of a configuration on its own rows.

    rows, validation_rows
        Trained on, and scored at every evaluation.
    step_s, score_s, setup_s
        Seconds of one forward and backward pass of a batch with its update, of scoring a text, and of building the model.
    start_s
        Seconds from the command to the first step, the model's building left out: imports, reading, tokens.
    peak_mb
        Of the process that measured.
    at
        `time.time()` of the measurement.
    """

    rows: int
    validation_rows: int = 0
    step_s: float
    score_s: float
    setup_s: float
    start_s: float
    peak_mb: float
    at: float = 0.0


class Forecast(Record, kw_only=True):
    """What a run will take. minutes: of the whole command. peak_mb: of its process."""

    steps: int
    minutes: float
    peak_mb: float


def forecast(config: Config, figures: RunFigures) -> Forecast:
    """What a run of a configuration will take, by what was measured of it."""
    train, rows = config.train, figures.rows
    folds = config.data.folds or 0
    validation = 0 if folds else figures.validation_rows
    sampled = train_sample_rows(rows, validation)
    if method_of(config).solved_at_once:  # the solver knows what it says of training rows
        steps, sampled, fit_s = 0, 0, min(rows, config.head.probe_rows or rows) * figures.score_s
    else:
        steps = total_steps(rows, train)
        fit_s = steps * train.accumulate * figures.step_s + _head_s(config, figures)
        if validation:
            evaluations = -(-steps // eval_every(train, steps, steps_per_epoch(rows, train)))
            again = rows if train.objective == "contrastive" else 0  # the head is fitted anew each time
            fit_s += evaluations * (validation + again) * figures.score_s
    scored = validation + sampled + 2 * PROVEN_ROWS
    end_s = figures.setup_s + scored * figures.score_s + _END_S
    of_folds = folds * (figures.setup_s + (fit_s * (folds - 1) + rows * figures.score_s) / folds) if folds else 0.0
    seconds = figures.start_s + of_folds + figures.setup_s + fit_s + end_s
    return Forecast(steps=steps, minutes=round(seconds / 60, 2), peak_mb=figures.peak_mb)


def _head_s(config: Config, figures: RunFigures) -> float:
    """Seconds of fitting the head before the first step, where that is asked for."""
    if not config.head.probe_first or config.train.objective == "contrastive":
        return 0.0
    return min(figures.rows, head_rows(config.head) or figures.rows) * figures.score_s
