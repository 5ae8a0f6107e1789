"""A temperature for a finished run: fitted on its validation rows, kept with its adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rankwise import files
from rankwise.errors import UserError
from rankwise.models.layout import RECORD
from rankwise.runs.folder import Run, open_run
from rankwise.scoring import calibration, metrics, predictions
from rankwise.scoring.predictions import Predictions

KEY = "calibration"
"""in result.json, and beside the weights, so that the adapter's folder alone can be applied with it"""


def calibrate(path: str | Path | Run) -> dict[str, Any]:
    """Fit a temperature on a run's validation predictions and keep it in result.json and with the adapter.

    It changes no prediction, only how sure the probabilities sound.

    Returns: temperature, rows, rows_sha256, at_bound, and loss and ece before and after on those rows.
    Raises: UserError when the run kept no validation predictions or has no adapter yet.
    """
    run = open_run(path)
    if not (run.adapter / RECORD).is_file():
        raise UserError(f"{run.path} has no adapter to keep a temperature with: train it to its end first")
    if not run.predictions("validation").is_file():
        raise UserError(
            f"{run.path} kept no validation predictions (train.evaluate: false): there is nothing to fit on"
        )
    read = predictions.read(run.path, "validation")
    logits = _logits(read)
    fitted = calibration.fit_temperature(logits, read.labels)
    found = {
        "temperature": fitted.value,
        "rows": len(read.ids),
        "rows_sha256": read.rows_sha256,
        "at_bound": fitted.at_bound,
        "loss_before": fitted.loss_before,
        "loss_after": fitted.loss_after,
        "ece_before": _ece(read, logits, 1.0),
        "ece_after": _ece(read, logits, fitted.value),
    }
    files.write_json(run.adapter / RECORD, files.read_json(run.adapter / RECORD) | {KEY: found})
    run.write_result(run.result | {KEY: found})
    return found


def _logits(read: Predictions) -> np.ndarray:
    """Logits of saved probabilities; softmax ones are known up to a constant a row, which changes nothing."""
    yes = metrics.log_probabilities(read.probabilities)
    return yes - metrics.log_probabilities(1 - read.probabilities) if read.multi_label else yes


def _ece(read: Predictions, logits: np.ndarray, temperature: float) -> float:
    p = calibration.apply_temperature(logits, temperature, multi_label=read.multi_label)
    return float(metrics.evaluate(p, read.labels, read.label_names, probabilities=True)["ece"])
