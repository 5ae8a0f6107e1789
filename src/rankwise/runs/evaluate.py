"""Scoring a run on its test rows: once, and every look is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise import data
from rankwise.errors import UserError
from rankwise.runs import card, floor
from rankwise.runs.folder import Run, open_run
from rankwise.runs.predictor import load
from rankwise.scoring import ledger, metrics, predictions
from rankwise.scoring.calibration import apply_temperature

# The rows to score may lie anywhere; how they are split off, cleaned and cut belongs to the training they judge.
_MAY_CHANGE = ("data.test", "data.text", "data.label", "data.label_separator")


def evaluate(path: str | Path | Run, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Score a run's test role, record the look, save the predictions, and put the scores into result.json.

    overrides
        Where the test rows are, on top of the run's configuration: data.test=FILE, and data.text, data.label and
        data.label_separator where its columns have other names.

    Returns: the metrics of the test role.
    Raises: UserError when there is no test set, or an override is about anything else: another split would score rows
    that the run was trained on.
    """
    run = open_run(path)
    for word in overrides:
        if word.partition("=")[0] not in _MAY_CHANGE:
            raise UserError(
                f"'{word}' cannot change at evaluation: only {', '.join(_MAY_CHANGE)} may, the rest is the run's"
            )
    config = configuration.load(run.config, overrides)
    if config.data.test is None and config.data.test_size is None:
        raise UserError("there is no test set: name one with data.test=FILE, or train with data.test_size")
    roles = data.load(config.data, roles=("test",), label_names=run.result["labels"])
    rows = roles.test
    assert rows is not None
    predictor = load(run)
    logits = predictor.logits_of_cleaned(rows.texts)
    scores = metrics.evaluate(logits, rows.labels, predictor.label_names)
    lowest = floor.of_test(config, run.result["data"]["train"]["sha256"], rows, predictor.label_names)
    command = " ".join(["rankwise evaluate", str(path), *overrides])
    looks = ledger.record(run.path, command=command, rows_sha256=rows.sha256, metrics=scores)
    predictions.write(
        run.path,
        "test",
        predictor.label_names,
        rows_sha256=rows.sha256,
        ids=rows.ids,
        labels=rows.labels,
        probabilities=apply_temperature(logits, 1.0, multi_label=predictor.multi_label),
    )
    result = run.result
    result["metrics"]["test"] = {"step": result["metrics"].get("validation", {}).get("step"), "looks": looks, **scores}
    if lowest is not None:
        result["metrics"].setdefault("floor", {"method": floor.METHOD})["test"] = lowest
    result["data"]["test"] = {"rows": len(rows.texts), "sha256": rows.sha256, "source": config.data.test}
    run.write_result(result)
    if run.adapter.is_dir():
        card.write(run)
    scored: dict[str, Any] = result["metrics"]["test"]
    return scored
