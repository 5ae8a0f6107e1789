"""Where rows are few: contenders are judged by cross-validation, and the one that is chosen is fitted on all rows.

A tenth of a few hundred rows neither tells contenders apart nor can be spared. What trains at a handful of rows a class is
contrastive: every pair of texts says something (Tunstall et al. 2022), so it is tried first and wins what is not told apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rankwise import config as configuration
from rankwise.config import Config, Keys
from rankwise.data import Roles
from rankwise.data.folds import FEW_ROWS, FOLDS, splits
from rankwise.data.rows import Rows
from rankwise.errors import UserError
from rankwise.records import Scores, Winner
from rankwise.records.record import Tree
from rankwise.records.search import FoldsScore
from rankwise.runs.folder import Run
from rankwise.scoring import metrics
from rankwise.scoring.goals import PLAIN, Goal
from rankwise.search.designs import ALL, FITTED, usual_rate
from rankwise.search.floors import fit_words, write_words
from rankwise.search.trial import load_data
from rankwise.training.held_out import logits_of_held_out
from rankwise.training.interrupt import requested
from rankwise.training.job import train

FOLDER = "all-rows"
"""of the run that is shipped, inside the search's folder"""
_CHOOSING = 0.6
"""of the clock, for cross-validation; what is left fits the chosen one on all rows, proves it and scores the test rows"""
_OF_THE_FIRST = 0.7
"""of that, for the first: on a slow machine fewer folds are answered for, by all contenders the same"""
_EPOCHS, _FEWEST_STEPS, _MOST_STEPS, _BATCH = 10, 40, 200, 32
_CONTRASTIVE: Keys = {
    "train.objective": "contrastive",
    "train.learning_rate": 3e-4,
    "train.batch_size": _BATCH,
    "data.augment": {"crop": 0.6},
}
"""at higher rates, and on whole texts, the pairs of a few rows are learnt by heart (LOG.md)"""


@dataclass(frozen=True)
class Contender:
    """What may be shipped. design: its configuration keys; None for TF-IDF."""

    title: str
    design: Keys | None


@dataclass(frozen=True)
class Standing:
    """What cross-validation says of a contender.

    right
        Whether each held-out row was answered rightly. Shape: (rows,)
    """

    contender: Contender
    scores: Scores
    right: NDArray[np.bool_]
    seconds: float
    folds: int = FOLDS
    """that it was judged by"""

    def record(self) -> FoldsScore:
        """What search.json says of it."""
        scores = self.scores
        return FoldsScore(
            design=self.contender.title,
            seconds=self.seconds,
            examples=scores.examples,
            accuracy=scores.accuracy,
            accuracy_ci95=scores.accuracy_ci95,
            loss=scores.loss,
            macro_f1=scores.macro_f1,
        )


def are_few(roles: Roles, config: Config, fixed: set[str]) -> bool:
    """Whether folds say more than the rows held out, and nothing else needs those: the user has not named them, and no
    threshold is fitted on them."""
    assert roles.train is not None
    assert roles.validation is not None
    named = config.data.validation is not None or bool(fixed & {"data.validation_size", "train.evaluate"})
    named |= config.data.multi_label or config.train.select.metric not in PLAIN
    return not named and len(roles.train) + len(roles.validation) < FEW_ROWS


def contenders(config: Config, fixed: set[str], rows: int) -> list[Contender]:
    """The likeliest first, without what the user has fixed."""
    steps = config.train.steps or min(max(_EPOCHS * rows // _BATCH, _FEWEST_STEPS), _MOST_STEPS)
    pairs = {**ALL, **_CONTRASTIVE, "train.steps": steps}
    if config.data.pair:  # a crop of a pair would no longer be one
        pairs.pop("data.augment")
    designs: dict[str, Keys | None] = {
        "contrastive steps, then logistic regression": pairs,
        "frozen features and logistic regression": {"adapter.method": "probe"},
        "frozen features (first token and mean) and logistic regression": {
            "adapter.method": "probe",
            "head.pooling": "both",
        },
        "TF-IDF and logistic regression": None,
        "LoRA from a fitted head": {
            **ALL,
            **FITTED,
            "train.learning_rate": usual_rate(steps),
            "train.batch_size": _BATCH,
            "train.steps": steps,
        },
    }
    kept: list[Contender] = []
    for title, design in designs.items():
        own = design if design is None else {key: value for key, value in design.items() if key not in fixed}
        if own is None or all(own != other.design for other in kept):
            kept.append(Contender(title, own))
    return kept


def judged(
    tree: Tree, fixed: set[str], rows: Rows, names: Sequence[str], ends: float, clock_s: float
) -> list[Standing]:
    """Every contender's standing, those that the clock or the budget has room for.

    tree
        The configuration that all share.
    rows
        All labelled rows but the test's.
    """
    config = configuration.from_dict(tree)
    parts = splits(rows.labels, FOLDS, config.data.split_seed)
    until = ends - (1 - _CHOOSING) * clock_s
    first_until = time.time() + _OF_THE_FIRST * (until - time.time())
    found: list[Standing] = []
    for contender in contenders(config, fixed, len(rows)):
        if requested() or (found and time.time() >= until):
            break
        standing = _judged(contender, tree, rows, names, parts, until if found else first_until, whole=bool(found))
        if standing is not None:
            parts = parts[: standing.folds]  # those after the first answer for the same rows
            found.append(standing)
    return found


def choose(found: Sequence[Standing], goal: Goal) -> Standing:
    """The best by the goal, where it has more rows right than chance would give it over the first; else the first.

    Of so few rows the best of several is often a lucky one, so it takes a standard error of the paired difference to
    displace the likeliest.
    """
    first = found[0]
    best = max(found, key=lambda one: (goal.better(one.scores.value(goal.text)), -one.scores.loss))
    gained, lost = int((best.right & ~first.right).sum()), int((first.right & ~best.right).sum())
    return best if gained - lost > math.sqrt(gained + lost) else first


def fit_on_all(standing: Standing, tree: Tree, folder: Path, deadline: float) -> Winner:
    """Fit it on all rows, as a run in the search's folder; returns what search.json says of the winner.

    deadline
        `time.time()` at which training has to end.
    """
    design, scores, path = standing.contender.design, standing.scores, folder / FOLDER
    if design is None:
        started, config = time.time(), configuration.from_dict(tree)
        roles = load_data(config.data, ["train", "test"])
        classifier = fit_words(config, roles.train, roles.label_names)
        assert classifier is not None  # as it was in every fold
        write_words(classifier, config, roles, path, started)
        run = Run(path)
    else:
        own = _configured(tree, design)
        own["train"] |= {"evaluate": False, "eval_every": None, "evaluate_at": []}
        run = train(own, out=path, console=Console(quiet=True), load_data=load_data, deadline=deadline)
    low, high = scores.accuracy_ci95
    with run.changing() as result:
        result.notes.append(
            f"accuracy {scores.accuracy:.4f} (95% {low:.4f} to {high:.4f}) by {standing.folds} folds on {scores.examples} rows; "
            "this run is fitted on all rows, so none is left to choose or to calibrate by"
        )
    rank = run.config.adapter.rank
    return Winner(
        run=FOLDER,
        point={"design": standing.contender.title},
        trainable=run.record.parameters.trainable,
        rank=rank if design and "adapter.scope" in design and isinstance(rank, int) else None,
        peak=scores.accuracy,
        chosen=scores.accuracy,
        final=scores.accuracy,
        mean=scores.value(run.config.train.select.metric),
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
    *,
    whole: bool,
) -> Standing | None:
    """None where it does not fit the budget, or the clock has no room for all folds that are wanted `whole`; else for as many
    as it has room for."""
    started = time.time()
    pieces: list[NDArray[np.float32]] = []
    for number, (kept, out) in enumerate(parts):
        wanted = len(parts) if whole else number + 1
        if requested() or (number and time.time() + (time.time() - started) / number * (wanted - number) > until):
            break
        found = _answers(contender, tree, rows.take(kept), rows.take(out), names)
        if found is None:
            return None
        pieces.append(found)
    if not pieces or (whole and len(pieces) < len(parts)):
        return None
    labels = rows.labels[np.concatenate([out for _, out in parts[: len(pieces)]])]
    logits = np.concatenate(pieces)
    scores = metrics.evaluate(logits, labels, names)
    right = np.asarray(logits.argmax(1) == labels)
    return Standing(contender, scores, right, time.time() - started, len(pieces))


def _answers(
    contender: Contender, tree: Tree, kept: Rows, out: Rows, names: Sequence[str]
) -> NDArray[np.float32] | None:
    """Logits of held-out rows. Shape: (rows, classes)"""
    if contender.design is None:
        classifier = fit_words(configuration.from_dict(tree), kept, names)
        return None if classifier is None else classifier.logits(out.texts)
    try:
        return logits_of_held_out(configuration.from_dict(_configured(tree, contender.design)), kept, out, names)
    except KeyboardInterrupt:
        if not requested():
            raise
        return None
    except UserError:
        return None


def _configured(tree: Tree, design: Keys) -> Tree:
    own = configuration.to_dict(configuration.from_dict(tree))
    own["head"] |= {"penalty": "auto"}
    own["train"] |= {"steps": 1, "epochs": None}
    if "adapter.method" in design:
        own["adapter"] = {}
    for key, value in design.items():
        configuration.set_key(own, key, value)
    return own
