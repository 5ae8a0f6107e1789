"""What the rows of the roles are worth: few of them, classes that a role lacks, texts that give their class away."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from rankwise.data.folds import FEW_ROWS, FOLDS
from rankwise.data.rows import Rows
from rankwise.errors import listed

_FEW_ROWS = 100
"""Rows below which an accuracy of 80% is not known to 8 points (95%)."""
_SHOWN = 5
_LEAK_ROWS = 20
_LEAK_SHARE = 0.5
_SAMPLE = 2000


def of_roles(
    rows: Mapping[str, Rows],
    classes: Sequence[str],
    balance: Mapping[str, Sequence[int]],
    *,
    named_test: bool,
    named_validation: bool = False,
) -> list[str]:
    """Notes on the rows of all roles.

    Args:
        balance: for each role, rows that carry each class.
        named_test, named_validation: whether these are sources of their own.
    """
    notes = []
    train = balance.get("train")
    if train is not None:
        single = [name for name, count in zip(classes, train, strict=True) if count == 1]
        if single:
            notes.append(f"{_named(single)} {'has' if len(single) == 1 else 'have'} a single training row")
    if "validation" in rows:
        choice = _of_choice(len(rows["validation"]), balance["validation"], classes)
        if choice and "train" in rows and not named_validation and len(rows["train"]) < FEW_ROWS:
            choice = [
                f"{choice[0]}; with `rankwise train` data.folds={FOLDS} scores every row instead, by {FOLDS} runs"
            ]
        notes += choice
    if train is not None and named_test and "test" in rows:
        absent = [n for n, a, b in zip(classes, train, balance["test"], strict=True) if a and not b]
        if absent:
            notes.append(
                f"{_named(absent)} of train {'does' if len(absent) == 1 else 'do'} not occur in test: "
                f"data.exclude=[{absent[0]}] leaves a class out"
            )
    if "train" in rows:
        notes += _giveaways(rows["train"], classes)
    return notes


def _of_choice(count: int, balance: Sequence[int], classes: Sequence[str]) -> list[str]:
    """What a choice by few validation rows is worth."""
    absent = sum(not rows for rows in balance)
    if count >= _FEW_ROWS and not absent:
        return []
    points = 100 * 1.96 * math.sqrt(0.8 * 0.2 / count)
    lacks = f", and {absent} of {len(classes)} classes are not among them" if absent else ""
    if count == 1:
        return [f"one validation row decides which weights are kept{lacks}"]
    return [
        f"{count:,} validation rows choose the weights that are kept: they know an accuracy of 80% to "
        f"{min(points, 50):.0f} points (95%){lacks}"
    ]


def _giveaways(rows: Rows, classes: Sequence[str]) -> list[str]:
    """Classes whose texts mostly hold the class's own name, as the headers of newsgroups do, and no other's."""
    if rows.labels.ndim != 1:
        return []
    chosen = np.random.default_rng(0).permutation(len(rows.texts))[:_SAMPLE]
    texts = [rows.texts[row].lower() for row in chosen]
    labels = rows.labels[chosen]
    given = []
    for place, name in enumerate(classes):
        own = labels == place
        if own.sum() < _LEAK_ROWS or len(name) < 3:
            continue
        word = re.compile(rf"(?<!\w){re.escape(name.lower())}(?!\w)")
        holds = np.array([word.search(text) is not None for text in texts])
        if holds[own].mean() >= _LEAK_SHARE and holds[~own].mean() <= _LEAK_SHARE / 10:
            given.append(name)
    if 2 * len(given) <= len(classes):
        return []
    return [f"the texts of {_named(given)} mostly hold the name of their class: a score may be that of reading it"]


def _named(names: Sequence[str]) -> str:
    shown = listed([f"'{name}'" for name in names], _SHOWN)
    return f"the class {shown}" if len(names) == 1 else f"{len(names)} classes ({shown})"
