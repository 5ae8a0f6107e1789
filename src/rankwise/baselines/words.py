"""A classifier of words alone: TF-IDF and logistic regression, small, without an encoder and without a pickle.

Which n-grams it counts and how strongly it is regularised are chosen by cross-validation on its training rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise import files
from rankwise.baselines.timed import Pace
from rankwise.data.scripts import WORD
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.records import read, write
from rankwise.records.result import Decision
from rankwise.records.words import WordsRecord

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

DETAILS, WEIGHTS = "words.json", "words.safetensors"
FOLDER = "words"
"""inside a run's folder"""
_FEATURES = 100_000
"""n-grams kept of a kind, the most frequent ones: what is left out of a million rare ones decides next to nothing"""
_STRENGTHS = (10.0, 100.0)
"""C of scikit-learn's logistic regression, the inverse of its penalty"""
_GRAM_BYTES, _DETAIL_BYTES = 14, 4_000
"""of quotes, comma, indentation and line around an n-gram, and of all else in the folder"""
_FOLDS, _FOLD_ROWS = 2, 2_000
"""halves of a sample of so many rows choose"""
_PIECE_ROWS, _PIECE_S = 64, 0.05
"""of them each kind is timed by first, twice as many until it takes so long: of short texts a few tell what making a vectorizer
costs, five times what their rows do"""
_OF_CHOICE = 0.5
"""of the time, for choosing; the rest is for all rows"""
_LEAST_SHARE = 0.25
"""of the rows, below which richer n-grams are not tried: a quarter of the rows says less whatever is counted"""
_PICTURES = "[\u2600-\u27bf\U0001f000-\U0001faff]"
"""emoji, a token each"""
TOKEN = f"{_PICTURES}|{WORD}"
"""what is counted as a word"""
_PLAINEST = "single words"
_KINDS: dict[str, dict[str, Any]] = {
    _PLAINEST: {"analyzer": "word", "token_pattern": TOKEN},
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": TOKEN},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}


@dataclass(frozen=True)
class WordClassifier:
    """TF-IDF vectors of one kind or several side by side, and a projection of them.

    coefficients, offsets
        Shapes: (classes, n-grams), (classes,)
    """

    vectorizers: dict[str, TfidfVectorizer]
    coefficients: np.ndarray
    offsets: np.ndarray
    label_names: list[str]
    multi_label: bool
    text: list[str]
    preprocess: tuple[str, ...]
    strength: float
    label: str = "label"
    decision: Decision | None = None
    """fitted for a goal"""
    separator: str | None = None
    """between several labels of a row"""
    pair: bool = False
    """whether its texts are pairs"""
    fitted_on: int | None = None
    """training rows; fewer than there were where a clock had no room for all"""
    weight: float = 1.0
    """of its logits, where they are added to an encoder's"""

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw scores of cleaned texts, float32. Shape: (texts, classes)"""
        found: np.ndarray = np.asarray(_vectors(self.vectorizers, texts) @ self.coefficients.T + self.offsets)
        return (self.weight * found).astype(np.float32)

    @property
    def trainable(self) -> int:
        """Numbers that were fitted; two classes share theirs."""
        rows = 1 if len(self.label_names) == 2 and not self.multi_label else len(self.label_names)
        return rows * (int(self.coefficients.shape[1]) + 1)

    @property
    def shipped_bytes(self) -> int:
        """Of its folder: a number in four bytes, an n-gram in JSON on a line of its own."""
        grams = [gram for vectorizer in self.vectorizers.values() for gram in vectorizer.vocabulary_]
        numbers = self.coefficients.size + self.offsets.size + len(grams)
        return 4 * numbers + sum(len(gram.encode()) + _GRAM_BYTES for gram in grams) + _DETAIL_BYTES

    @property
    def kinds(self) -> str:
        """What it counts."""
        return " and ".join(self.vectorizers)

    def save(self, folder: Path) -> None:
        """Write it, replacing the folder in one rename."""
        from safetensors.numpy import save_file

        with files.new_folder(folder) as temporary:
            tensors = {"coefficients": self.coefficients.astype(np.float32), "offsets": self.offsets.astype(np.float32)}
            grams = {}
            for kind, vectorizer in self.vectorizers.items():
                tensors[f"idf.{kind}"] = np.asarray(vectorizer.idf_, dtype=np.float32)
                grams[kind] = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
            save_file(tensors, temporary / WEIGHTS)
            details = WordsRecord(
                labels=self.label_names,
                multi_label=self.multi_label,
                text=self.text,
                label=self.label,
                separator=self.separator,
                pair=self.pair,
                preprocess=list(self.preprocess),
                strength=self.strength,
                ngrams=grams,
                token=next(iter(self.vectorizers.values())).token_pattern,
                decision=self.decision,
                fitted_on=self.fitted_on,
                weight=self.weight,
            )
            write(temporary / DETAILS, details)

    @staticmethod
    def load(folder: Path) -> WordClassifier:
        """Read what `save` wrote.

        Raises: UserError when the files are damaged, or scikit-learn is not installed.
        """
        from safetensors.numpy import load_file

        vectorizer_of()  # refuses without scikit-learn
        details, path = read(folder / DETAILS, WordsRecord), folder / WEIGHTS
        try:
            tensors = load_file(path)
            vectorizers = {}
            for kind, grams in details.ngrams.items():
                vectorizers[kind] = vectorizer_of()(
                    **(_KINDS[kind] | {"token_pattern": details.token}),
                    sublinear_tf=True,
                    vocabulary={gram: place for place, gram in enumerate(grams)},
                )
                vectorizers[kind].idf_ = tensors[f"idf.{kind}"].astype(np.float64)
            coefficients, offsets = tensors["coefficients"], tensors["offsets"]
            width = sum(len(grams) for grams in details.ngrams.values())
            if coefficients.shape != (len(details.labels), width) or offsets.shape != coefficients.shape[:1]:
                raise ValueError(f"its numbers have shapes {coefficients.shape} and {offsets.shape}")
            if not (np.isfinite(coefficients).all() and np.isfinite(offsets).all()):
                raise ValueError("some of its numbers are not finite")
            re.compile(details.token)
            return WordClassifier(
                vectorizers,
                coefficients,
                offsets,
                details.labels,
                details.multi_label,
                details.text,
                tuple(details.preprocess),
                details.strength,
                details.label,
                details.decision,
                details.separator,
                details.pair,
                details.fitted_on,
                weight=details.weight,
            )
        except (OSError, KeyError, ValueError, TypeError, re.error) as error:
            raise UserError(f"{folder} holds no whole classifier of words: {error}; copy it again") from error
        except Exception as error:  # safetensors has an error of its own for a header that is none
            raise UserError(f"{path} is not a whole safetensors file: {error}; copy it again") from error


def vectorizer_of() -> Any:
    """scikit-learn's `TfidfVectorizer`. Raises: UserError when it is not installed."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise UserError("a classifier of words needs scikit-learn: pip install 'rankwise[floor]'") from error
    return TfidfVectorizer


def is_there() -> bool:
    """Whether scikit-learn is installed; it is imported then."""
    try:
        from sklearn import feature_extraction  # noqa: F401
    except ImportError:
        return False
    return True


def is_richest(classifier: WordClassifier) -> bool:
    """Whether it counts all that may be counted."""
    return {"words", "characters"} <= set(classifier.vectorizers)


def fit(
    texts: Sequence[str],
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    text: Sequence[str] = ("text",),
    label: str = "label",
    preprocess: Sequence[str] = (),
    seed: int = 0,
    most: int | None = None,
    deadline: Deadline = NEVER,
) -> WordClassifier | None:
    """The best of words, and words with characters, each at its best strength by cross-validation; None for texts without
    a single n-gram.

    labels
        Shape: (texts,) classes, or (texts, classes) of zeros and ones
    most
        Numbers that may be fitted.
    deadline
        By which it should be there. What does not fit is left out: characters, pairs of words, the choice, rows,
        and the last iterations; a few rows and iterations there always are. All rows by plainer n-grams come before fewer
        rows by richer ones: on the 11,293 long texts of 20 Newsgroups single words have 84.4% where 2,000 rows are
        far below.
    """
    width = _FEATURES if most is None else min(_FEATURES, most // _rows(labels, len(label_names)) - 1)
    if width < 1:
        return None
    pace, order = Pace(deadline), np.random.default_rng(seed).permutation(len(texts))
    try:
        kinds, strength = _chosen(texts, labels, len(label_names), order[:_FOLD_ROWS], width, pace.part(_OF_CHOICE))
        rows = np.sort(order[: pace.rows(kinds, len(texts))])
        solved = _solved([texts[row] for row in rows], labels[rows], len(label_names), kinds, strength, width, pace)
    except ValueError:  # no n-gram at all, or a single class in a sample too small to be folded
        return None
    return WordClassifier(
        *solved,
        list(label_names),
        labels.ndim == 2,
        list(text),
        tuple(preprocess),
        strength,
        label,
        fitted_on=len(rows),
    )


def fit_again(
    classifier: WordClassifier,
    texts: Sequence[str],
    labels: np.ndarray,
    deadline: Deadline = NEVER,
    *,
    most: int | None = None,
) -> WordClassifier:
    """The same kinds of n-grams, at most as many of them, at the same strength, of other rows.

    most
        Numbers that may be fitted.
    """
    kinds, width = tuple(classifier.vectorizers), classifier.coefficients.shape[1]
    classes = len(classifier.label_names)
    if most is not None:
        width = max(1, min(width, most // _rows(labels, classes) - 1))
    solved = _solved(texts, labels, classes, kinds, classifier.strength, width, Pace(deadline))
    vectorizers, coefficients, offsets = solved
    return replace(
        classifier, vectorizers=vectorizers, coefficients=coefficients, offsets=offsets, fitted_on=len(texts)
    )


def _solved(
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    kinds: Sequence[str],
    strength: float,
    width: int,
    pace: Pace,
) -> tuple[dict[str, TfidfVectorizer], np.ndarray, np.ndarray]:
    """Vectorizers, coefficients and offsets."""
    vectorizers, vectors = _fitted(texts, kinds, width)
    found = pace.solved(vectors, labels, classes, strength)
    return vectorizers, found.coefficients, found.offsets


def _chosen(
    texts: Sequence[str], labels: np.ndarray, classes: int, sample: np.ndarray, width: int, pace: Pace
) -> tuple[tuple[str, ...], float]:
    """The kinds of n-grams and the strength that answer most rows of a sample, by folds.

    Characters that there is no time to count in all rows are fitted on as small a share of the folds.
    """
    for kind in _KINDS:
        rows, took = _PIECE_ROWS // 2, 0.0
        while not pace.is_over() and took < _PIECE_S and rows < len(sample):
            rows = min(2 * rows, len(sample))
            with pace.measuring(kind, rows):
                _fitted([texts[row] for row in sample[:rows]], (kind,), width)
            took = rows * pace.row_s[kind]
    plain = ("words",) if pace.room(("words",), len(texts)) == 1 else (_PLAINEST,)
    scored = _held_out(texts, labels, classes, sample, plain, _STRENGTHS, width, pace)
    if scored is None:
        return plain, _STRENGTHS[0]
    (kinds, strength), right = max(scored.items(), key=lambda item: item[1])
    rich = (*kinds, "characters")
    share, both = pace.room(rich, len(texts)), None
    if share >= _LEAST_SHARE:
        both = _held_out(texts, labels, classes, sample, rich, (strength,), width, pace, share)
    return max({(kinds, strength): right, **(both or {})}.items(), key=lambda item: item[1])[0]


def _rows(labels: np.ndarray, classes: int) -> int:
    """Sets of coefficients: one for two classes."""
    return 1 if classes == 2 and labels.ndim == 1 else classes


def _fitted(texts: Sequence[str], kinds: Sequence[str], width: int) -> tuple[dict[str, TfidfVectorizer], Any]:
    """Vectorizers of the most frequent n-grams, `width` of all kinds together, and what they make of the texts."""
    from scipy.sparse import hstack

    each, vectorizers, vectors = max(1, width // len(kinds)), {}, []
    for kind in kinds:
        vectorizers[kind] = vectorizer_of()(**_KINDS[kind], sublinear_tf=True, max_features=each, dtype=np.float32)
        vectors.append(vectorizers[kind].fit_transform(texts))
    return vectorizers, hstack(vectors).tocsr()


def _vectors(vectorizers: dict[str, TfidfVectorizer], texts: Sequence[str]) -> Any:
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in vectorizers.values()]).tocsr()


def _held_out(
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    sample: np.ndarray,
    kinds: tuple[str, ...],
    strengths: Sequence[float],
    width: int,
    pace: Pace,
    share: float = 1.0,
) -> dict[tuple[tuple[str, ...], float], float] | None:
    """Mean accuracy over the folds of a sample, by strength, fitted on a share of each; None where the clock ended."""
    right = {(kinds, strength): 0.0 for strength in strengths}
    for fold in range(_FOLDS):
        held, kept = sample[fold::_FOLDS], np.delete(sample, np.s_[fold::_FOLDS])
        kept = kept[: max(_FOLDS, int(share * len(kept)))]
        if pace.is_over():
            return None
        vectorizers, inside = _fitted([texts[row] for row in kept], kinds, width)
        outside = _vectors(vectorizers, [texts[row] for row in held])
        model = None
        for strength in strengths:
            if pace.is_over():
                return None
            model = pace.solved(inside, labels[kept], classes, strength, model)
            right[kinds, strength] += model.accuracy(outside, labels[held]) / _FOLDS
    return right
