"""`auto`: from a file of labelled texts to a classifier, within a budget of parameters and of minutes.

It measures how fast this machine trains, plans runs that fit the clock, lets a few designs compete by successive
halving, finishes the best one, and says why. Every choice is made on validation rows.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from rankwise import config as configuration
from rankwise import records
from rankwise.config import Config, Keys
from rankwise.data.folds import FOLDS
from rankwise.errors import BudgetError, UserError
from rankwise.machine import description
from rankwise.machine.crowding import crowding
from rankwise.machine.settings import own_settings
from rankwise.objects import source_of
from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.records.record import Tree, changing
from rankwise.records.search import SearchTiming
from rankwise.runs.folder import Run
from rankwise.scoring.goals import goal_of
from rankwise.search import bases, beside, by_folds, few_rows
from rankwise.search.all_rows import on_all_rows
from rankwise.search.by_folds import FoldsPlan
from rankwise.search.clock import HALVING, ClockPlan, choosing_rows, last_s, plan_clock, probe_rows
from rankwise.search.contest import preferred
from rankwise.search.curve import labels_in_words, more_line, of_heads
from rankwise.search.designs import designs_for, has_room
from rankwise.search.driver import COPY, FLOORS, RECORD, search
from rankwise.search.explained import (
    STOPPED_LINE,
    data_lines,
    facts,
    floor_line,
    folds_lines,
    outcome,
    plan_lines,
    rows_lines,
)
from rankwise.search.floors import Floor, best, floors, of_words
from rankwise.search.forecast import of_auto
from rankwise.search.longer import longer
from rankwise.search.resumed import resumed
from rankwise.search.single_text import SingleText, single_text
from rankwise.search.trial import load_data, look_at_test
from rankwise.search.unspent import spent
from rankwise.training.interrupt import StopRequest, stop_requests

DEFAULT_MODEL = bases.DEFAULT
_END_S, _END_SHARE = 5.0, 0.25
"""seconds, as often as other programs make them longer, and share of a clock of few rows, for the proof and the test rows: where
other work comes after the folds were timed, the end takes several times what it would alone"""
_MOST_END = 0.35
"""of that clock: choosing leaves little more"""
_OF_WORDS = 0.1
"""of it, for words that may stand beside what folds choose"""
_SMOOTHING = 0.1
"""of the labels: short runs at high rates end overconfident without, and on BBC News less accurate (LOG.md)"""


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
    folder = _folder_of(data, out)
    with stop_requests() as stop:
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
        return _chosen(data, own, models, max_params, max_minutes, goal, folder, console, started, stop).to_dict()


def _folder_of(data: Any, out: str | Path | None) -> Path:
    source = source_of(data)
    return Path(out) if out else Path("searches") / f"auto-{Path(source).stem or source}"


def _chosen(
    data: Any,
    overrides: Sequence[str],
    models: str | Sequence[str] | None,
    max_params: str | int,
    max_minutes: float,
    goal: str,
    folder: Path,
    console: Console,
    started: float,
    stop: StopRequest,
) -> SearchRecord:
    """`auto`, from the beginning."""
    data = source_of(data)
    if not 0 < max_minutes < math.inf:
        raise UserError(f"--max-minutes must be a number above zero, got {max_minutes:g}")
    if (folder / COPY).is_file():
        raise UserError(f"{folder} holds a search already: go on with --resume, or choose another with --out")
    if (folder / RECORD).is_file():
        raise UserError(f"{folder} holds a finished search: choose another folder with --out")
    for key in ("train.epochs", "train.eval_every"):
        if any(word.startswith(f"{key}=") for word in overrides):
            raise UserError(f"{key} is what auto plans by the clock: leave it out, or fix train.steps")
    if any(word.startswith("data.folds=") for word in overrides):
        raise UserError(
            f"data.folds is auto's own choice, {FOLDS} where rows are few or the clock has the time, else a tenth is held out: leave it out, or "
            "score the winner's design by folds afterwards, with  rankwise train RUN/config.yaml data.folds=K"
        )
    wanted = goal_of(goal, "--goal")
    named = (
        ("budget.max_trainable", "--max-params"),
        ("data.train", "the data's own place"),
        ("train.select.metric", "--goal"),
    )
    for key, instead in named:
        if any(word.startswith(f"{key}=") for word in overrides):
            raise UserError(f"{key} cannot be given beside {instead}: name it there")
    ends = started + 60 * max_minutes
    tree, fixed = _base(data, overrides, max_params, goal)
    names = bases.named(models, fixed) or [tree["model"]["name"]]
    if any(key in fixed for key in ("budget.max_ms", "model.revision")):
        names = names[:1]  # a length of texts, or a revision, is one base's
    tree["model"]["name"] = names[0]
    config = configuration.from_dict(tree)
    roles = load_data(config.data, ["train", "validation", "test"])
    fewer = choosing_rows(len(roles.validation), 60 * max_minutes)
    if fewer < len(roles.validation) and config.data.validation is None and config.data.validation_size is None:
        tree["data"]["validation_size"] = fewer
        config = configuration.from_dict(tree)
        roles = load_data(config.data, ["train", "validation", "test"])
    wanted.check(roles.label_names, multi_label=roles.data.multi_label)
    tree["data"] |= roles.found()
    single = single_text(config, roles.train)
    try:
        tree = single.settled(tree, roles)
    except BudgetError as error:
        quick = single.quick_enough(_words_alone(tree, roles, folder), folder)
        if not quick:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return _floor_alone(
            quick, config, roles, folder, console, max_minutes, started, single, str(error), ends - _END_S
        )
    config = configuration.from_dict(tree)
    if few_rows.are_few(roles, config, fixed):
        return _by_folds(tree, fixed, names[1:], folder, console, max_minutes, started, stop, single)
    labels = len(roles.label_names)

    def available_of(config: Config) -> Callable[[int], int]:
        return lambda steps: len(designs_for(config, fixed, labels, steps))

    base, base_lines = bases.chosen(tree, names, roles, ends, 60 * max_minutes, available_of)
    tree["model"]["name"], config, speed = base.name, base.config, base.speed
    available = available_of(config)
    if few_rows.can_be_folded(config, fixed):
        plan = by_folds.planned(config, roles, speed, ends - time.time(), 60 * max_minutes)
        if plan is not None:
            tree = _settled(tree, config)
            return _by_folds(tree, fixed, [], folder, console, max_minutes, started, stop, single, plan, base_lines)
    tree["head"]["probe_rows"] = probe_rows(config.head.probe_rows, len(roles.train), speed, 60 * max_minutes)
    solved = single.quick_enough(
        floors(_settled(tree, config), fixed, roles, folder, 60 * max_minutes, speed, ends), folder
    )
    if stop.requested:
        if not solved:
            raise KeyboardInterrupt
        why = "stopped before anything was trained"
        record = _floor_alone(solved, config, roles, folder, console, max_minutes, started, single, why, ends)
        return _interrupted(record, folder)
    start = best([one for one in solved if one.pooling], wanted)
    if start is not None and "head.pooling" not in fixed:
        tree["head"]["pooling"] = start.pooling
        config = msgspec.structs.replace(config, head=msgspec.structs.replace(config.head, pooling=start.pooling))
    labels_line = labels_in_words(of_heads(solved, folder, 60 * max_minutes))
    settled = _settled(tree, config)
    shared, end_s = beside.prepared(tree, roles, solved, folder)
    both = beside.of_features(solved, folder, single.is_quick)
    solved += [] if both is None else [both]
    if not has_room(shared, fixed, labels):
        beside.put_away(folder)
        shared, end_s = tree, 0.0
    tree, budget = shared, configuration.from_dict(shared).budget
    config = msgspec.structs.replace(config, budget=budget)
    available = available_of(config)
    try:
        fits = plan_clock(
            speed,
            roles,
            config.train.batch_size,
            ends - end_s - time.time(),
            60 * max_minutes,
            steps=config.train.steps,
            fitted=start is not None,
            available=available,
        )
    except UserError as error:
        if not solved:
            raise
        until = ends - last_s(speed, roles, 60 * max_minutes)
        solved = spent(solved, settled, fixed, roles, folder, speed, until, single.is_quick)
        return _floor_alone(solved, config, roles, folder, console, max_minutes, started, single, str(error), until)
    fits = replace(fits, reserve_s=fits.reserve_s + end_s)
    designs = designs_for(config, fixed, labels, fits.steps)[: fits.designs]
    minutes, peak_mb = of_auto(
        fits, speed, len(roles.train), len(roles.validation), time.time() - started, 60 * max_minutes
    )
    lines = [*base_lines, *facts(config, roles, speed, fits, designs, solved)]
    lines[-1] += f"; about {minutes:.1f} minutes in all, and {peak_mb:,.0f} MB of memory"
    for line in [*roles.report.lines(), *lines]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def rivals(winner: Winner) -> Winner | None:
        again = None if fits.steps_given else longer(winner, folder, ends - fits.reserve_s)
        return beside.with_words(again or winner, folder, single.is_quick) or again

    def ending(winner: Winner) -> Winner:
        return on_all_rows(winner, folder, ends - fits.end_s)

    origin = AutoRecord(
        max_params=max_params,
        max_ms=single.limit_ms,
        max_minutes=max_minutes,
        speed=msgspec.to_builtins(speed),
        schedule=msgspec.to_builtins(fits),
        forecast={"minutes": minutes, "peak_mb": peak_mb},
        more=labels_line,
        floors=[one.winner() for one in solved],
        planned_lines=len(lines),
        explanation=lines,
    )
    search(
        _search_tree(tree, config, fits, designs),
        out=folder,
        console=console,
        deadline=ends - fits.reserve_s,
        origin=origin,
        rivals=rivals,
        ending=ending,
    )
    with changing(folder / RECORD, SearchRecord) as record:
        assert record.winner is not None
        timed = single.line(record.winner, folder)
        seconds = time.time() - started
        origin.minutes, origin.peak_mb = round(seconds / 60, 2), description.peak_mb()
        more = more_line(labels_line, Run(folder / record.winner.run), len(roles.validation))
        origin.explanation = [*lines, *timed, *more, *outcome(record, seconds, 60 * max_minutes, fits.steps)]
        record.auto = origin
    return record


def _by_folds(
    tree: Tree,
    fixed: set[str],
    others: Sequence[str],
    folder: Path,
    console: Console,
    max_minutes: float,
    started: float,
    stop: StopRequest,
    single: SingleText,
    plan: FoldsPlan | None = None,
    base_lines: Sequence[str] = (),
) -> SearchRecord:
    """The record where no rows are held out: there are too few, or the clock has the time.

    others
        Bases that compete beside the tree's own, where the clock has the time.
    plan
        What fits the clock; None where rows are few, whatever fits.
    """
    config = configuration.from_dict(tree)
    roles = load_data(config.data, ["train", "test"])
    clock_s, names, goal = 60 * max_minutes, roles.label_names, goal_of(config.train.select.metric)
    ends = started + clock_s
    shared = beside.of_all_rows(tree, roles.train, names, folder, time.time() + _OF_WORDS * clock_s)
    if has_room(shared, fixed, len(names)):
        tree = shared
    else:
        beside.put_away(folder)
    lines, forecast = list(base_lines), None
    if plan is None:
        found = few_rows.judged(tree, fixed, roles.train, names, ends, clock_s, others)
        end_s = max(min(_END_S * crowding(), _MOST_END * clock_s), _END_SHARE * clock_s)
    else:
        seconds, peak_mb = plan.seconds(ends - time.time()) + time.time() - started, description.peak_mb()
        forecast = {"minutes": round(seconds / 60, 2), "peak_mb": peak_mb}
        lines += plan_lines(config, roles, plan, forecast)
        for line in [*roles.report.lines(), *lines]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        competing, end_s = by_folds.contenders(fixed, plan.steps), plan.reserve_s
        found = few_rows.compared(competing, tree, roles.train, names, plan.until(ends), plan.folds, fewest=1)
    if not found and stop.requested:
        raise KeyboardInterrupt
    if not found:
        raise UserError("no classifier fits the budget: raise --max-params, or see  rankwise plan  for what fits")
    standing = few_rows.choose(found, goal)
    helped = few_rows.with_words(standing, roles.train, folder) if time.time() < ends - end_s else None
    # Nothing is there before the chosen one is fitted, which takes seconds: that is done whole.
    stopped, stop.requested = stop.requested, False
    whole = standing if plan is None or stopped else plan.on_all_rows(standing, ends - end_s - time.time())
    winner = few_rows.fit_on_all(whole, tree, folder, ends - end_s)
    if helped is not None and time.time() < ends - 0.5 * end_s:
        both, weight = helped
        again = beside.with_words_of_folds(winner, folder, weight, both.scores, single.is_quick)
        if again is not None:
            both.keep(Run(folder / again.run), roles.train)
            winner, standing, found = again, both, [*found, both]
    shown = len(lines)
    if plan is None:
        lines = rows_lines([config.model.name, *others], roles, standing.folds)
    lines += folds_lines(found, standing)
    if whole.contender.steps != standing.contender.steps:
        lines.append(
            f"all rows  {whole.contender.steps:,} steps, which the clock had left, where the folds had {standing.contender.steps:,}"
        )
    origin = AutoRecord(max_minutes=max_minutes, forecast=forecast, folds=[one.record() for one in found])
    record = _without_trials(winner, lines, origin, config, roles, folder, console, started, single, shown)
    return _interrupted(record, folder) if stopped or stop.requested else record


def _interrupted(record: SearchRecord, folder: Path) -> SearchRecord:
    """The record of what the user stopped."""
    record.status = "interrupted"
    assert record.auto is not None
    record.auto.explanation.insert(-1, STOPPED_LINE)
    records.write(folder / RECORD, record)
    return record


def _floor_alone(
    solved: list[Floor],
    config: Config,
    roles: Any,
    folder: Path,
    console: Console,
    max_minutes: float,
    started: float,
    single: SingleText,
    why: str,
    until: float,
) -> SearchRecord:
    """The record where nothing can be trained: the best of what was solved at once, on all rows where there is time.

    why
        In words.
    until
        `time.time()` at which it should be fitted.
    """
    found = [one.winner() for one in solved]
    winner = preferred(folder, found, goal_of(config.train.select.metric))
    lines = [
        *data_lines(config, roles),
        f"floor     {floor_line(solved)}",
        f"plan      {why}",
    ]
    floors = AutoRecord(max_minutes=max_minutes, floors=found)
    winner = on_all_rows(msgspec.structs.replace(winner), folder, until)
    return _without_trials(winner, lines, floors, config, roles, folder, console, started, single)


def _words_alone(tree: Tree, roles: Any, folder: Path) -> list[Floor]:
    words = of_words(tree, roles, folder / FLOORS / "words")
    return [] if words is None else [words]


def _without_trials(
    winner: Winner,
    lines: list[str],
    origin: AutoRecord,
    config: Config,
    roles: Any,
    folder: Path,
    console: Console,
    started: float,
    single: SingleText,
    shown: int = 0,
) -> SearchRecord:
    """The record of a winner that no search of trials came before.

    shown
        How many of the lines stand on the console.
    """
    winner.test = look_at_test(folder, winner)
    record = SearchRecord(
        status="finished",
        metric=config.train.select.metric,
        strategy={"name": "factorial"},
        winner=winner,
        timing=SearchTiming(session_s=round(time.time() - started, 1)),
        auto=origin,
    )
    for line in lines[shown:] if shown else [*roles.report.lines(), *lines]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    seconds = time.time() - started
    origin.minutes = round(seconds / 60, 2)
    origin.max_ms = single.limit_ms
    origin.explanation = [*lines, *single.line(winner, folder), *outcome(record, seconds, 60 * origin.max_minutes, 0)]
    records.write(folder / RECORD, record)
    return record


def _base(data: str, overrides: Sequence[str], max_params: str | int, goal: str = "accuracy") -> tuple[Tree, set[str]]:
    """The configuration tree that all designs share, and the keys that the user has fixed."""
    fixed = {word.partition("=")[0] for word in overrides}
    tree: Tree = {
        "budget": {"max_trainable": max_params},
        "model": {"name": DEFAULT_MODEL},
        "adapter": {"scope": "all", "rank": "max", "alpha": "2r", "dropout": 0.1},
        "head": {"pooling": "auto", "penalty": "auto"},
        "data": {"train": data},
        "train": {
            "learning_rate": 1e-3,
            "schedule": "linear",
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "label_smoothing": _SMOOTHING,
            "select": {"metric": goal},
        },
    }
    return configuration.apply_overrides(tree, overrides), fixed


def _settled(tree: Tree, config: Config) -> Tree:
    """The tree with what the clock has settled: the length of texts and the batch."""
    base: Tree = msgspec.to_builtins(tree)
    configuration.set_key(base, "data.max_length", config.data.max_length)
    configuration.set_key(base, "train.batch_size", config.train.batch_size)
    return base


def _search_tree(tree: Tree, config: Config, fits: ClockPlan, designs: list[Keys]) -> Tree:
    """The search file that auto stands for; its copy in the folder runs again without the clock."""
    base = _settled(tree, config)
    base["train"].pop("epochs", None)
    base["train"] |= {"steps": fits.steps, "eval_every": fits.eval_every}
    made: Tree = {"base": base, "axes": {"design": designs}, "strategy": {"name": "factorial"}}
    made["metric"] = config.train.select.metric
    if fits.designs > 1:
        made["halving"] = msgspec.to_builtins(HALVING)
    return made
