"""A temperature for a finished run: fitted on its validation rows, kept with its adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankwise.baselines import words
from rankwise.errors import UserError
from rankwise.models.layout import RECORD
from rankwise.records import AdapterRecord, Calibration, record
from rankwise.records.words import WordsRecord
from rankwise.runs.folder import Run, open_run
from rankwise.scoring import calibration, metrics, predictions
from rankwise.scoring.predictions import Predictions


def calibrate(path: str | Path | Run) -> Calibration:
    """Fit a temperature on a run's validation predictions and keep it in result.json and with the adapter or the words, whose
    folder alone can be applied with it then.

    It changes no prediction, only how sure the probabilities sound.

    Raises: UserError when the run kept no validation predictions or has no adapter yet.
    """
    run = open_run(path)
    kept: list[tuple[Path, type[AdapterRecord | WordsRecord]]] = [
        (run.adapter / RECORD, AdapterRecord),
        (run.path / words.FOLDER / words.DETAILS, WordsRecord),
    ]
    place = next((one for one in kept if one[0].is_file()), None)
    if place is None:
        raise UserError(f"{run.path} has no adapter to keep a temperature with: train it to its end first")
    if not run.predictions("validation").is_file():
        raise UserError(
            f"{run.path} kept no validation predictions (train.evaluate: false): there is nothing to fit on"
        )
    read = predictions.read(run.path, "validation")
    logits = read.logits
    fitted = calibration.fit_temperature(logits, read.labels)
    found = Calibration(
        temperature=fitted.value,
        rows=len(read.ids),
        rows_sha256=read.rows_sha256,
        at_bound=fitted.at_bound,
        loss_before=fitted.loss_before,
        loss_after=fitted.loss_after,
        ece_before=_ece(read, logits, 1.0),
        ece_after=_ece(read, logits, fitted.value),
    )
    with record.changing(*place) as classifier:
        classifier.calibration = found
    with run.changing() as result:
        result.calibration = found
    return found


def _ece(read: Predictions, logits: np.ndarray, temperature: float) -> float:
    p = calibration.apply_temperature(logits, temperature, multi_label=read.multi_label)
    return metrics.evaluate(p, read.labels, read.label_names, probabilities=True).ece
