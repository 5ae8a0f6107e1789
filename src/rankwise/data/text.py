"""The text of a row, and augmentation of training texts (English).

Augmentation changes training texts only, and what it does to a row depends on the seed, the epoch and the row
alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rankwise.data.cleaning import PAIR
from rankwise.data.opening import MAX_TEXT_CHARS, TOO_LONG
from rankwise.errors import UserError

_SURROGATE = re.compile(r"[\ud800-\udfff]")

_FEWEST_KEPT = 4
"""words that a crop leaves of a text, where it has so many"""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def joined(cells: Sequence[Any], where: Callable[[], str], *, pair: bool = False) -> str:
    """The text of a row: its cells joined by a space, empty ones left out; an empty string when nothing is left.

    What is missing is None, NaN (the number) or blank; the word nan is a text. `where` names the row of an error and
    is called only then.

    Args:
        pair: keep both cells apart, by `PAIR`.

    Raises `UserError` when a cell is not a string, or when the text is too long to be one.
    """
    parts = []
    for cell in cells:
        if cell is None or cell != cell:
            cell = ""
        if not isinstance(cell, str):
            cell = _string(cell, where)
        blank = not cell or cell.isspace()
        if pair or not blank:
            parts.append("" if blank else cell.replace(PAIR, " "))
    text = (PAIR if pair else " ").join(parts)
    if len(text) > MAX_TEXT_CHARS:
        raise UserError(f"{where()}: the text has {len(text):,} characters: {TOO_LONG}")
    return "" if text == PAIR else text


def _string(cell: Any, where: Callable[[], str]) -> str:
    """The text of a cell that is none: of words in a list, and of bytes in UTF-8."""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(
                f"{where()} holds bytes in its text column that are not UTF-8: write them as text"
            ) from None
    if isinstance(cell, (list, tuple)) and all(isinstance(word, str) for word in cell):
        if any(word.strip() and len(word.split()) > 1 for word in cell):
            raise UserError(f"{where()} holds several texts in its text column: write a row for each of them")
        return " ".join(cell)
    raise UserError(f"{where()} holds {repr(cell)[:60]} in its text column, expected a string")


def mended(text: str) -> str:
    """The text with halves of characters (lone surrogates), which nothing can encode, as U+FFFD; itself if it has none.

    Two halves that belong together become their character.
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- augmentation -------------------------------------------------------------------------------------


def augment(text: str, changes: Mapping[str, float], *, seed: int, epoch: int, row: int) -> str:
    """A training text as it is met in one epoch.

    Args:
        text: as cleaned.
        changes: probability of each change; sentence_shuffle puts the sentences in a random order, word_swap
            exchanges two words (Wei and Zou 2019), word_dropout leaves each word out with its probability,
            but never all of them; crop keeps a run of words of random length and place, with its value the largest
            share that is left out.
        seed, epoch, row: what the result depends on beside the text; row is the row's number in train.
    """
    generator = np.random.default_rng((seed, epoch, row))
    for change in _CHANGES:
        probability = changes.get(change, 0.0)
        if probability:
            text = _CHANGES[change](text, probability, generator)
    return text


def _sentence_shuffle(text: str, probability: float, generator: np.random.Generator) -> str:
    sentences = _SENTENCE_END.split(text)
    if generator.random() >= probability or len(sentences) < 2:
        return text
    return " ".join(sentences[i] for i in generator.permutation(len(sentences)))


def _word_swap(text: str, probability: float, generator: np.random.Generator) -> str:
    words = text.split()
    if generator.random() >= probability or len(words) < 2:
        return text
    a, b = generator.choice(len(words), size=2, replace=False)
    words[a], words[b] = words[b], words[a]
    return " ".join(words)


def _word_dropout(text: str, probability: float, generator: np.random.Generator) -> str:
    words = text.split()
    keep = generator.random(len(words)) >= probability
    if not keep.any():
        return text
    return " ".join(word for word, kept in zip(words, keep, strict=True) if kept)


def _crop(text: str, share: float, generator: np.random.Generator) -> str:
    words = text.split()
    kept = max(min(_FEWEST_KEPT, len(words)), round(len(words) * (1 - share * generator.random())))
    start = int(generator.integers(len(words) - kept + 1))
    return " ".join(words[start : start + kept]) if kept < len(words) else text


# A fixed order: equal settings give equal texts, however the configuration lists them.
_CHANGES: dict[str, Callable[[str, float, np.random.Generator], str]] = {
    "sentence_shuffle": _sentence_shuffle,
    "word_swap": _word_swap,
    "crop": _crop,
    "word_dropout": _word_dropout,
}
