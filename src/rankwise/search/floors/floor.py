"""What `auto` has within the clock's first seconds: classifiers solved at once, which a trained one has to beat.

TF-IDF, and the head alone on frozen features under each pooling, all regularised by cross-validation. Each is a whole
run in the search's folder, scored on the rows that the trials are chosen by.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise import files
from rankwise.baselines import tfidf, words
from rankwise.config import Config
from rankwise.data import Rows
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.machine import description
from rankwise.records import HistoryRow, LastScores, Metrics, Result, Scores, Winner
from rankwise.records.record import Tree
from rankwise.records.result import Engine, Memory, Parameters, Timing
from rankwise.records.search import FLOORS as FOLDER
from rankwise.runs.folder import Run
from rankwise.scoring import judged, predictions
from rankwise.scoring.goals import Goal, goal_of
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.speed import Speed
from rankwise.search.sweep.trial import trained, validation_value
from rankwise.training.interrupt import requested
from rankwise.training.record import rows_of

_POOLINGS = ("auto", "both")
"""heads on frozen features: what the base declares, and its first token beside the mean of all"""
_FEWER_WORDS, _SMALLER = 4, 0.9
"""times that TF-IDF is fitted to become small enough, each time to so much of the megabytes: n-grams differ in length"""


@dataclass(frozen=True)
class Floor:
    """A classifier that was solved at once, and its scores on validation."""

    title: str
    run: str
    """its folder inside the search's"""
    pooling: str | None
    """of the head; None for words"""
    scores: Scores
    trainable: int
    seconds: float
    value: float
    """what the goal came to on validation"""
    alone: str | None = None
    """folder of the head without the words that answer beside it"""

    @classmethod
    def of_run(cls, path: Path, title: str, pooling: str | None, started: float, alone: str | None = None) -> Floor:
        """What the run in a folder among the floors says.

        started
            `time.time()` at which it was begun.
        """
        run = Run(path)
        result, scores = run.record, run.record.metrics.validation
        assert scores is not None
        value = validation_value(result, run.config.train.select.metric)
        trainable, seconds = result.parameters.trainable, time.time() - started
        return cls(title, f"{FOLDER}/{path.name}", pooling, scores, trainable, seconds, value, alone)

    def winner(self) -> Winner:
        """What search.json says of a winner."""
        winner = Winner.at_once(self.run, self.title, self.scores, self.value, self.trainable)
        winner.alone = self.alone
        return winner


def floors(tree: Tree, fixed: set[str], roles: Any, folder: Path, clock: Clock, speed: Speed) -> list[Floor]:
    """Fit them, the cheapest first; what the budget or the data do not allow is left out.

    tree
        The configuration that all designs share, its length of texts and batch settled; how many rows heads are fitted on is
        settled here.
    fixed
        The keys that the user has set.
    speed
        With which texts are scored.
    """
    last = clock.floors()
    found = [of_words(tree, roles, folder / FOLDER / "words", clock.words_s)]
    speed = speed.now()
    if "head.probe_rows" not in fixed:
        tree["head"]["probe_rows"] = clock.head_rows(len(roles.train), speed)
    for pooling in ("auto",) if "head.pooling" in fixed else _POOLINGS:
        deadline, rows = clock.a_floor(), tree["head"].get("probe_rows") or len(roles.train)
        # Set up twice, for the proof.
        late = last.has_passed or speed.setup_s + speed.once_s(rows + len(roles.validation)) > deadline.left_s()
        if requested() or (any(found) and late):
            break
        deadline = deadline.keeping(speed.once_s(len(roles.validation)))
        found.append(of_features(tree, fixed, pooling, folder / FOLDER / f"features-{pooling}", deadline))
    return [one for one in found if one is not None]


def best(found: Sequence[Floor], goal: Goal) -> Floor | None:
    """The best by the goal, of equals the one with the least loss."""
    return max(found, key=lambda one: (goal.better(one.value), -one.scores.loss), default=None)


def probe_tree(config: Config) -> Tree:
    """Its head alone on frozen features, fitted at once under a cross-validated penalty."""
    own = configuration.to_dict(config)
    own["adapter"] = {"method": "probe"}
    own["head"] |= {"kind": "full", "probe_first": False, "penalty": "auto"}
    own["train"] |= {"steps": 1, "epochs": None, "early_stopping": None, "eval_every": None, "prefix_cache_mb": None}
    own["train"] |= {"loraplus_ratio": None, "warmup_steps": None}
    own["data"]["augment"] = {}
    return own


def of_features(tree: Tree, fixed: set[str], pooling: str | None, path: Path, deadline: Deadline) -> Floor | None:
    """A `probe` run; None where the budget has no room for its head.

    deadline
        After which no more rows' features are computed, unless the user has said how many; the tree then says how many there are.
    """
    started, own = time.time(), probe_tree(configuration.from_dict(tree))
    if "head.pooling" not in fixed:
        own["head"]["pooling"] = pooling
    if "head.probe_rows" not in fixed and (path / "config.yaml").is_file():
        # Of a session that was stopped, whose clock left time for so many.
        own["head"]["probe_rows"] = Run(path).config.head.probe_rows
    own_end, there = NEVER if "head.probe_rows" in fixed else deadline, path.exists()
    try:
        run = trained(own, path, resume=there, deadline=own_end)
    except UserError:
        if not there:
            return None
        # Of a session that was stopped, where the machine had the time for other rows to choose by, or other lengths of texts.
        shutil.rmtree(path)
        return of_features(tree, fixed, pooling, path, deadline)
    head = run.config.head
    tree["head"]["probe_rows"] = head.probe_rows
    what = {"first": "first token", "mean": "mean", "both": "first token and mean"}[head.pooling]
    return Floor.of_run(path, f"frozen features ({what}) and logistic regression", head.pooling, started)


def of_words(tree: Tree, roles: Any, path: Path, seconds: float = math.inf) -> Floor | None:
    """TF-IDF as a run's folder; None where scikit-learn is missing, there are no words, or no time for any.

    path
        Of the run's folder.
    seconds
        It may take once scikit-learn is there, whose import takes as long on a small file as all the rest.
    """
    started = time.time()
    if not words.is_there():
        return None
    config = configuration.from_dict(tree)
    classifier = fit_words(config, roles.train, roles.label_names, Deadline.after(seconds))
    if classifier is None:
        return None
    write_words(classifier, config, roles, path, started)
    tfidf.know(roles.train, classifier.logits)
    title = f"TF-IDF of {classifier.kinds} and logistic regression"
    if classifier.fitted_on is not None and classifier.fitted_on < len(roles.train):
        title += f", on {classifier.fitted_on:,} rows"
    return Floor.of_run(path, title, None, started)


def fit_words(
    config: Config, rows: Rows, label_names: Sequence[str], deadline: Deadline = NEVER
) -> words.WordClassifier | None:
    """TF-IDF within the budgets, as `words.fit` has it by a deadline; None where scikit-learn is missing, there are no words, or none
    are small enough.
    """
    most, limit, data = configuration.max_trainable(config), configuration.max_bytes(config), config.data
    for _ in range(_FEWER_WORDS):
        try:
            found = words.fit(
                rows.texts,
                rows.labels,
                label_names,
                text=[data.text] if isinstance(data.text, str) else data.text or [],
                label=data.label if isinstance(data.label, str) else "label",
                preprocess=data.preprocess,
                seed=config.train.seed,
                most=most,
                deadline=deadline,
            )
        except UserError:
            return None
        if found is None or limit is None or found.shipped_bytes <= limit:
            return None if found is None else replace(found, separator=data.label_separator, pair=data.pair)
        most = int(_SMALLER * found.trainable * limit / found.shipped_bytes)
    return None


def write_words(classifier: words.WordClassifier, config: Config, roles: Any, path: Path, started: float) -> None:
    """Make a run's folder of it.

    started
        `time.time()` at which it was begun.
    """
    run, scores = Run(path), None
    files.make_writable_folder(path)
    run.write_config(config)
    if roles.validation is not None:
        logits, labels = classifier.logits(roles.validation.texts), roles.validation.labels
        decision = goal_of(config.train.select.metric).decision(logits, labels, roles.label_names)
        scores, predicted = judged.judge(decision, logits, labels, roles.label_names, step=0)
        classifier = replace(classifier, decision=decision)
        predictions.write_logits(path, "validation", roles.label_names, roles.validation, logits, predicted)
        run.write_history([HistoryRow.of(0, scores)])
    classifier.save(path / words.FOLDER)
    run.write_record(_result(config, roles, classifier, scores, time.time() - started))


def _result(
    config: Config, roles: Any, classifier: words.WordClassifier, scores: Scores | None, seconds: float
) -> Result:
    """The contents of result.json."""
    count = classifier.trainable
    measured = Metrics()
    if scores is not None:
        last = LastScores(step=0, accuracy=scores.accuracy, loss=scores.loss)
        measured = Metrics(validation=scores, validation_last=last)
    return Result(
        status="finished",
        method=f"TF-IDF of {classifier.kinds} and logistic regression, C {classifier.strength:g}",
        parameters=Parameters(
            trainable=count, budget=configuration.max_trainable(config), head=count, adapter_bytes=4 * count
        ),
        metrics=measured,
        timing=Timing(
            train_s=round(seconds, 3),
            total_s=round(seconds, 3),
            examples_per_s=round(len(roles.train) / seconds, 2),
        ),
        memory=Memory(peak_mb=description.peak_mb()),
        seed=config.train.seed,
        config_hash=configuration.config_hash(config),
        labels=list(roles.label_names),
        engine=Engine(path="scikit-learn", precision="fp32", kernels="scipy"),
        data=rows_of(config, roles),
        texts=roles.report.to_dict(excerpts=config.data.excerpts),
        environment=description.describe(),
        decision=classifier.decision,
    )
