"""What `auto` was asked for: the configuration that all it tries share, what the user fixed, the clock, and where answers go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rankwise import config as configuration
from rankwise.config import Config, Keys
from rankwise.data.folds import FOLDS
from rankwise.errors import UserError
from rankwise.records.record import Tree
from rankwise.records.search import COPY, RECORD
from rankwise.scoring.goals import Goal, goal_of
from rankwise.search.clock.clock import Clock
from rankwise.search.designs import bases
from rankwise.search.designs.design import has_room
from rankwise.search.floors import beside
from rankwise.search.single_text import SingleText
from rankwise.training.interrupt import StopRequest

_SMOOTHING = 0.1
"""of the labels at most: short runs at high rates end overconfident without, and on BBC News less accurate (LOG.md)"""
_ELSEWHERE = (
    ("budget.max_trainable", "--max-params"),
    ("data.train", "the data's own place"),
    ("train.select.metric", "--goal"),
)
"""keys that have a word of their own"""


@dataclass
class Request:
    """What `auto` was asked for.

    tree
        The configuration that all designs share; what reading and measuring settle is written into it.
    fixed
        The keys that the user has set.
    bases
        Encoders that may compete, the tree's own first.
    base_lines
        What is said of the base, and of which ends of texts are read.
    note
        That texts are read as carrying several labels, where the rows say so.
    single
        What one text may take, once rows are read.
    """

    tree: Tree
    fixed: set[str]
    bases: list[str]
    goal: Goal
    max_params: str | int
    max_minutes: float
    folder: Path
    console: Console
    clock: Clock
    stop: StopRequest
    base_lines: list[str] = field(default_factory=list)
    note: str | None = None
    single: SingleText = field(init=False)

    @property
    def config(self) -> Config:
        """The tree, checked."""
        return configuration.from_dict(self.tree)

    def show(self, lines: Iterable[str]) -> None:
        """Lines on the console, as they are."""
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def settle(self, config: Config) -> None:
        """Write down what was settled: the base, the length of texts, which of their ends are read, and the batch."""
        data = config.data
        settled: Keys = {"data.max_length": data.max_length, "data.truncation": data.truncation}
        settled |= {"model.name": config.model.name, "train.batch_size": config.train.batch_size}
        self.tree = configuration.with_keys(self.tree, settled)

    def leave_room(self, tree: Tree, labels: int) -> bool:
        """Take the tree with the budgets that words leave; put these away where they leave no room for anything that is trained."""
        room = has_room(tree, self.fixed, labels)
        if room:
            self.tree = tree
        else:
            beside.put_away(self.folder)
        return room


def request_of(
    data: str,
    overrides: Sequence[str],
    models: str | Sequence[str] | None,
    max_params: str | int,
    max_minutes: float,
    goal: str,
    folder: Path,
    console: Console,
    started: float,
    stop: StopRequest,
) -> Request:
    """The request that `auto`'s arguments make.

    Raises: UserError for what contradicts itself, and where the folder holds a search.
    """
    if not 0 < max_minutes < math.inf:
        raise UserError(f"--max-minutes must be a number above zero, got {max_minutes:g}")
    if (folder / COPY).is_file():
        raise UserError(f"{folder} holds a search already: go on with --resume, or choose another with --out")
    if (folder / RECORD).is_file():
        raise UserError(f"{folder} holds a finished search: choose another folder with --out")
    _check(overrides)
    tree, fixed = base_tree(data, overrides, max_params, goal)
    names = bases.named(models, fixed) or [tree["model"]["name"]]
    if any(key in fixed for key in ("budget.max_ms", "model.revision")):
        names = names[:1]  # a length of texts, or a revision, is one base's
    tree["model"]["name"] = names[0]
    wanted, clock = goal_of(goal, "--goal"), Clock(started, 60 * max_minutes)
    return Request(tree, fixed, names, wanted, max_params, max_minutes, folder, console, clock, stop)


def _check(overrides: Sequence[str]) -> None:
    """Raises: UserError for keys that are `auto`'s own to choose."""
    keys = {word.partition("=")[0] for word in overrides if "=" in word}
    for key in ("train.epochs", "train.eval_every"):
        if key in keys:
            raise UserError(f"{key} is what auto plans by the clock: leave it out, or fix train.steps")
    if "data.folds" in keys:
        raise UserError(
            f"data.folds is auto's own choice, {FOLDS} where rows are few or the clock has the time, else a tenth is held out: leave it out, or "
            "score the winner's design by folds afterwards, with  rankwise train RUN/config.yaml data.folds=K"
        )
    for key, instead in _ELSEWHERE:
        if key in keys:
            raise UserError(f"{key} cannot be given beside {instead}: name it there")


def smoothing_of(labels: NDArray[Any], classes: int) -> float:
    """How much labels are smoothed: so little that no text is told more of a class than there is of it. A head that is told 5% of a
    class of 2% finds half as many of its rows (LOG.md).

    labels
        Shape: (rows,) class numbers, or (rows, classes) of zeros and ones, each of which has two sides.
    """
    several = labels.ndim == 2
    shares = labels.mean(axis=0) if several else np.bincount(labels, minlength=classes) / len(labels)
    return round(float(min(_SMOOTHING, (2 if several else classes) * shares[shares > 0].min(initial=1.0))), 4)


def base_tree(
    data: str, overrides: Sequence[str], max_params: str | int, goal: str = "accuracy"
) -> tuple[Tree, set[str]]:
    """The configuration tree that all designs share, and the keys that the user has fixed."""
    fixed = {word.partition("=")[0] for word in overrides}
    tree: Tree = {
        "budget": {"max_trainable": max_params},
        "model": {"name": bases.DEFAULT},
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
