"""Scoring a run on its test rows: once, and every look is recorded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise import data
from rankwise.baselines import tfidf
from rankwise.config import Config
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference.folders import is_run
from rankwise.inference.predictor import Predictor, load, predictor_of
from rankwise.records import Floor, Result, Scores
from rankwise.records.record import Tree
from rankwise.records.result import RowsOfRole
from rankwise.runs import card
from rankwise.runs.folder import Run, open_run
from rankwise.runs.texts import rows_again
from rankwise.scoring import chance, judged, looks, metrics, predictions

# The rows to score may lie anywhere; how they are split off, cleaned and cut belongs to the training they judge.
_COLUMNS = ("data.text", "data.label", "data.label_separator")
_READING = ("data.encoding", "data.delimiter", "data.quotes", "data.header", "data.missing", "data.unlabelled")
_BASE = "model.name"
_MAY_CHANGE = ("data.test", *_COLUMNS, *_READING, _BASE)
_AT_FIRST = 16
"""texts, whose time says how many more there are seconds for; fewer are not begun. More would take seconds where texts are long, and
the clock may have ended"""


def evaluate(path: str | Path | Run, overrides: Sequence[str] = ()) -> Tree:
    """Score a path's test rows as `score` does; returns what result.json then says of them, as plain values."""
    return score(path, overrides).to_dict()


def score(path: str | Path | Run, overrides: Sequence[str] = (), *, deadline: Deadline = NEVER) -> Scores:
    """Score a run's test role, record the look, save the predictions, and put the scores into result.json.

    Of an adapter's folder alone nothing is kept but the look: it has no run to keep scores in.

    overrides
        Where the test rows are, on top of the run's configuration: data.test=FILE, and data.text, data.label and
        data.label_separator where its columns have other names; model.name=FOLDER, where the base is elsewhere now.
    deadline
        Where there is no time for all rows by then, those that there is time for are scored, drawn by chance; the scores say so.

    Returns: the metrics of the test role.
    Raises: UserError when there is no test set, an override is about anything else, or the rows held out of train are no
    longer those set apart then: another split would score rows that the run was trained on.
    """
    for word in overrides:
        if word.partition("=")[0] not in _MAY_CHANGE:
            raise UserError(
                f"'{word}' cannot change at evaluation: only {', '.join(_MAY_CHANGE)} may, the rest is the run's"
            )
    if not is_run(path):
        return _of_adapter(path, overrides)
    run = open_run(path)
    config = configuration.load(run.config, overrides)
    if config.data.test is None and config.data.test_size is None:
        raise UserError("there is no test set: name one with data.test=FILE, or train with data.test_size")
    if config.data.test is None and any(word.partition("=")[0] in _COLUMNS for word in overrides):
        raise UserError("columns may only change beside data.test=FILE: the rows held out of train keep theirs")
    known = run.record
    roles = data.load(config.data, roles=("test",), label_names=known.labels)
    rows = roles.test
    assert rows is not None
    set_apart = _set_apart(run, known)
    _check_set_apart(config, rows, set_apart)
    predictor = load(run, base=_base(overrides))
    train = rows_again(run, "train")
    leaks = _leaks(known, config, train, rows)
    floor = tfidf.known(train)
    drawn, logits, beside = _logits_by(predictor, floor, rows.texts, deadline)
    every, rows = rows, rows if len(drawn) == len(rows) else rows.take(drawn)
    scores, predicted = judged.judge(
        predictor.decision,
        logits,
        rows.labels,
        predictor.label_names,
        step=known.metrics.validation.step if known.metrics.validation else None,
    )
    scores.notes = [*roles.report.notes, *leaks]
    if len(rows) < len(every):
        scores.drawn_from = len(every)
        scores.notes.append(
            f"{len(rows):,} of the {len(every):,} test rows, drawn by chance: the clock had no time for more; "
            f"rankwise evaluate {run.path}  scores all"
        )
    if chance_note := chance.note(scores, "test"):
        scores.notes.append(chance_note)
    lowest = None
    if beside is not None:
        lowest = metrics.evaluate(beside, rows.labels, predictor.label_names)
    elif train is not None and len(rows) == len(every):  # to fit it takes what the clock has not
        lowest = tfidf.scores(train, {"test": rows}, predictor.label_names).get("test")
    with run.changing() as result:  # held from the look on: of two evaluations the later count is the one that stays
        count = looks.record(
            run.path,
            command=_command(path, overrides),
            rows_sha256=every.sha256,
            texts_sha256=every.texts_sha256,
            scores=scores,
        )
        scores.looks, scores.looks_all = count.this_run, count.all_runs
        predictions.write_logits(run.path, "test", predictor.label_names, rows, logits, predicted)
        result.metrics.test = scores
        if lowest is not None:
            result.metrics.floor = result.metrics.floor or Floor(method=tfidf.METHOD)
            result.metrics.floor.test = lowest
        result.data["test"] = RowsOfRole(
            rows=len(every), sha256=every.sha256, source=config.data.test, set_apart=set_apart
        )
    if run.adapter.is_dir():
        card.write(run)
    return scores


def _logits_by(
    predictor: Predictor, floor: tfidf.LogitsOf | None, texts: Sequence[str], deadline: Deadline
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
    """The rows that there is time for, in their order, their logits, and those of the floor, which takes its own time.
    Shapes: (rows,), (rows, classes), (rows, classes)"""
    order = np.arange(len(texts)) if deadline is NEVER else predictions.draw_order(len(texts))
    found, beside = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    started, done, count = time.time(), 0, len(order) if deadline is NEVER else _AT_FIRST
    while done < len(order) and count >= min(_AT_FIRST, len(order)):
        portion = [texts[row] for row in order[done : done + count]]
        found.append(predictor.logits_of_cleaned(portion))
        beside += [] if floor is None else [floor(portion)]
        done += len(portion)
        # Half of what there seems to be time for, as often as the machine may slow down; what is left where that is all.
        count = int(deadline.left_s() * done / (time.time() - started)) // 2 if done < len(order) else 0
    place = np.argsort(order[:done])
    logits, others = (np.concatenate(parts)[place] if parts else None for parts in (found, beside))
    assert logits is not None
    return order[:done][place], logits, others


def _of_adapter(path: str | Path | Run, overrides: Sequence[str]) -> Scores:
    """Score an adapter, or words alone, without a run around it. Its record says how rows are read, where it has one."""
    saved = saving.read_any(path, base=_base(overrides))
    told = {
        "text": saved.text,
        "label": saved.label,
        "label_separator": saved.separator,
        "pair": saved.pair,
        "preprocess": list(saved.preprocess),
        "multi_label": saved.multi_label,
    }
    tree = {key: value for key, value in told.items() if value is not None}
    words = [word for word in overrides if not word.startswith(f"{_BASE}=")]
    config = configuration.load({"data": tree}, words)
    if config.data.test is None:
        raise UserError("there is no test set: an adapter has none of its own, name one with data.test=FILE")
    roles = data.load(config.data, roles=("test",), label_names=saved.label_names)
    rows = roles.test
    assert rows is not None
    logits = predictor_of(saved).logits_of_cleaned(rows.texts)
    scores, _ = judged.judge(saved.decision, logits, rows.labels, saved.label_names)
    count = looks.record(
        saved.folder,
        command=_command(path, overrides),
        rows_sha256=rows.sha256,
        texts_sha256=rows.texts_sha256,
        scores=scores,
        in_folder=False,
    )
    scores.looks, scores.looks_all = count.this_run, count.all_runs
    unknown = "an adapter alone does not say what it was trained on: whether test rows repeat some of it is not known"
    scores.notes = [*roles.report.notes, *saved.notes, unknown]
    return scores


def _base(overrides: Sequence[str]) -> str | None:
    """The base that is named among the overrides, the last one as everywhere."""
    named = [word.partition("=")[2] for word in overrides if word.startswith(f"{_BASE}=")]
    return named[-1] if named else None


def _command(path: str | Path | Run, overrides: Sequence[str]) -> str:
    return " ".join(["rankwise evaluate", str(Path(path)), *overrides])


def _leaks(known: Result, config: Config, train: data.Rows | None, test: data.Rows) -> list[str]:
    """What test rows that were not there when the run was trained share with its training rows."""
    before = known.data.get("test")
    if before is not None and before.source is None and before.sha256 == test.sha256:
        return []  # audited then
    if train is None:
        return ["the training rows cannot be read any more: whether test rows repeat some of them is not known"]
    found = data.audited({"train": train, "test": test}, config.data.preprocess)
    between = [overlap for overlap in found if overlap.roles == ("train", "test") and overlap.exact + overlap.near]
    return [f"{overlap.sentence()}: the score flatters the run" for overlap in between]


def _set_apart(run: Run, known: Result) -> str | None:
    """The hash of the rows held out as test when the run was trained; an evaluation of another file keeps it."""
    test = known.data.get("test")
    return test.set_apart if test is not None and run.config.data.test is None else None


def _check_set_apart(config: Config, rows: data.Rows, set_apart: str | None) -> None:
    """Refuse rows held out of a train that has changed since: some of them may have been trained on."""
    if config.data.test is None and set_apart not in (None, rows.sha256):
        raise UserError(
            f"{config.data.train} has changed since the run was trained, so that other rows would be held out of it: "
            "name a file with data.test=FILE"
        )
