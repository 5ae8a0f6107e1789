"""Contenders judged by the same folds, the likeliest first, as many as the clock has room for; and which of them is taken.

A tenth of a few hundred rows neither tells contenders apart nor can be spared. What trains at a handful of rows a class is
contrastive: every pair of texts says something (Tunstall et al. 2022), so it wins what is not told apart. For how many steps
decides more than anything else and differs from data to data, so the same folds choose that, on the way. What takes seconds
is judged before it, so that there is an answer whatever the clock leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise.data.folds import FOLDS, splits
from rankwise.data.rows import Rows
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.records.record import Tree
from rankwise.scoring.goals import PLAIN, Goal, goal_of
from rankwise.scoring.paired import best_group_by, rows_drawn_again
from rankwise.search.designs import bases
from rankwise.search.designs.contenders import DIRECTIONS, NAMES, WITH_NAMES, Contender, configured, contenders
from rankwise.search.floors import beside
from rankwise.search.floors.floor import fit_words
from rankwise.search.folds.standing import Standing
from rankwise.search.sweep.contest import told_apart
from rankwise.training.held_out import logits_of_held_out
from rankwise.training.interrupt import requested

_OF_THE_QUICK = 0.3
"""of the time, for more folds of what is solved at once than the fewest: on a crowded machine it left the likeliest no time"""
_OF_THE_FIRST = 0.95
"""of what is left, for the likeliest: more folds of it say more than another slow contender, which has what is left"""
FEWEST_FOLDS = 2
"""that choose: one alone has too few rows to say anything"""
_OF_A_FOLD = 0.3
"""of a contender's time, for the longer ones of its runs in its first fold, which ends a little later than it is told to"""


class _Late(Exception):
    """There is no time for as many folds as choose."""


def judged(
    tree: Tree,
    fixed: set[str],
    rows: Rows,
    names: Sequence[str],
    deadline: Deadline,
    others: Sequence[str] = (),
    length: int | None = None,
) -> list[Standing]:
    """Every contender's standing, those that the clock or the budget has room for.

    tree
        The configuration that all share.
    rows
        All labelled rows but the test's.
    others, length
        `contenders`'s.
    """
    competing = contenders(configuration.from_dict(tree), fixed, len(rows), names, others, length)
    return compared(competing, tree, rows, names, deadline, quick_deadline=deadline.part(_OF_THE_QUICK))


def compared(
    competing: Sequence[Contender],
    tree: Tree,
    rows: Rows,
    names: Sequence[str],
    deadline: Deadline,
    folds: int = FOLDS,
    fewest: int = FEWEST_FOLDS,
    quick_deadline: Deadline = NEVER,
) -> list[Standing]:
    """The standing of each of those that compete, the likeliest first, by the same folds.

    deadline
        Of the last fold.
    folds, fewest
        Of FOLDS, that choose at most and at least.
    quick_deadline
        Of what is solved at once, but for its fewest folds.
    """
    parts = splits(rows.labels, FOLDS, configuration.from_dict(tree).data.split_seed)[:folds]
    likeliest, *rest = competing
    quick, slow = ([one for one in rest if one.is_quick is wanted] for wanted in (True, False))
    standings, late = dict[str, Standing](), False
    for contender in [*quick, likeliest, *slow]:
        if requested() or (standings and deadline.has_passed):
            break
        if contender.lengths:
            is_likeliest, contender = contender is likeliest, _with_names_that_help(contender, standings)
            likeliest = contender if is_likeliest else likeliest
        # Where nothing was begun in time, what takes least answers in any case.
        needed = contender.design is None and not standings
        forecast_s = (
            math.inf
            if late and not contender.is_quick
            else _forecast_s(contender, standings.get(likeliest.title), tree)
        )
        if not needed and deadline.left_s() < forecast_s:
            continue
        own = deadline.part(_OF_THE_FIRST) if contender is likeliest else deadline
        own = min(deadline, quick_deadline, key=Deadline.at) if contender.is_quick else own
        try:
            standing = _judged(contender, tree, rows, names, parts, own, fewest)
        except _Late:  # nor is there for others, which take more steps
            late = late or contender is likeliest
            continue
        if standing is None:
            continue
        if contender is likeliest:
            parts = parts[: standing.folds]  # more would not be compared
        elif not contender.is_quick and standing.folds < len(parts):
            continue  # what has no time for the folds of the likeliest shall not take rows from the comparison
        standings[contender.title] = standing
    if late:  # so that what is solved at once has the time that nothing else takes
        for title, one in _short_of_folds(standings, len(parts), deadline.left_s()).items():
            with suppress(_Late):  # asked to stop meanwhile: the folds that it has are enough
                standings[title] = _judged(one.contender, tree, rows, names, parts, deadline, fewest) or one
    common = min((one.folds for one in standings.values()), default=0)
    first = [likeliest.title] if likeliest.title in standings else []
    return [standings[title].over(common) for title in dict.fromkeys([*first, *standings])]


def _short_of_folds(standings: Mapping[str, Standing], most: int, seconds: float) -> dict[str, Standing]:
    """Those with fewer folds, where there is time for all of them anew."""
    short = {title: one for title, one in standings.items() if one.folds < most}
    needed_s = sum(most * one.seconds / one.folds for one in short.values())
    return short if needed_s <= seconds else {}


def _with_names_that_help(contender: Contender, standings: Mapping[str, Standing]) -> Contender:
    """It, with names of classes as texts where frozen features know more by them."""
    without, by_names = standings.get(DIRECTIONS), standings.get(WITH_NAMES)
    if without is None or by_names is None or contender.design is None:
        return contender
    folds = min(without.folds, by_names.folds)
    if by_names.over(folds).calibrated_loss >= without.over(folds).calibrated_loss:
        return contender
    return replace(contender, title=f"{contender.title}, names as texts", design={**contender.design, **NAMES})


def _forecast_s(contender: Contender, likeliest: Standing | None, tree: Tree) -> float:
    """Seconds at least that the folds of the likeliest take of another that trains, by its base and its steps: what has no time
    for them is not begun. None where the likeliest was not timed, but for another base."""
    name = (contender.design or {}).get("model.name")
    if likeliest is None:
        return math.inf if name else 0.0
    slower = bases.times_as_slow(tree, name) if name else 1.0
    if contender.steps and not contender.lengths and (timed := likeliest.contender.longest):
        slower *= contender.steps / timed
    return slower * likeliest.seconds


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


def _judged(
    contender: Contender,
    tree: Tree,
    rows: Rows,
    names: Sequence[str],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    deadline: Deadline,
    fewest: int = FEWEST_FOLDS,
) -> Standing | None:
    """By as many folds as the clock has room for, what is solved at once by the fewest that choose, since something has to answer;
    None where it does not fit the budget, or has nothing to learn from.

    Raises: _Late.
    """
    started = time.time()
    pieces: list[list[NDArray[np.float32]]] = []
    always = fewest if contender.is_quick else 1
    for number, (kept, out) in enumerate(parts):
        if requested() or (number >= always and (time.time() - started) / number > deadline.left_s()):
            break
        # So that the longest of its runs leave time for others, and the shortest for as many as choose.
        first = bool(contender.lengths) and not number
        own = deadline.part(1 / fewest) if first else NEVER if contender.is_quick else deadline
        longer = deadline.part(_OF_A_FOLD) if first else deadline
        answers = _answers(contender, tree, rows.take(kept), rows.take(out), names, own, longer=longer)
        if answers is None:
            return None
        if not answers:
            break
        pieces.append(answers)
        if len(answers) < len(contender.lengths):  # longer ones would not be compared
            lengths = contender.lengths[: len(answers)]
            contender = replace(contender.of_length(lengths[-1]), lengths=lengths)
    if len(pieces) < min(fewest, len(parts)):
        raise _Late
    held_out, seconds = [out for _, out in parts[: len(pieces)]], time.time() - started
    labels, goal = [rows.labels[out] for out in held_out], goal_of(configuration.from_dict(tree).train.select.metric)
    if not contender.lengths:
        return Standing(contender, held_out, labels, [piece[0] for piece in pieces], names, seconds, goal)
    of_lengths = [  # of those that every fold came to
        Standing(contender.of_length(steps), held_out, labels, logits, names, seconds, goal)
        for steps, *logits in zip(contender.lengths, *pieces, strict=False)
    ]
    return min(of_lengths, key=lambda one: one.calibrated_loss)


def _answers(
    contender: Contender,
    tree: Tree,
    kept: Rows,
    out: Rows,
    names: Sequence[str],
    deadline: Deadline,
    *,
    longer: Deadline = NEVER,
) -> list[NDArray[np.float32]] | None:
    """Logits of held-out rows, after each of its lengths that it comes to by the deadlines; None where it does not fit the budget.
    Shape of each: (rows, classes)"""
    if contender.design is None:
        classifier = fit_words(configuration.from_dict(tree), kept, names)
        return None if classifier is None else [classifier.logits(out.texts)]
    try:
        config = configuration.from_dict(configured(tree, contender.design, kept.labels))
        return logits_of_held_out(
            config, kept, out, names, after=contender.lengths[:-1], deadline=deadline, longer=longer
        )
    except KeyboardInterrupt:
        if not requested():
            raise
        return []
    except UserError:
        return None
