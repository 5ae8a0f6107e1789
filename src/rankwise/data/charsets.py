"""Which encoding bytes are in that are not UTF-8: the text each candidate makes of them is judged.

chardet tells how like a language a candidate makes the bytes, by the pairs of letters in them. It was taken for
charset-normalizer, which of four lines in 26 languages reads half (LOG.md): it has models of pairs for 48 languages, no
dependencies and one licence with all uses, and `requests` takes either. A few words leave ties, and there two things
decide: letters that stand as in no word (a capital behind a small letter, a sign or another script's letter inside a
word) speak against a candidate, and what most files are in comes before what few are in.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

WESTERN = "cp1252"
# Never Latin-1: browsers read it as Windows-1252 too (WHATWG Encoding), whose quotes and dashes it lacks. The older ones
# are what spreadsheets write as "CSV (Macintosh)" and "CSV (MS-DOS)".
_WINDOWS = ("cp1250", "cp1251", WESTERN, "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874")
_SEVERAL_BYTES = ("cp932", "euc-jp", "gb18030", "big5", "cp949")
_OLDER = (
    "koi8-r",
    "koi8-u",
    "iso8859-2",
    "iso8859-5",
    "iso8859-7",
    "mac-roman",
    "mac-cyrillic",
    "cp850",
    "cp852",
    "cp866",
)
_CODECS = {"big5hkscs": "big5", "euc_jis_2004": "euc_jp", "mac-roman": "mac_roman", "mac-cyrillic": "mac_cyrillic"}
_PRIOR = {WESTERN: 1.1, **dict.fromkeys(_OLDER, 0.95), "mac-cyrillic": 0.8}
"""A tenth is what chance makes of one line; a letter that tells two alphabets apart makes more. Small Cyrillic letters are the
same in Windows-1251 and on a Macintosh, so that where capitals are few nothing else tells."""
_CLOSE = 0.75
"""share of the best candidate's mark from which another one is worth a word to the user"""
_LIKE_NONE = 0.03
"""mark below which a reading is like no language: of one line in its language it is twice as much at least"""
_OWN_LETTERS = {
    "cp932": re.compile("[\u3040-\u30ff]"),
    "euc_jp": re.compile("[\u3040-\u30ff]"),
    "cp949": re.compile("[\uac00-\ud7a3]"),
    "gb18030": re.compile("[\u4e00-\u9fff]"),
    "big5": re.compile("[\u4e00-\u9fff]"),
}
# The five bytes that Windows-1252 leaves open; the WHATWG decoder gives the control characters of their number.
_OPEN_IN_CP1252 = bytes.maketrans(b"\x81\x8d\x8f\x90\x9d", b"     ")
_WORD = re.compile(r"\S+")
OPEN_BYTES = "rankwise-c1"
"""Python's error handler for the bytes that Windows-1252 leaves open"""


def _c1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(OPEN_BYTES, _c1)


@dataclass(frozen=True)
class Judgement:
    """What a sample was taken for.

    Attributes:
        codec: of Python.
        word: one that shows it; empty where every candidate reads alike.
        rival, rival_word: the next best candidate that is not much worse and what it makes of that word; None if there
            is none.
    """

    codec: str
    word: str = ""
    rival: str | None = None
    rival_word: str = ""


def judged(sample: bytes) -> Judgement:
    """The codec of bytes that are not UTF-8, such as those of all lines that are not ASCII."""
    marks = _marks(sample)
    codec = max(marks, key=lambda name: marks[name], default=WESTERN)
    if marks.get(codec, 0) < _LIKE_NONE and (eastern := _eastern(sample)):
        return Judgement(eastern)
    text = decoded(sample, codec)
    western = decoded(sample, WESTERN)
    if text == western:
        codec = WESTERN
    for rival in sorted(marks, key=lambda name: -marks[name]):
        other = decoded(sample, rival)
        if rival != codec and other != text and marks[rival] >= _CLOSE * marks[codec]:
            word, rival_word = _telling_words(text, other)
            return Judgement(codec, word, rival, rival_word)
    return Judgement(codec)


def _eastern(sample: bytes) -> str | None:
    """The codec of a few wide characters, of which chardet asks for more."""
    for codec, own in _OWN_LETTERS.items():
        try:
            text = sample.decode(codec)
        except UnicodeDecodeError:
            continue
        wide = [letter for letter in text if not letter.isascii()]
        is_wide = all(unicodedata.east_asian_width(letter) in "WF" for letter in wide)
        # Two letters with marks side by side, as in a single word of Estonian, are one such character in GB18030 too.
        if own.search(text) and is_wide and _plain(text) == 1:
            return codec
    return None


def decoded(data: bytes, codec: str) -> str:
    """Text of bytes; what the codec leaves open is replaced, in Windows-1252 by the control characters of its number."""
    if codec == WESTERN:
        return data.decode(codec, OPEN_BYTES)
    return data.decode(codec, "replace")


def _marks(sample: bytes) -> dict[str, float]:
    """How likely each codec is that can read a sample; by its name in Python."""
    from chardet import detect_all

    marks: dict[str, float] = {}

    def judge(data: bytes, candidates: Iterable[str]) -> None:
        found = detect_all(data, ignore_threshold=True, compat_names=False, include_encodings=candidates)
        for match in found:
            name = match["encoding"]
            if name is None:
                continue
            codec = _CODECS.get(name, name)
            text = decoded(data, codec)
            if "\ufffd" not in text[:-4]:  # the sample's end may cut a character in two
                marks[codec] = match["confidence"] * _PRIOR.get(name, 1.0) * _plain(text) ** 2

    judge(sample, (*_WINDOWS, *_SEVERAL_BYTES, *_OLDER))
    cleaned = sample.translate(_OPEN_IN_CP1252)
    if cleaned != sample:
        judge(cleaned, (WESTERN,))
    return marks


def _plain(text: str) -> float:
    """Share of the characters beyond ASCII that stand as in a word or between words."""
    counted = odd = 0
    before = " "
    for place, letter in enumerate(text):
        if not letter.isascii():
            counted += 1
            after = text[place + 1 : place + 2] or " "
            odd += _is_odd(before, letter, after)
        before = letter
    return 1 - odd / counted if counted else 1.0


def _is_odd(before: str, letter: str, after: str) -> bool:
    kind = unicodedata.category(letter)
    is_inside = before.isalpha() and after.isalpha()
    if kind in ("Lu", "Lt"):
        return before.islower() or (before.isalpha() and after.islower())
    if kind in ("Ll", "Lo"):
        is_foreign = before.isalpha() and _script(before) != _script(letter)
        return is_foreign or (kind == "Ll" and before.isupper() and after.isupper())
    if kind in ("Cc", "Cn", "Co"):
        return True
    if kind == "So":
        return after.islower()
    return is_inside and kind in ("Sc", "Sm", "No", "Po", "Ps", "Pe", "Pi", "Pf") and letter != "\u2019"


def _script(letter: str) -> str:
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "").partition(" ")[0]


def _telling_words(text: str, other: str) -> tuple[str, str]:
    """The first word that two readings of the same bytes differ in, by each."""
    for ours, theirs in zip(_WORD.findall(text), _WORD.findall(other), strict=False):
        if ours != theirs:
            return _trimmed(ours), _trimmed(theirs)
    return "", ""


def _trimmed(word: str) -> str:
    """A word without the cells around it."""
    place = next((n for n, letter in enumerate(word) if not letter.isascii()), 0)
    start = max((word.rfind(mark, 0, place) for mark in ",;|\"'\t"), default=-1) + 1
    ends = [found for mark in ",;|\"'\t" if (found := word.find(mark, place)) > 0]
    return word[start : min(ends, default=len(word))][:30]
