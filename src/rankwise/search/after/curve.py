"""What more labels would bring: a learning curve of heads on frozen features, which are computed already.

Heads are fitted on a quarter, a half and all of the rows of some folds and asked for the rows held out; a power law with a
floor that nobody knows (Hestness et al. 2017) goes through the errors. Its band holds what the held-out rows leave open, what the
floor may be, and that one draw of training rows is not another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from rankwise.deadline import Deadline
from rankwise.models.sources import weights_identity
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.search.sweep.trial import load_data
from rankwise.training import fitting, frozen_features, probe
from rankwise.training.interrupt import requested
from rankwise.training.objective import Objective
from rankwise.training.prepare import prepare

_FOLDS, _SHARES = 4, (4, 2, 1)
"""parts of a fold's training rows: all of them, a half, a quarter"""
_DRAWS = 400
_LARGEST_FLOOR = 0.8
"""of the least error seen: what no number of labels would mend, anything up to there being as likely"""
_OF_DRAWS = 0.25
"""of the variance of comparing two heads on as many rows as were trained on: what another draw of them changes
(benchmarks/learning_curve.py)"""
LEVEL = 0.8
"""of the band"""
_WIDENED = 1.32
"""times that the band is as wide as the draws say, which held 70% of 90 gains on five sets: the 80th percentile of what it
missed them by (split conformal prediction, Vovk et al. 2005); by four sets for the fifth it holds 79%
(benchmarks/learning_curve.py)"""
_TOLD_APART = 2.0
"""standard errors"""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gain:
    """Points of accuracy, as a share: what is expected, and the band that holds it as often as LEVEL says."""

    mean: float
    low: float
    high: float


def held_out_right(
    found: torch.Tensor,
    labels: NDArray[np.int64],
    classes: int,
    objective: Objective,
    penalty: float,
    seed: int,
    deadline: Deadline,
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """How often each row is answered rightly by heads that were not fitted on it; None where the clock ends before, or the user.

    Every quarter and every half has its head, so that what a small one happens to hold averages out.

    found
        Features. Shape: (rows, features)
    Returns: by a quarter, a half and all of the other rows, and each row's fold. Shapes: (rows, 3), (rows,)
    """
    chance, rows = np.random.default_rng(seed), len(labels)
    order, right = chance.permutation(rows), np.zeros((rows, len(_SHARES)))
    folds, a_row_s = np.zeros(rows, dtype=np.int64), 0.0
    for fold in range(_FOLDS):
        held, rest = order[fold::_FOLDS], np.delete(order, np.s_[fold::_FOLDS])
        folds[held] = fold
        start = None
        for column, share in enumerate(_SHARES):
            for kept in np.array_split(rest, share):
                started = time.time()
                if requested() or a_row_s * len(kept) > deadline.left_s():
                    return None
                start = probe.solve(
                    found[kept], labels[kept], classes, objective, penalty, start, tolerance=probe.ROUGHLY
                )
                a_row_s = max(a_row_s, (time.time() - started) / len(kept))
                weight, bias, _ = start
                hits = (found[held] @ weight.T + bias).argmax(1).numpy() == labels[held]
                right[held, column] += hits / share
    return right, folds


def of_twice_the_labels(right: NDArray[np.float64], folds: NDArray[np.int64], seed: int = 0) -> Gain:
    """What twice as many rows would bring a head.

    right, folds
        As `held_out_right` has them.
    """
    rows, chance = len(right), np.random.default_rng(seed)
    trained = rows * (_FOLDS - 1) / _FOLDS
    sizes = np.log([trained / share for share in _SHARES])
    centred = sizes - sizes.mean()
    wrong, by_fold = 1 - right, [np.flatnonzero(folds == fold) for fold in range(_FOLDS)]
    spread = np.sqrt(_OF_DRAWS * np.abs(right[:, -1] - right[:, -2]).mean() / rows)
    gains = []
    for _ in range(_DRAWS):
        of_folds = [by_fold[fold] for fold in chance.integers(0, _FOLDS, _FOLDS)]
        drawn = np.concatenate([one[chance.integers(0, len(one), len(one))] for one in of_folds])
        errors = np.maximum(wrong[drawn].mean(0), 0.5 / rows)
        floor = chance.uniform(0, _LARGEST_FLOOR) * errors.min()
        above = np.log(errors - floor)
        slope = max(0.0, -float(centred @ above / (centred @ centred)))
        at_once = np.exp(above.mean() + slope * sizes.mean()) * rows**-slope
        gains.append(at_once * (1 - 2**-slope) + chance.normal(0, spread))
    low, middle, high = np.quantile(gains, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Gain(float(middle), float(middle - _WIDENED * (middle - low)), float(middle + _WIDENED * (high - middle)))


def of_floor(floor: Run, deadline: Deadline) -> Gain | None:
    """What twice the labels would bring the heads on frozen features that `auto` has solved, whose features lie in the
    cache; None where that cannot be told in time.

    floor
        The run of such a head.
    """
    config = floor.config
    if config.data.multi_label:
        return None
    job = prepare(config, floor, Console(quiet=True), load_data)
    seed, way = config.train.seed, fitting.way_of_features(job, floor.record.engine.kernels)
    rows = probe.rows_of_head(len(job.training), config.head.probe_rows, seed)
    texts, order = job.training.tokens.take(rows), np.argsort(rows)
    weights = weights_identity(config.model, seed)
    found = None if way is None else frozen_features.known(texts, config.train.eval_batch_size, weights, way)
    if found is None:
        return None
    objective = job.objective
    found, labels = found[order, -job.plan.encoder.hidden :], job.training.labels[rows[order]]  # as the head had them
    classes = len(job.label_names)
    penalty = probe.chosen_penalty(found, labels, classes, objective, seed)
    told = held_out_right(found, labels, classes, objective, penalty, seed, deadline)
    return None if told is None else of_twice_the_labels(*told)


def of_labels(floors: Sequence[Winner], folder: Path, deadline: Deadline) -> str:
    """What `auto` says of twice the labels, by the first head on frozen features among the floors of a folder. It takes what the
    clock has left, so that nothing which is trained waits for it.
    """
    runs = [Run(folder / floor.run) for floor in floors if floor.alone is None]
    heads = [run for run in runs if run.adapter.is_dir()]  # words have none
    return labels_in_words(None if not heads or requested() or deadline.has_passed else of_floor(heads[0], deadline))


def labels_in_words(gain: Gain | None) -> str:
    """What `auto` says of twice the labels."""
    if gain is None:
        return "twice the labels: cannot tell"
    band = f"{LEVEL:.0%} {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    if gain.low <= 0:
        return f"twice the labels: cannot tell ({band} points by frozen features)"
    return f"twice the labels: {100 * gain.mean:+.1f} points ({band}) of frozen features"


def more_line(of_labels: str, winner: Run, rows: int) -> list[str]:
    """What more would bring, as `auto` says it at the end.

    of_labels
        `of_labels`.
    rows
        Of validation.
    """
    return [f"more      {of_labels}; {minutes_in_words(winner.history, rows)}"]


def minutes_in_words(history: Sequence[Row], rows: int) -> str:
    """What `auto` says of twice the minutes: what the second half of the winner's steps brought, told apart from chance or not.

    rows
        Of validation.
    """
    scored = [
        (row["step"], row["validation_accuracy"]) for row in history if row["step"] and row["validation_accuracy"]
    ]
    half = [accuracy for step, accuracy in scored if 2 * step <= scored[-1][0]]
    if not half:
        return "twice the minutes: cannot tell"
    gained = max(accuracy for _, accuracy in scored) - max(half)
    error = math.sqrt(2 * max(half) * (1 - max(half)) / rows)
    sure = gained > _TOLD_APART * error
    said = "some more" if sure else "cannot tell"
    return f"twice the minutes: {said}, the second half of the winner's steps brought {100 * gained:+.1f}"
