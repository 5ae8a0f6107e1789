"""A scikit-learn classifier of texts under a budget: clone, cross-validate, search, pipe and pickle it like any other.

Needs the extra `sklearn`; nothing else of Rankwise imports this module.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise.data import load
from rankwise.data.sources import Source
from rankwise.data.text import mended
from rankwise.errors import missing_extra
from rankwise.records.record import Tree

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise missing_extra("scikit-learn", "sklearn") from error

# What fit must not be told through `options`: it comes from X and y.
_OWN_KEYS = ("data.train", "data.validation", "data.test", "data.text", "data.label", "data.multi_label")
_LOADING = threading.Lock()
"""held while a network is loaded: threads that ask at once get the same one"""


_ROWS = "texts given to fit"
"""what the configuration calls the training rows, which are at no path"""


class BudgetedTextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fine-tunes a low-rank adapter within `max_trainable` parameters, the head included.

    Parameters other than these are given through `options`, a mapping of dotted configuration keys such as
    {"adapter.dora": True}; `rankwise plan --help` lists them.

    max_trainable
        The budget; None lifts it.
    model
        Hub name, folder, or packaged:all-MiniLM-L6-v2. A pickled estimator holds the adapter, not the base: the
        base must be to be had where it is loaded.
    rank
        A number, or "max" for the largest that fits.
    epochs, steps
        Passes over the training rows, unless `steps` gives the optimizer steps.
    validation_size
        Share or number of rows held out to choose the best evaluation's weights; None trains on every row and
        keeps the last weights.

    After `fit`: `classes_`, `result_` (what a run's result.json says) and `adapter_` (the adapter's files by name).
    """

    def __init__(
        self,
        *,
        max_trainable: int | str | None = 1_000_000,
        model: str = "packaged:all-MiniLM-L6-v2",
        scope: Sequence[str] | str = ("query", "value"),
        rank: int | str = "max",
        alpha: float | str = "2r",
        dropout: float = 0.1,
        learning_rate: float = 5e-4,
        epochs: float | None = 3,
        steps: int | None = None,
        batch_size: int = 16,
        max_length: int | None = None,
        truncation: str = "head",
        validation_size: float | int | None = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.max_trainable = max_trainable
        self.model = model
        self.scope = scope
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.max_length = max_length
        self.truncation = truncation
        self.validation_size = validation_size
        self.random_state = random_state
        self.options = options

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> BudgetedTextClassifier:
        """Train on texts and their classes.

        X
            Strings. Shape: (texts,)
        y
            A class a text, of any type that sorts. Shape: (texts,)

        Raises: ValueError for anything but labelled strings; UserError, before any weight is read, for a plan over
        budget or options that cannot apply.
        """
        from rich.console import Console

        from rankwise.training.job import train

        texts, targets = _texts(X), np.asarray(y)
        check_classification_targets(targets)
        if targets.ndim != 1 or len(targets) != len(texts):
            raise ValueError(f"expected one class a text, got y of shape {targets.shape} for {len(texts)} texts")
        classes, places = np.unique(targets, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"expected texts of two classes or more, got {len(classes)} class")
        names = _names(classes)
        rows = Source(
            texts=[mended(text) for text in texts],
            labels=[(names[place],) for place in places],
            ids=list(range(len(texts))),
            classes=tuple(names),
            where="the texts given to fit",
        )
        with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
            run = train(
                self._config(),
                out=Path(folder) / "run",
                console=Console(quiet=True),
                load_data=partial(load, rows_at_hand=rows),
            )
            self.result_ = run.result
            self.adapter_ = {file.name: file.read_bytes() for file in run.adapter.iterdir()}
        self.classes_ = classes
        order = {name: column for column, name in enumerate(self.result_["labels"])}
        self._columns = [order[name] for name in names]
        self.__dict__.pop("_predictor", None)
        return self

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities in the order of `classes_`. Shape: (texts,) -> (texts, classes)"""
        check_is_fitted(self)
        probabilities: NDArray[np.float64] = self._loaded().predict_proba(_texts(X))[:, self._columns]
        return probabilities

    def predict(self, X: Sequence[str]) -> NDArray[Any]:
        """The class of each text: the most probable one, unless options name a goal. Shape: (texts,) -> (texts,)"""
        check_is_fitted(self)
        predictor = self._loaded()
        decided = predictor.decide(predictor.predict_proba(_texts(X)))
        chosen: NDArray[Any] = self.classes_[np.argsort(self._columns)[decided]]
        return chosen

    def save(self, folder: str | Path) -> Path:
        """Write the adapter's folder, which `rankwise.load` and `peft` read; returns its path."""
        check_is_fitted(self)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.adapter_.items():
            (target / name).write_bytes(content)
        return target

    def __getstate__(self) -> Tree:
        """Everything but the loaded network: the adapter's bytes stand for it."""
        state: Tree = dict(super().__getstate__())
        state.pop("_predictor", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, False
        tags.input_tags.string = True
        return tags

    def _config(self) -> Tree:
        scope = self.scope if isinstance(self.scope, str) else list(self.scope)
        validated = self.validation_size is not None
        tree: Tree = {
            "budget": {"max_trainable": self.max_trainable},
            "model": {"name": self.model},
            "adapter": {"scope": scope, "rank": self.rank, "alpha": self.alpha, "dropout": self.dropout},
            "data": {
                "train": _ROWS,
                "max_length": self.max_length,
                "truncation": self.truncation,
                "validation_size": self.validation_size,
            },
            "train": {
                "learning_rate": self.learning_rate,
                "epochs": None if self.steps is not None else self.epochs,
                "steps": self.steps,
                "batch_size": self.batch_size,
                "evaluate": validated,
                "seed": self._seed(),
            },
        }
        for key, value in (self.options or {}).items():
            if key in _OWN_KEYS:
                raise ValueError(f"options may not set {key}: it comes from X and y")
            configuration.set_key(tree, key, value)
        return tree

    def _seed(self) -> int:
        """What scikit-learn's `random_state` stands for: a number, a generator, or None for another at each fit."""
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _loaded(self) -> Any:
        """The network, loaded at first use."""
        from rankwise.inference.predictor import load

        with _LOADING:
            if "_predictor" not in self.__dict__:
                with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
                    self._predictor = load(self.save(folder))
            return self._predictor


def _texts(X: Any) -> list[str]:
    """The texts as a list.

    Raises: ValueError for a single string, a table, or anything that is not a string.
    """
    if isinstance(X, str):
        raise ValueError("expected a sequence of texts, got one string: wrap it in a list")
    if getattr(X, "ndim", 1) != 1:
        raise ValueError(f"expected one text a row, got an array of shape {X.shape}: pass one column, as X['text']")
    texts = list(X)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"expected strings, got {type(text).__name__} at row {row}")
    return [str(text) for text in texts]


def _names(classes: NDArray[Any]) -> list[str]:
    """Label names for the adapter: the classes in words, or their places where two are written alike."""
    names = [str(value) for value in classes]
    return names if len(set(names)) == len(names) else [str(place) for place in range(len(names))]
