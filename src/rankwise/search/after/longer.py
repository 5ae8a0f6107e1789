"""What is left of the clock after the search: the winner's design once more, over as many steps as fit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec

from rankwise import config as configuration
from rankwise.deadline import Deadline
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.scoring.goals import goal_of
from rankwise.search.clock.clock import SURE, WORTH
from rankwise.search.sweep.trial import Task, carry_out

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
    outcome, goal = carry_out(Task(0, tree, str(out), deadline=deadline)), goal_of(config.train.select.metric)
    scores = Run(out).record.metrics.validation if outcome.scores else None
    best = math.nan if winner.mean is None else winner.mean
    if scores is None or goal.better(outcome.scores[goal.text]) <= goal.better(best):
        return None
    return msgspec.structs.replace(
        winner,
        run=FOLDER,
        peak=scores.accuracy,
        chosen=scores.accuracy,
        chosen_ci95=scores.accuracy_ci95,
        final=scores.accuracy if outcome.final is None else outcome.final,
        mean=outcome.scores[goal.text],
        steps=outcome.step,
    )
