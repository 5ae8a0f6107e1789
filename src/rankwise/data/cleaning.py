"""Cleaning of every text (English): the model must meet in use what it met in training.

Of rankwise it imports nothing: an export that must clean its texts takes this file with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

PAIR = "\x1f"
"""Between the two texts of a pair, which travels as one string: the unit separator, which no text is written with."""
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


def preprocess(texts: Sequence[str], steps: Sequence[str]) -> list[str]:
    """Texts cleaned by the steps, in their order: lowercase, punctuation, stopwords, stem, lemmatize.

    A step that would leave nothing of a text is skipped for it. Raises `UserError` when the package of a step
    is not installed.
    """
    cleaned = list(texts)
    for step in steps:
        clean = STEPS[step]()
        cleaned = [_cleaned(text, clean) for text in cleaned]
    return cleaned


def _cleaned(text: str, clean: Callable[[str], str]) -> str:
    if PAIR in text:
        return PAIR.join(_cleaned(half, clean) for half in text.split(PAIR))
    return " ".join(clean(text).split()) or text


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
        raise _missing("snowballstemmer") from error
    stem = lru_cache(maxsize=1 << 17)(snowballstemmer.stemmer("english").stemWord)
    return lambda text: _WORD.sub(lambda match: stem(match[0].lower()), text)


def _lemmatize() -> Callable[[str], str]:
    try:
        import simplemma
    except ImportError as error:
        raise _missing("simplemma") from error

    @lru_cache(maxsize=1 << 17)
    def lemma(word: str) -> str:
        return str(simplemma.lemmatize(word, lang="en"))

    return lambda text: _WORD.sub(lambda match: lemma(match[0]), text)


def _missing(package: str) -> Exception:
    try:
        from rankwise.errors import missing_extra
    except ImportError:
        return ImportError(f"cleaning needs the package '{package}': install it with  pip install {package}")
    return missing_extra(package, "text")


STEPS: dict[str, Callable[[], Callable[[str], str]]] = {
    "lowercase": lambda: str.lower,
    "punctuation": _punctuation,
    "stopwords": _stopwords,
    "stem": _stem,
    "lemmatize": _lemmatize,
}
