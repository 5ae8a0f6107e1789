"""TF-IDF beside a trained encoder: the logits of both added, where validation says that together they answer better.

They are wrong about other rows, and words need a tenth of the budget alone: what they add is nearly all there with the most
frequent thousand n-grams (LOG.md). The trial stays as it was judged; what is shipped is a copy with the words in its adapter's
folder, where whatever loads it finds them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rankwise import config as configuration
from rankwise import files
from rankwise.baselines import words
from rankwise.config import Keys
from rankwise.data import Rows
from rankwise.deadline import Deadline
from rankwise.inference.predictor import load
from rankwise.models.layout import RECORD
from rankwise.planning.steps import PROVEN_ROWS
from rankwise.records import AdapterRecord, Decision, Scores, Winner
from rankwise.records.record import Tree, changing
from rankwise.records.search import FLOORS
from rankwise.runs import card
from rankwise.runs.folder import Run
from rankwise.scoring import judged, predictions
from rankwise.scoring.calibration import fit_temperature, losses
from rankwise.scoring.goals import goal_of
from rankwise.search.after.all_rows import copied
from rankwise.search.floors.floor import Floor, best, fit_words
from rankwise.search.sweep.contest import Contestant, winner_of
from rankwise.search.sweep.trial import load_data
from rankwise.training.interrupt import requested
from rankwise.training.proof import prove_equal

FOLDER = "with-words"
_PLACE, _OF_FEATURES = f"{FLOORS}/beside", f"{FLOORS}/features-with-words"
_SHARE = 0.1
"""of the budgets of numbers and megabytes"""
_WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)
"""of the words' logits, where the encoder's are 1"""
_MORE_FITS = 3.0
"""times that fitting them takes, to be kept for the end: once more on all rows, on a machine that may have slowed down"""
_NOTE = (
    "its logits are the encoder's and those of TF-IDF of words added (the adapter's folder words): plain transformers and peft "
    "read the encoder alone"
)


def prepared(tree: Tree, roles: Any, solved: Sequence[Floor], folder: Path) -> tuple[Tree, float]:
    """Fit words that are small enough to stand beside what is trained, and take them out of its budgets.

    solved
        The floors, of which words say what is counted, and in how many rows there was time to.

    Returns: the tree with what is left of the budgets, and seconds to be kept for the end; the tree itself and 0 without words.
    """
    floor = next((one for one in solved if one.pooling is None), None)
    if floor is None:
        return tree, 0.0
    started = time.time()
    found = words.WordClassifier.load(folder / floor.run / words.FOLDER)
    drawn = np.random.default_rng(configuration.from_dict(tree).train.seed).permutation(len(roles.train))
    rows = roles.train.take(np.sort(drawn[: found.fitted_on]))
    left = _shared(tree, found, rows, Deadline(started + floor.seconds), folder)
    return (tree, 0.0) if left is None else (left, _MORE_FITS * (time.time() - started))


def of_all_rows(tree: Tree, rows: Rows, label_names: Sequence[str], folder: Path, deadline: Deadline) -> Tree:
    """`prepared`, where no rows are held out: the tree with what words on all rows leave of the budgets."""
    found = fit_words(configuration.from_dict(tree), rows, label_names, deadline)
    return tree if found is None else _shared(tree, found, rows, deadline, folder) or tree


def _shared(tree: Tree, found: words.WordClassifier, rows: Rows, deadline: Deadline, folder: Path) -> Tree | None:
    """What words leave of the budgets, once they are made small enough and kept; None where they cannot be."""
    config = configuration.from_dict(tree)
    most, limit = configuration.max_trainable(config), configuration.max_bytes(config)
    numbers = found.trainable if most is None else min(found.trainable, int(_SHARE * most))
    if limit is not None:
        numbers = min(numbers, int(_SHARE * limit * found.trainable / found.shipped_bytes))
    if numbers < found.trainable:
        found = words.fit_again(found, rows.texts, rows.labels, deadline, most=numbers)
    if numbers < found.trainable or (limit is not None and found.shipped_bytes > 2 * _SHARE * limit):
        return None
    files.make_writable_folder(folder / FLOORS)
    found.save(folder / _PLACE)
    left: Keys = {}
    if most is not None:
        left["budget.max_trainable"] = most - found.trainable
    if limit is not None:
        left["budget.max_mb"] = (limit - found.shipped_bytes) / 1e6
    return configuration.with_keys(tree, left)


def put_away(folder: Path) -> None:
    """Nothing that is trained has room beside the words that were made small enough."""
    shutil.rmtree(folder / _PLACE, ignore_errors=True)


def kept(folder: Path) -> words.WordClassifier | None:
    """The words that were made small enough, if there are any."""
    place = folder / _PLACE
    return words.WordClassifier.load(place) if (place / words.DETAILS).is_file() else None


def of_folds(rows: Rows, held_out: Sequence[np.ndarray], folder: Path) -> list[np.ndarray]:
    """What the words that were made small enough say of rows that they were not fitted on; nothing without words.

    held_out
        Row numbers that each fold answers for. Shape of each answer: (rows, classes)
    """
    found = kept(folder)
    if found is None:
        return []
    try:
        return [
            words.fit_again(found, others.texts, others.labels).logits(rows.take(out).texts)
            for out in held_out
            for others in [rows.take(np.delete(np.arange(len(rows)), out))]
        ]
    except ValueError:  # a fold without a single n-gram
        return []


def of_features(solved: Sequence[Floor], folder: Path, quick: Callable[[Path], bool]) -> Floor | None:
    """The best head on frozen features with words beside it, as a floor of its own: neither takes a step. None where they make it
    no better, or both are more than its budgets allow.

    solved, quick
        As `prepared` and `with_words` have them.
    """
    started, found = time.time(), kept(folder)
    heads = [one for one in solved if one.pooling is not None]
    if not heads or found is None:
        return None
    head = best(heads, goal_of(Run(folder / heads[0].run).config.train.select.metric))
    assert head is not None
    before = Run(folder / head.run)
    most, limit = configuration.max_trainable(before.config), configuration.max_bytes(before.config)
    counts = before.record.parameters
    over = most is not None and counts.trainable + found.trainable > most
    if over or (limit is not None and counts.adapter_bytes + found.shipped_bytes > limit):
        return None
    both = with_words(head.winner(), folder, quick, out=_OF_FEATURES)
    if both is None:
        return None
    return Floor.of_run(folder / both.run, both.point["design"], None, started, alone=head.run)


def with_words(winner: Winner, folder: Path, quick: Callable[[Path], bool], *, out: str = FOLDER) -> Winner | None:
    """The winner of the trials with words beside it; None where there are none, or they make it no better.

    quick
        Whether what a run's folder holds keeps the limit of milliseconds.
    out
        Of the copy, inside the search's folder.
    """
    before, found = Run(folder / winner.run), kept(folder)
    if requested() or found is None:
        return None
    read = predictions.read(before.path, "validation")
    rows = load_data(before.config.data).validation
    if rows is None or rows.sha256 != read.rows_sha256:
        return None
    said, goal = found.logits(rows.texts), goal_of(before.config.train.select.metric)
    found = replace(found, weight=_weight(read.logits, said, read.labels), decision=None)
    logits = (read.logits + found.weight * said).astype(np.float32)
    decision = goal.decision(logits, read.labels, read.label_names)
    scored = before.record.metrics.validation
    scores, predicted = judged.judge(
        decision, logits, read.labels, read.label_names, step=None if scored is None else scored.step
    )
    value = goal.value(scores, logits, read.labels, read.label_names)
    mean = float("nan") if winner.mean is None else winner.mean
    both = Contestant(value, judged.right(predicted, read.labels), fit_temperature(logits, read.labels).loss_after)
    if winner_of([Contestant.of_run(before.path, mean), both], goal) == 0:
        return None
    again = shipped(winner, folder, found, scores, decision, value, rows.texts, quick, out)
    if again is not None:
        predictions.write_logits(folder / again.run, "validation", read.label_names, rows, logits, predicted)
    return again


def titled(design: str, folder: Path) -> str:
    """What a design is called with words beside it."""
    return f"{design}, TF-IDF of {words.WordClassifier.load(folder / _PLACE).kinds} beside it"


def shipped(
    winner: Winner,
    folder: Path,
    found: words.WordClassifier,
    scores: Scores,
    decision: Decision | None,
    value: float,
    texts: Sequence[str],
    quick: Callable[[Path], bool],
    out: str = FOLDER,
) -> Winner | None:
    """A copy of the winner's run with words beside it, proven; None where both are too slow.

    scores, decision, value
        Of both, of rows held out; the last is what the goal came to.
    """
    before, run = Run(folder / winner.run), Run(folder / out)
    _write(before, run, found, scores, decision)
    _prove(before, run, found, texts[:PROVEN_ROWS])
    if not quick(run.path):
        shutil.rmtree(run.path)
        return None
    return msgspec.structs.replace(
        winner,
        run=out,
        alone=winner.run,
        point={**winner.point, "design": titled(winner.point["design"], folder)},
        trainable=run.record.parameters.trainable,
        peak=max(winner.peak, scores.accuracy),
        chosen=scores.accuracy,
        chosen_ci95=scores.accuracy_ci95,
        mean=value,
    )


def _weight(own: np.ndarray, said: np.ndarray, labels: np.ndarray) -> float:
    """The weight of the words with which validation is least surprised, at the temperature that is best for it.

    own, said
        Logits of the encoder and of words. Shape of each: (rows, classes)
    """
    return min(_WEIGHTS, key=lambda weight: fit_temperature(own + weight * said, labels).loss_after)


def weight_that_helps(own: np.ndarray, said: np.ndarray, labels: np.ndarray) -> float | None:
    """The weight of words with which rows of other folds are least surprised; None where what it takes away of their loss is
    within a standard error of nothing: of a dozen rows, some weight always looks better. Shapes as in `_weight`."""
    weight = _weight(own, said, labels)
    alone, both = (losses(one / fit_temperature(one, labels).value, labels) for one in (own, own + weight * said))
    gained = alone - both
    return weight if gained.mean() > gained.std() / np.sqrt(max(len(gained) - 1, 1)) else None


def _write(before: Run, run: Run, found: words.WordClassifier, scores: Scores, decision: Decision | None) -> None:
    """A copy of a run's folder with words in its adapter's."""
    copied(before, run)
    found.save(run.adapter / words.FOLDER)
    with changing(run.adapter / RECORD, AdapterRecord) as adapter:
        adapter.words, adapter.decision = True, decision
    with run.changing() as result:
        counts = result.parameters
        counts.words = found.trainable
        counts.trainable += found.trainable
        if counts.budget is not None and run.path.parent.name != FLOORS:  # a trial's, of which words were taken out
            counts.budget += found.trainable
        result.metrics.validation, result.decision = scores, decision
        result.notes.append(_NOTE)
    card.write(run)


def _prove(before: Run, run: Run, found: words.WordClassifier, texts: Sequence[str]) -> None:
    """Raises: RuntimeError where the folder as it is loaded does not answer as encoder and words together do."""
    live = load(before).logits_of_cleaned(texts) + found.logits(texts)
    prove_equal(live, load(run).logits_of_cleaned(texts))
