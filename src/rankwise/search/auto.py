"""`auto`: from a file of labelled texts to a classifier, within a budget of parameters and of minutes.

It measures how fast this machine trains and goes one of two ways. Where rows are few, or the clock has the time, folds choose
and all rows are fitted (`chosen.by_folds`); else some rows are held out, a few designs compete by successive halving and the
best one is finished (`chosen.by_trials`). It says why. No choice is made on test rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rankwise import config as configuration
from rankwise import records
from rankwise.baselines.tfidf import known_floors
from rankwise.data import labels
from rankwise.data.tokens import remembered
from rankwise.errors import BudgetError, UserError
from rankwise.machine.settings import own_settings
from rankwise.objects import source_of
from rankwise.records import SearchRecord
from rankwise.records.record import Tree
from rankwise.records.search import COPY, RECORD
from rankwise.search.chosen.by_floors import words_alone
from rankwise.search.chosen.by_folds import chosen_by_folds, of_few_rows
from rankwise.search.chosen.by_trials import chosen_by_trials
from rankwise.search.chosen.trials import resumed
from rankwise.search.clock.plan import choosing_rows
from rankwise.search.designs import bases, truncation
from rankwise.search.folds import plan as folds
from rankwise.search.request import Request, request_of, smoothing_of
from rankwise.search.single_text import SingleText
from rankwise.search.sweep.trial import load_data
from rankwise.training.interrupt import stop_requests


@own_settings()
def auto(
    data: Any,
    overrides: Sequence[str] = (),
    *,
    max_params: str | int = "1M",
    max_minutes: float = 15.0,
    goal: str = "accuracy",
    models: str | Sequence[str] | None = None,
    max_mb: float | None = None,
    max_ms: float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    started: float | None = None,
) -> Tree:
    """Train the best classifier that the budget and the clock allow; returns what search.json says.

    data
        Labelled texts: a file or folder of any kind, a Hub data set, packaged:bbc-news, or a table from Python.
    goal
        What checkpoints, trials and the winner are chosen by: accuracy, macro_f1, loss, recall@precision=P:CLASS or
        cost:FILE (`scoring.goals`).
    models
        Bases that compete, of which the larger is taken where the clock has the steps for it and its frozen features say
        more; by default the packaged MiniLM, and mpnet where it has been fetched before.
    max_mb
        Megabytes (a million bytes) of what is shipped: adapter and head, or the folder of TF-IDF; the base is not counted.
    max_ms
        Milliseconds that one text of the median length may take on this machine, whatever is shipped.
    overrides
        `key=value` words that are kept as they are, such as data.test=FILE or model.name=roberta-base.
    resume
        Go on with the folder's search, within what is left of its clock.
    started
        `time.time()` from which the minutes count; now by default.

    Asked to stop (Ctrl-C), it ends with the best so far, whose adapter is proven; the status is then `interrupted`.

    Raises: UserError for data that cannot be read and a clock too short for one run; KeyboardInterrupt when it was asked
    to stop before anything had a score.
    """
    started, console = started or time.time(), console or Console(stderr=True)
    folder = folder_of(data, out)
    with stop_requests() as stop, known_floors(), remembered():
        if resume and (folder / COPY).is_file():
            return resumed(folder, console, started).to_dict()
        if resume and not folder.is_dir():
            raise UserError(f"there is no search at {folder} to go on with: name its folder with --out")
        if resume and (folder / RECORD).is_file():
            before = records.read(folder / RECORD, SearchRecord)
            if before.status == "finished":
                console.print(f"{folder} is finished already", highlight=False)
                return before.to_dict()
            (folder / RECORD).unlink()  # stopped before its search began: its floors are there, all else begins anew
        limits = {"budget.max_mb": max_mb, "budget.max_ms": max_ms}
        own = [*overrides, *(f"{key}={limit}" for key, limit in limits.items() if limit is not None)]
        asked = request_of(source_of(data), own, models, max_params, max_minutes, goal, folder, console, started, stop)
        return _answered(asked).to_dict()


def folder_of(data: Any, out: str | Path | None) -> Path:
    """Where a search of the data goes."""
    source = source_of(data)
    return Path(out) if out else Path("searches") / f"auto-{Path(source).stem or source}"


def _answered(request: Request) -> SearchRecord:
    """The record of the way that rows, machine and clock allow."""
    roles = _read(request)
    request.goal.check(roles.label_names, multi_label=roles.data.multi_label)
    request.tree["data"] |= roles.found()
    budget = request.config.budget
    request.single = SingleText(budget.max_ms, budget.ms_percentile, roles.train)
    try:
        request.tree = request.single.settled(request.tree, roles)
    except BudgetError as error:
        return words_alone(request, roles, error)
    config, fixed, clock = request.config, request.fixed, request.clock
    if folds.are_few(roles, config, fixed):
        return of_few_rows(request, roles)
    config, speed, lines = bases.chosen(request.tree, request.bases, roles, clock, fixed)
    read, said = truncation.chosen(config, roles, fixed, clock, speed.score_s)
    config, request.base_lines = configuration.replaced(config, "data", truncation=read), [*lines, *said]
    request.settle(config)
    plan = folds.planned(config, roles, speed, clock) if folds.can_be_folded(config, fixed) else None
    if plan is not None:
        return chosen_by_folds(request, plan=plan)
    fewer = choosing_rows(config, len(roles.validation), speed, clock)
    if fewer < len(roles.validation):
        request.tree["data"]["validation_size"] = fewer
        config, roles = configuration.replaced(config, "data", validation_size=fewer), _roles(request)
    return chosen_by_trials(request, config, speed, roles)


def _read(request: Request) -> Any:
    """The roles."""
    request.note = None if "data.multi_label" in request.fixed else _several_labels(request)
    roles = _roles(request)
    if "train.label_smoothing" not in request.fixed:
        request.tree["train"]["label_smoothing"] = smoothing_of(roles.train.labels, len(roles.label_names))
    return roles


def _roles(request: Request) -> Any:
    """As the tree says by now; their report says how labels are read."""
    roles, note = load_data(request.config.data), request.note
    if note is not None and note not in roles.report.notes:  # roles are remembered
        roles.report.notes.append(note)
    return roles


def _several_labels(request: Request) -> str | None:
    """Let a text carry several labels where cells are lists of them, or the classes of their column are put together of a few;
    the note that says so."""
    try:
        names = load_data(request.config.data).label_names
    except UserError as error:  # also of test rows that put together what train does not
        if isinstance(error.__cause__, labels.ListOfLabels):
            request.tree["data"]["multi_label"] = True
            return "cells hold lists of labels, so a text is read as carrying several"
        names = load_data(request.config.data, ["train"]).label_names
    parts = labels.put_together(names)
    if not parts:
        return None
    request.tree["data"]["multi_label"] = True
    return (
        f"{len(names):,} classes are put together of {len(parts):,} names, so a text is read as carrying several labels: "
        "data.multi_label=false reads each as a class"
    )
