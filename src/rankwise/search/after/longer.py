"""What is left of the clock after the search: the winner's design once more, over as many steps as fit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec

from rankwise import config as configuration
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.scoring.goals import goal_of
from rankwise.search.clock.clock import SURE, WORTH
from rankwise.search.sweep.trial import trained, validation_value
from rankwise.training.interrupt import requested

_EVALUATIONS = 9
FOLDER = "again"


def longer(winner: Winner, folder: Path, deadline: Deadline) -> Winner | None:
    """The winner of a search with another seed and the steps that still fit; None where it is no better, or none fit."""
    run = Run(folder / winner.run)
    timing, config = run.record.timing, run.config
    if not timing.steps:
        return None
    each = (timing.train_s + timing.eval_s) / timing.steps
    steps = int(SURE * deadline.left_s(timing.train_s / timing.steps) / each)
    if steps < WORTH * timing.steps:
        return None
    tree = configuration.to_dict(config)
    tree["train"] |= {
        "steps": steps,
        "epochs": None,
        "eval_every": -(-steps // _EVALUATIONS),
        "seed": config.train.seed + 1,
    }
    out = folder / FOLDER
    if (out / "config.yaml").is_file() and Run(out).config.train.steps != steps:
        shutil.rmtree(out)  # of a session that was stopped, for another number of steps
    try:
        again = trained(tree, out, resume=out.exists(), deadline=deadline)
    except KeyboardInterrupt:
        again = Run(out)
        if not requested():
            raise
        if not again.is_recorded or again.record.metrics.validation is None:
            return None
    except UserError:
        return None
    result, goal = again.record, goal_of(config.train.select.metric)
    scores, last = result.metrics.validation, result.metrics.validation_last
    value = validation_value(result, goal.text)
    if (
        scores is None
        or last is None
        or goal.better(value) <= goal.better(math.nan if winner.mean is None else winner.mean)
    ):
        return None
    return msgspec.structs.replace(
        winner,
        run=FOLDER,
        peak=scores.accuracy,
        chosen=scores.accuracy,
        chosen_ci95=scores.accuracy_ci95,
        final=last.accuracy,
        mean=value,
        steps=result.timing.steps,
    )
