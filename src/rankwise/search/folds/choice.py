"""Which of those that folds have judged is taken, and whether words stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rankwise.data.rows import Rows
from rankwise.scoring.goals import PLAIN, Goal
from rankwise.scoring.paired import best_group_by, rows_drawn_again
from rankwise.search import beside
from rankwise.search.contest import told_apart
from rankwise.search.folds.standing import Standing


def choose(found: Sequence[Standing], goal: Goal) -> Standing:
    """The best by the goal, where it has more rows right than chance would give it over the first; else the first.

    Of so few rows the best of several is often a lucky one: it has to be told apart by an exact paired test. One standard
    error of the difference displaced the likeliest wrongly in two of ten draws of eight rows a class (LOG.md).
    """
    first = found[0]
    best = max(found, key=lambda one: (goal.better(one.value), -one.scores.loss))
    return best if best is not first and _told_apart(best, first) else first


def _told_apart(best: Standing, first: Standing) -> bool:
    """Whether its rows say that the best is better than the first, by more than chance: of rows right by an exact test, of a goal that
    counts them otherwise by its spread where they are drawn again."""
    if best.goal.text in PLAIN:
        return bool(best.right.sum() > first.right.sum() and told_apart(best.right, first.right))
    drawn = rows_drawn_again(len(best.right))
    values = [best.goal.better(one.value) for one in (best, first)]
    redrawn = [one.redrawn(drawn) for one in (best, first)]
    return best_group_by(values, redrawn, best=0) == [0]


def with_words(standing: Standing, rows: Rows, folder: Path) -> tuple[Standing, float] | None:
    """What folds say of it with TF-IDF beside it, and the weight of that; None where that does not help: where rows are less surprising
    and fewer of them right, words are sure of what they have learnt by heart."""
    if standing.contender.design is None:
        return None
    said = beside.of_folds(rows, standing.held_out, folder)
    own, labels = np.concatenate(standing.logits), np.concatenate(standing.labels)
    weight = beside.weight_that_helps(own, np.concatenate(said), labels) if said else None
    if weight is None:
        return None
    logits = [(own + weight * words).astype(np.float32) for own, words in zip(standing.logits, said, strict=True)]
    contender = replace(standing.contender, title=beside.titled(standing.contender.title, folder))
    both = replace(standing, contender=contender, logits=logits)
    return None if standing.goal.better(both.value) < standing.goal.better(standing.value) else (both, weight)
