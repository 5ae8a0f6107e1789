"""Where rows are few: contenders are judged by cross-validation, and the one that is chosen is fitted on all rows.

A tenth of a few hundred rows neither tells contenders apart nor can be spared. What trains at a handful of rows a class is
contrastive: every pair of texts says something (Tunstall et al. 2022), so it wins what is not told apart. For how many steps
decides more than anything else and differs from data to data, so the same folds choose that, on the way. What takes seconds
is judged before it, so that there is an answer whatever the clock leaves.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rankwise import config as configuration
from rankwise.config import Config, Keys
from rankwise.data import Roles
from rankwise.data.folds import FEW_ROWS, FOLDS, TENTHS, splits
from rankwise.data.rows import Rows
from rankwise.errors import UserError
from rankwise.models.layout import RECORD as ADAPTER
from rankwise.planning import encoder_of
from rankwise.records import AdapterRecord, Decision, Scores, Winner
from rankwise.records.record import Tree, changing
from rankwise.records.search import FoldsScore
from rankwise.runs import card
from rankwise.runs.folder import Run
from rankwise.scoring import judged as judging
from rankwise.scoring import predictions
from rankwise.scoring.calibration import fit_temperature
from rankwise.scoring.goals import PLAIN, Goal, goal_of
from rankwise.scoring.paired import best_group_by, mcnemar, rows_drawn_again
from rankwise.search import bases, beside
from rankwise.search.contenders import DIRECTIONS, NAMES, WITH_NAMES, Contender, contenders
from rankwise.search.contest import CHANCE
from rankwise.search.floors import fit_words, write_words
from rankwise.search.trial import load_data
from rankwise.training.held_out import logits_of_held_out
from rankwise.training.interrupt import requested
from rankwise.training.job import train

_ACCURACY = goal_of("accuracy")
_FITTED_ON_ALL = "this run is fitted on all rows"
FOLDER = "all-rows"
"""of the run that is shipped, inside the search's folder"""
_CHOOSING = 0.6
"""of the clock, for cross-validation; what is left fits the chosen one on all rows, proves it and scores the test rows"""
_OF_THE_QUICK = 0.3
"""of that, for more folds of what is solved at once than the fewest: on a crowded machine it left the likeliest no time"""
_OF_THE_FIRST = 0.95
"""of that, for the likeliest: more folds of it say more than another slow contender, which has what is left"""
_FEWEST_FOLDS = 2
"""that choose: one alone has too few rows to say anything"""
_OF_A_FOLD = 0.3
"""of a contender's time, for its first fold, which ends a little later than it is told to"""
_NEED_VALIDATION = {"data.validation_size", "train.evaluate", "train.refit_steps", "train.early_stopping"}
_ROWS_OF_C_1 = 64
"""at which a fitted head has the penalty of logistic regression with C = 1 on texts' directions; C grows with the rows. The
cross-validated loss of so few prefers weak penalties, which are confident; strong ones have more rows right (LOG.md)"""


@dataclass(frozen=True)
class Standing:
    """What cross-validation says of a contender.

    held_out, labels, logits
        Numbers of the rows that each fold held out, and what goes with them. Shapes: (rows,), (rows,), (rows, classes)
    """

    contender: Contender
    held_out: Sequence[NDArray[np.int64]]
    labels: Sequence[NDArray[np.int64]]
    logits: Sequence[NDArray[np.float32]]
    names: Sequence[str]
    seconds: float
    goal: Goal = _ACCURACY

    @property
    def folds(self) -> int:
        """that it was judged by"""
        return len(self.logits)

    @cached_property
    def _rows(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Logits and labels of all held-out rows together."""
        return np.concatenate(self.logits), np.concatenate(self.labels)

    @cached_property
    def decision(self) -> Decision | None:
        """How it decides for the goal, fitted on all held-out rows together."""
        return self.goal.decision(*self._rows, self.names)

    @cached_property
    def _judged(self) -> tuple[Scores, NDArray[Any]]:
        scores, predicted = judging.judge(self.decision, *self._rows, self.names)
        scores.folds = self.folds
        return scores, predicted

    @property
    def scores(self) -> Scores:
        """Of all held-out rows together."""
        return self._judged[0]

    @cached_property
    def value(self) -> float:
        """What the goal came to."""
        return self.goal.value(self.scores, *self._rows, self.names)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each held-out row was answered rightly, with every label of it. Shape: (rows,)"""
        return judging.right(self._judged[1], self._rows[1])

    @cached_property
    def calibrated_loss(self) -> float:
        """The loss of all held-out rows under the temperature that suits them: what a contender knows, however confident."""
        return fit_temperature(*self._rows).loss_after

    def over(self, folds: int) -> Standing:
        """What the first folds say."""
        return replace(self, held_out=self.held_out[:folds], labels=self.labels[:folds], logits=self.logits[:folds])

    def redrawn(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the goal comes to, the higher the better, of rows that count so often. Shape: (draws, rows) -> (draws,)"""
        return self.goal.redrawn(self._rows[1], self._judged[1], self.names, drawn)

    def keep(self, run: Run, rows: Rows) -> None:
        """Write it down as the validation of a run on all rows, and how that decides: what is calibrated, compared and reported
        by rows held out.

        rows
            Those that folds were made of.
        """
        held = rows.take(np.concatenate(self.held_out))
        said = f"; {self.decision.note}" if self.decision is not None and self.decision.note else ""
        predictions.write_logits(run.path, "validation", self.names, held, *self._rows[:1], self._judged[1])
        with run.changing() as result:
            result.metrics.validation, result.decision = self.scores, self.decision
            result.notes = [note for note in result.notes if _FITTED_ON_ALL not in note]
            low, high = self.scores.accuracy_ci95
            result.notes.append(
                f"accuracy {self.scores.accuracy:.4f} (95% {low:.4f} to {high:.4f}) by {self.folds} folds on {len(held)} rows; "
                f"{_FITTED_ON_ALL}, so none is left to choose by{said}"
            )
        if run.adapter.is_dir():
            with changing(run.adapter / ADAPTER, AdapterRecord) as adapter:
                adapter.decision = self.decision
            card.write(run)

    def record(self) -> FoldsScore:
        """What search.json says of it."""
        scores = self.scores
        return FoldsScore(
            design=self.contender.title,
            steps=self.contender.steps if self.contender.lengths else None,
            seconds=self.seconds,
            examples=scores.examples,
            accuracy=scores.accuracy,
            accuracy_ci95=scores.accuracy_ci95,
            loss=scores.loss,
            macro_f1=scores.macro_f1,
            value=None if self.goal.text == "accuracy" else self.value,
        )


def are_few(roles: Roles, config: Config, fixed: set[str]) -> bool:
    """Whether folds say more than the rows held out, whatever the clock, and nothing else needs those. Of several labels a text
    there are no pairs, and what is left to train takes the steps that the clock has to be asked for (`by_folds`).
    """
    assert roles.train is not None
    assert roles.validation is not None
    few = len(roles.train) + len(roles.validation) < max(FEW_ROWS, TENTHS * len(roles.label_names))
    return few and not config.data.multi_label and can_be_folded(config, fixed)


def can_be_folded(config: Config, fixed: set[str]) -> bool:
    """Whether nothing needs rows that are held out, which the user has named."""
    return config.data.validation is None and not fixed & _NEED_VALIDATION


def judged(
    tree: Tree,
    fixed: set[str],
    rows: Rows,
    names: Sequence[str],
    ends: float,
    clock_s: float,
    others: Sequence[str] = (),
) -> list[Standing]:
    """Every contender's standing, those that the clock or the budget has room for.

    tree
        The configuration that all share.
    rows
        All labelled rows but the test's.
    others
        `contenders`'s.
    """
    competing = contenders(configuration.from_dict(tree), fixed, len(rows), names, others)
    until = ends - (1 - _CHOOSING) * clock_s
    quick_until = time.time() + _OF_THE_QUICK * (until - time.time())
    return compared(competing, tree, rows, names, until, quick_until=quick_until)


def compared(
    competing: Sequence[Contender],
    tree: Tree,
    rows: Rows,
    names: Sequence[str],
    until: float,
    folds: int = FOLDS,
    fewest: int = _FEWEST_FOLDS,
    quick_until: float = math.inf,
) -> list[Standing]:
    """The standing of each of those that compete, the likeliest first, by the same folds.

    until
        `time.time()` at which the last fold has to be over.
    folds, fewest
        Of FOLDS, that choose at most and at least.
    quick_until
        When what is solved at once has to be over, but for its fewest folds.
    """
    parts = splits(rows.labels, FOLDS, configuration.from_dict(tree).data.split_seed)[:folds]
    likeliest, *rest = competing
    quick, slow = ([one for one in rest if one.is_quick is wanted] for wanted in (True, False))
    standings: dict[str, Standing] = {}
    for contender in [*quick, likeliest, *slow]:
        left = until - time.time()
        if requested() or (standings and left <= 0):
            break
        if contender.lengths:
            is_likeliest, contender = contender is likeliest, _with_names_that_help(contender, standings)
            likeliest = contender if is_likeliest else likeliest
        needed = (
            contender.design is None and not standings
        )  # nothing was begun in time: what takes least answers in any case
        if not needed and left < _forecast_s(contender, standings.get(likeliest.title), tree):
            continue
        share = _OF_THE_FIRST if contender is likeliest else 1.0
        ends = min(until, quick_until) if contender.is_quick else time.time() + share * left
        standing = _judged(contender, tree, rows, names, parts, ends, fewest)
        if standing is None:
            continue
        if contender is likeliest:
            parts = parts[: standing.folds]  # more would not be compared
        elif not contender.is_quick and standing.folds < len(parts):
            continue  # what has no time for the folds of the likeliest shall not take rows from the comparison
        standings[contender.title] = standing
    common = min((one.folds for one in standings.values()), default=0)
    first = [likeliest.title] if likeliest.title in standings else []
    return [standings[title].over(common) for title in dict.fromkeys([*first, *standings])]


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
        gained, lost = int((best.right & ~first.right).sum()), int((first.right & ~best.right).sum())
        return bool(gained > lost and mcnemar(gained, lost) < CHANCE)
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


def fit_on_all(standing: Standing, tree: Tree, folder: Path, deadline: float) -> Winner:
    """Fit it on all rows, as a run in the search's folder; returns what search.json says of the winner.

    Asked to stop, the run ends with the steps it has taken.

    deadline
        `time.time()` at which training has to end.
    """
    design, scores, path = standing.contender.design, standing.scores, folder / FOLDER
    config = configuration.from_dict(tree)
    roles = load_data(config.data, ["train", "test"])
    rows = roles.train
    shutil.rmtree(path, ignore_errors=True)  # of what was stopped before it had a record
    if design is None:
        started = time.time()
        classifier = fit_words(config, rows, roles.label_names)
        assert classifier is not None  # as it was in every fold
        write_words(replace(classifier, decision=standing.decision), config, roles, path, started)
        run = Run(path)
    else:
        own = _configured(tree, design, rows.labels)
        own["train"] |= {"evaluate": False, "eval_every": None, "evaluate_at": []}
        fit = partial(train, own, out=path, console=Console(quiet=True), load_data=load_data)
        try:
            run = fit(deadline=deadline)
        except KeyboardInterrupt:
            if not requested() or not path.is_dir():
                raise
            run = fit(deadline=time.time(), resume=True)
    standing.keep(run, rows)
    rank = run.config.adapter.rank
    return Winner(
        run=FOLDER,
        point={"design": standing.contender.title},
        trainable=run.record.parameters.trainable,
        rank=rank if design and "adapter.scope" in design and isinstance(rank, int) else None,
        peak=scores.accuracy,
        chosen=scores.accuracy,
        final=scores.accuracy,
        mean=standing.value,
        chosen_ci95=scores.accuracy_ci95,
        loss=scores.loss,
        seeds=1,
    )


def _judged(
    contender: Contender,
    tree: Tree,
    rows: Rows,
    names: Sequence[str],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    until: float,
    fewest: int = _FEWEST_FOLDS,
) -> Standing | None:
    """By as many folds as the clock has room for, what is solved at once by the fewest that choose, since something has to answer;
    None where there are fewer, or it does not fit the budget."""
    started = time.time()
    pieces: list[list[NDArray[np.float32]]] = []
    always = fewest if contender.is_quick else 1
    for number, (kept, out) in enumerate(parts):
        if requested() or (number >= always and time.time() + (time.time() - started) / number > until):
            break
        share = (
            _OF_A_FOLD if contender.lengths and not number else 1.0
        )  # so that the longest of its runs leave time for others
        deadline = None if contender.is_quick else time.time() + share * (until - time.time())
        answers = _answers(contender, tree, rows.take(kept), rows.take(out), names, deadline)
        if not answers:
            break
        pieces.append(answers)
        if len(answers) < len(contender.lengths):  # longer ones would not be compared
            lengths = contender.lengths[: len(answers)]
            contender = replace(contender.of_length(lengths[-1]), lengths=lengths)
    if len(pieces) < min(fewest, len(parts)):
        return None
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
    contender: Contender, tree: Tree, kept: Rows, out: Rows, names: Sequence[str], deadline: float | None
) -> list[NDArray[np.float32]]:
    """Logits of held-out rows, after each of its lengths that it comes to by the deadline; none where it comes to none or does
    not fit the budget. Shape of each: (rows, classes)"""
    if contender.design is None:
        classifier = fit_words(configuration.from_dict(tree), kept, names)
        return [] if classifier is None else [classifier.logits(out.texts)]
    try:
        config = configuration.from_dict(_configured(tree, contender.design, kept.labels))
        return logits_of_held_out(config, kept, out, names, after=contender.lengths[:-1], deadline=deadline)
    except KeyboardInterrupt:
        if not requested():
            raise
        return []
    except UserError:
        return []


def _configured(tree: Tree, design: Keys, labels: NDArray[Any]) -> Tree:
    """The configuration of a design. Shape of labels: (rows,), or (rows, classes) where each class is a regression of its own,
    of which the loss is the mean.
    """
    own = configuration.to_dict(configuration.from_dict(tree))
    own["train"] |= {"steps": own["train"]["steps"] or 1, "epochs": None}
    if "adapter.method" in design:
        own["adapter"] = {}
    for key, value in design.items():
        configuration.set_key(own, key, value)
    if own["head"]["penalty"] == "auto":  # features of deviation 1 are as long as the root of their number
        width = encoder_of(configuration.from_dict(own).model).pooled_width
        own["head"]["penalty"] = width * _ROWS_OF_C_1 / labels.size
    return own
