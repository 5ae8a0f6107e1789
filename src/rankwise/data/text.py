"""Cleaning of every text and augmentation of training texts (English).

Cleaning applies to every role and to predictions: the model must meet in use what it met in training.
Augmentation changes training texts only, and what it does to a row depends on the seed, the epoch and the row
alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rankwise.data.opening import MAX_TEXT_CHARS, TOO_LONG
from rankwise.errors import UserError, missing_extra

PAIR = "\x1f"
"""Between the two texts of a pair, which travels as one string: the unit separator, which no text is written with."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
# The English list of the Snowball project, which NLTK's grew from. It is here and not taken from a package
# because those at hand (scikit-learn, stop-words) drop words that carry a topic: bill, fire, computer, world.
_STOP_WORD_LIST = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is are
was were be been being have has had having do does did doing would should could ought i'm you're he's she's
it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd i'll you'll he'll she'll we'll
they'll isn't aren't wasn't weren't hasn't haven't hadn't doesn't don't didn't won't wouldn't shan't
shouldn't can't cannot couldn't mustn't let's that's who's what's here's there's when's where's why's how's
a an the and but if or because as until while of at by for with about against between into through during
before after above below to from up down in out on off over under again further then once here there when
where why how all any both each few more most other some such no nor not only own same so than too very
"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())
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
            raise UserError(f"{where()} holds {repr(cell)[:60]} in its text column, expected a string")
        blank = not cell or cell.isspace()
        if pair:
            parts.append("" if blank else cell.replace(PAIR, " "))
        elif not blank:
            parts.append(cell)
    text = parts[0] if len(parts) == 1 else (PAIR if pair else " ").join(parts)
    if len(text) > MAX_TEXT_CHARS:
        raise UserError(f"{where()}: the text has {len(text):,} characters: {TOO_LONG}")
    return "" if text == PAIR else text


def mended(text: str) -> str:
    """The text with halves of characters (lone surrogates), which nothing can encode, as U+FFFD; itself if it has none.

    Two halves that belong together become their character.
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def preprocess(texts: Sequence[str], steps: Sequence[str]) -> list[str]:
    """Texts cleaned by the steps, in their order: lowercase, punctuation, stopwords, stem, lemmatize.

    A step that would leave nothing of a text is skipped for it. Raises `UserError` when the package of a step
    is not installed.
    """
    cleaned = list(texts)
    for step in steps:
        clean = _STEPS[step]()
        cleaned = [_squeezed(clean(text)) or text for text in cleaned]
    return cleaned


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _lowercase() -> Callable[[str], str]:
    return str.lower


def _punctuation() -> Callable[[str], str]:
    """Apostrophes inside words go without a trace (dont), everything else becomes a space."""
    return lambda text: _PUNCTUATION.sub(" ", _APOSTROPHE.sub("", text))


def _stopwords() -> Callable[[str], str]:
    # Also as the punctuation step leaves them, where that is no other word (as "hell" for "he'll" would be).
    words = _STOP_WORDS | {word.replace("'", "") for word in _STOP_WORDS if word.endswith("n't")}
    return lambda text: _WORD.sub(lambda match: "" if match[0].lower().replace("’", "'") in words else match[0], text)


def _stem() -> Callable[[str], str]:
    try:
        import snowballstemmer
    except ImportError as error:
        raise missing_extra("snowballstemmer", "text") from error
    stem = lru_cache(maxsize=1 << 17)(snowballstemmer.stemmer("english").stemWord)
    return lambda text: _WORD.sub(lambda match: stem(match[0].lower()), text)


def _lemmatize() -> Callable[[str], str]:
    try:
        import simplemma
    except ImportError as error:
        raise missing_extra("simplemma", "text") from error

    @lru_cache(maxsize=1 << 17)
    def lemma(word: str) -> str:
        return str(simplemma.lemmatize(word, lang="en"))

    return lambda text: _WORD.sub(lambda match: lemma(match[0]), text)


_STEPS: dict[str, Callable[[], Callable[[str], str]]] = {
    "lowercase": _lowercase,
    "punctuation": _punctuation,
    "stopwords": _stopwords,
    "stem": _stem,
    "lemmatize": _lemmatize,
}


# --- augmentation -------------------------------------------------------------------------------------


def augment(text: str, changes: Mapping[str, float], *, seed: int, epoch: int, row: int) -> str:
    """A training text as it is met in one epoch.

    Args:
        text: as cleaned.
        changes: probability of each change; sentence_shuffle puts the sentences in a random order, word_swap
            exchanges two words (Wei and Zou 2019), word_dropout leaves each word out with its probability,
            but never all of them.
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


# A fixed order: equal settings give equal texts, however the configuration lists them.
_CHANGES: dict[str, Callable[[str, float, np.random.Generator], str]] = {
    "sentence_shuffle": _sentence_shuffle,
    "word_swap": _word_swap,
    "word_dropout": _word_dropout,
}
