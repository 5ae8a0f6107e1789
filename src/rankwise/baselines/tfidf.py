"""The floor every report shows: TF-IDF and logistic regression on the same rows, in seconds and without a network.

What an encoder adds can be told only against it. Scores are kept in a cache by the content of the rows, so a
search computes them once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from rankwise import data, records
from rankwise.baselines.regression import solve
from rankwise.baselines.words import TOKEN
from rankwise.errors import UserError
from rankwise.machine import caches
from rankwise.records import Scores
from rankwise.scoring import metrics

METHOD = "TF-IDF and logistic regression"
_VERSION = 4  # of the recipe below; a change of it needs another, or old scores are read from the cache
_WORDS = 50_000
_ITERATIONS = 200
LogitsOf = Callable[[Sequence[str]], np.ndarray]
Known = dict[str, tuple[LogitsOf, dict[str, Scores]]]
_known: ContextVar[Known | None] = ContextVar("known floors", default=None)
"""TF-IDF that a search has fitted otherwise, by its rows; None outside of one, so that no run's floor depends on what ran before it"""


def scores(
    train: data.Rows,
    scored: dict[str, data.Rows],
    label_names: Sequence[str],
    later: Mapping[str, data.Rows] | None = None,
) -> dict[str, Scores]:
    """The floor's scores by role; empty when scikit-learn (extra `floor`) is not installed.

    train
        The rows a run trains on, cleaned as the run cleans them.
    scored
        Labelled rows by role.
    later
        Others that are asked about later: scored, too, where words have to be fitted now.
    """
    if train.sha256 in (_known.get() or {}):
        return {role: _of_known(train, rows, label_names) for role, rows in scored.items()}
    kept = {role: _read(train, rows) for role, rows in scored.items()}
    there = {role: read for role, read in kept.items() if read is not None}
    if len(there) == len(scored):
        return there
    found = _compute(train, {**(later or {}), **scored}, label_names)
    return {role: found[role] for role in scored if role in found}


@contextmanager
def known_floors() -> Iterator[None]:
    """Within it `know` is heeded."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def know(train: data.Rows, logits_of: LogitsOf) -> None:
    """Let runs within `known_floors` take TF-IDF that has been fitted on these rows already for the floor, as `auto` has its own."""
    known = _known.get()
    if known is not None:
        known[train.sha256] = logits_of, {}


def known(train: data.Rows | None) -> LogitsOf | None:
    """Logits of texts by TF-IDF that is known to have been fitted on these rows. Shape of what it gives: (texts, classes)"""
    found = None if train is None else (_known.get() or {}).get(train.sha256)
    return None if found is None else found[0]


def _of_known(train: data.Rows, rows: data.Rows, label_names: Sequence[str]) -> Scores:
    logits_of, scored = (_known.get() or {})[train.sha256]
    if rows.sha256 not in scored:
        scored[rows.sha256] = metrics.evaluate(logits_of(rows.texts), rows.labels, label_names)
    return scored[rows.sha256]


def _cache_file(train: data.Rows, rows: data.Rows) -> Path:
    return caches.cache("floor") / f"{_key(train, rows)}.json"


def _key(train: data.Rows, rows: data.Rows) -> str:
    """Of the texts as cleaned and their labels: preprocessing changes the floor too."""
    digest = hashlib.sha256(f"floor {_VERSION}\n".encode())
    for part in (train, rows):
        digest.update(part.sha256.encode())
        for text in part.texts:
            digest.update(b"%d:" % len(text) + text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _read(train: data.Rows, rows: data.Rows) -> Scores | None:
    try:
        path = _cache_file(train, rows)
        kept = records.read(path, Scores)
        caches.used(path)
        return kept
    except UserError:  # not there, or damaged: computed anew
        return None


def _compute(train: data.Rows, scored: dict[str, data.Rows], label_names: Sequence[str]) -> dict[str, Scores]:
    """Fit on train, score each role, and keep the scores; empty without scikit-learn."""
    logits_of = _fitted(train, len(label_names))
    if logits_of is None:
        return {}
    result = {}
    for role, rows in scored.items():
        result[role] = metrics.evaluate(logits_of(rows.texts), rows.labels, label_names)
        with caches.optional():
            records.write(_cache_file(train, rows), result[role])
    return result


def out_of_fold(
    train: data.Rows, folds: Sequence[tuple[np.ndarray, np.ndarray]], label_names: Sequence[str]
) -> Scores | None:
    """The floor's metrics of rows by fits that do not know them; None without scikit-learn or words.

    folds
        Row numbers fitted on and held out.
    """
    logits = np.zeros((len(train), len(label_names)), dtype=np.float32)
    for kept, held in folds:
        logits_of = _fitted(train.take(kept), len(label_names))
        if logits_of is None:
            return None
        logits[held] = logits_of([train.texts[row] for row in held])
    scored = np.sort(np.concatenate([held for _, held in folds]))
    return metrics.evaluate(logits[scored], train.labels[scored], label_names)


def _fitted(train: data.Rows, classes: int) -> Callable[[Sequence[str]], np.ndarray] | None:
    """Logits of texts by a fit on rows; None without scikit-learn, and where there are no words to speak of."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        return None
    words = TfidfVectorizer(sublinear_tf=True, max_features=_WORDS, token_pattern=TOKEN)
    try:
        vectors = words.fit_transform(train.texts)
        model = solve(vectors, train.labels, classes, 1.0, iterations=_ITERATIONS)
    except ValueError:
        return None
    return lambda texts: model.logits(words.transform(texts)).astype(np.float32)
