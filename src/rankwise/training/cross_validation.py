"""Every training row scored by a run that was not fitted on it, as `data.folds` asks for.

The logits stand as the run's validation predictions: temperature, report and comparisons take them as those of rows that
were held out, which they are. No weights are chosen by them, so the score is not too good.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from rankwise import config as configuration
from rankwise import data
from rankwise.config import Data
from rankwise.data import folds, labels
from rankwise.data.report import Report
from rankwise.planning.steps import total_steps
from rankwise.runs.folder import Run
from rankwise.scoring import predictions
from rankwise.training.prepare import Job, prepare

FOLDER = "folds"
"""of a run's folder, while its folds are fitted"""


def score_rows(job: Job, fit: Callable[..., Run]) -> None:
    """Fit one run a fold and write their logits as the job's validation predictions; folds that are there are kept.

    fit
        Carries a job out: `fit(job, resume=...)`.
    """
    rows, train = job.roles.validation, job.roles.train
    assert rows is not None
    assert train is not None
    count, seed = job.config.data.folds, job.config.data.split_seed
    assert count is not None
    if _is_scored(job.run, rows):
        return
    fold = folds.fold_of_each(train.labels, count, seed)
    fold_of_row = fold[fold != folds.ALWAYS_TRAINED_ON]
    logits = np.zeros((len(rows), len(job.label_names)), dtype=np.float32)
    for number in range(count):
        read = _fold(job, np.flatnonzero(fold != number), np.flatnonzero(fold == number), number, fit)
        logits[fold_of_row == number] = read.logits
        right = f"{int(read.correct.sum()):,} of {len(read.ids):,} rows right"
        job.console.print(f"fold {number + 1} of {count}: {right}", highlight=False)
    predictions.write_logits(job.run.path, "validation", job.label_names, rows, logits)
    shutil.rmtree(job.run.path / FOLDER, ignore_errors=True)


def _is_scored(run: Run, rows: data.Rows) -> bool:
    """Whether an earlier session has come to the end of the folds."""
    return run.predictions("validation").is_file() and (
        predictions.read(run.path, "validation").rows_sha256 == rows.sha256
    )


def _fold(
    job: Job, kept: np.ndarray, held: np.ndarray, number: int, fit: Callable[..., Run]
) -> predictions.Predictions:
    """What a run on some rows says of the others."""
    train = job.roles.train
    assert train is not None
    parts = {"train": train.take(kept), "validation": train.take(held)}

    def load_data(asked: Data, roles: Any) -> data.Roles:
        report = Report({role: len(rows) for role, rows in parts.items()}, job.label_names)
        report.balance = {role: labels.counts(rows.labels, len(job.label_names)) for role, rows in parts.items()}
        return data.Roles(parts["train"], parts["validation"], None, job.label_names, report, asked)

    tree = configuration.to_dict(job.config)
    tree["data"]["folds"] = None
    # The last step's weights are scored, and they alone: a choice among several would be by the rows that are scored.
    tree["train"] |= {"eval_every": total_steps(len(kept), job.config.train), "evaluate_at": []}
    tree["track"] = None
    run = Run(job.run.path / FOLDER / str(number + 1))
    has_begun = (run.path / "config.yaml").exists()
    if not (has_begun and run.is_recorded and run.record.ended):
        with run.owned():
            fit(prepare(configuration.from_dict(tree), run, job.console, load_data), resume=has_begun)
    return predictions.read(run.path, "validation")
