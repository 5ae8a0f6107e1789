"""Scoring a run on its test rows: once, and every look is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise import data
from rankwise.baselines import tfidf
from rankwise.config import Config
from rankwise.errors import UserError
from rankwise.inference.predictor import load
from rankwise.runs import card
from rankwise.runs.folder import Run, open_run
from rankwise.scoring import ledger, metrics, predictions
from rankwise.scoring.calibration import apply_temperature

# The rows to score may lie anywhere; how they are split off, cleaned and cut belongs to the training they judge.
_COLUMNS = ("data.text", "data.label", "data.label_separator")
_READING = ("data.encoding", "data.delimiter", "data.quotes", "data.header", "data.missing", "data.unlabelled")
_BASE = "model.name"
_MAY_CHANGE = ("data.test", *_COLUMNS, *_READING, _BASE)


def evaluate(path: str | Path | Run, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Score a run's test role, record the look, save the predictions, and put the scores into result.json.

    overrides
        Where the test rows are, on top of the run's configuration: data.test=FILE, and data.text, data.label and
        data.label_separator where its columns have other names; model.name=FOLDER, where the base is elsewhere now.

    Returns: the metrics of the test role.
    Raises: UserError when there is no test set, an override is about anything else, or the rows held out of train are no
    longer those set apart then: another split would score rows that the run was trained on.
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
    if config.data.test is None and any(word.partition("=")[0] in _COLUMNS for word in overrides):
        raise UserError("columns may only change beside data.test=FILE: the rows held out of train keep theirs")
    roles = data.load(config.data, roles=("test",), label_names=run.result["labels"])
    rows = roles.test
    assert rows is not None
    set_apart = _set_apart(run)
    _check_set_apart(config, rows, set_apart)
    predictor = load(run, base=config.model.name if any(word.startswith(f"{_BASE}=") for word in overrides) else None)
    logits = predictor.logits_of_cleaned(rows.texts)
    scores = metrics.evaluate(logits, rows.labels, predictor.label_names)
    lowest = tfidf.of_test(config, run.result["data"]["train"]["sha256"], rows, predictor.label_names)
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
    if roles.report.notes:
        result["metrics"]["test"]["notes"] = roles.report.notes
    if lowest is not None:
        result["metrics"].setdefault("floor", {"method": tfidf.METHOD})["test"] = lowest
    result["data"]["test"] = {
        "rows": len(rows.texts),
        "sha256": rows.sha256,
        "source": config.data.test,
        "set_apart": set_apart,
    }
    run.write_result(result)
    if run.adapter.is_dir():
        card.write(run)
    scored: dict[str, Any] = result["metrics"]["test"]
    return scored


def _set_apart(run: Run) -> str | None:
    """The hash of the rows held out as test when the run was trained; an evaluation of another file keeps it."""
    recorded = run.result["data"].get("test", {})
    hashed: str | None = recorded.get("set_apart", recorded.get("sha256"))  # before any evaluation the hash is theirs
    return hashed if run.config.data.test is None else None


def _check_set_apart(config: Config, rows: data.Rows, set_apart: str | None) -> None:
    """Refuse rows held out of a train that has changed since: some of them may have been trained on."""
    if config.data.test is None and set_apart not in (None, rows.sha256):
        raise UserError(
            f"{config.data.train} has changed since the run was trained, so that other rows would be held out of it: "
            "name a file with data.test=FILE"
        )
