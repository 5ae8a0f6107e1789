"""Which encoding a text file is in, found from all of its bytes in constant memory.

UTF-8 is what every byte agrees with, UTF-16 and UTF-32 what their marks or zeros say. For anything else
charset-normalizer judges the lines that are not ASCII; Windows-1252 stands where nothing speaks against it. It
is kept because it is small, pure, maintained and already below `requests`.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from rankwise.data.opening import MAX_LINE_CHARS, TOO_LONG, Opener, chunks
from rankwise.errors import UserError

AUTO = "auto"
_NAMES = {
    "utf-8-sig": "UTF-8",
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
    "cp932": "Shift-JIS",
    "cp949": "Korean (cp949)",
    "koi8-r": "KOI8-R",
    "gb18030": "GB18030",
    "big5": "Big5",
    "euc_jp": "EUC-JP",
}
# Never Latin-1: browsers read it as Windows-1252 too (WHATWG Encoding), whose quotes and dashes it lacks.
_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
# The five bytes that Windows-1252 leaves open; the WHATWG decoder gives the control characters of their number.
_OPEN_IN_CP1252 = bytes.maketrans(b"\x81\x8d\x8f\x90\x9d", b"     ")
_SAMPLE_BYTES = 1 << 16
_TELLING = 0.1
"""how much more like a language another codec must make a text than Windows-1252 does: of a few lines, a letter or two
that both read as letters make half of it"""
_C1 = "rankwise-c1"


def _c1(error: UnicodeError) -> tuple[str, int]:
    """The decoder's answer for a byte that Windows-1252 leaves open."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(_C1, _c1)


@dataclass(frozen=True)
class Look:
    """What one pass over the bytes of a text file tells.

    Attributes:
        encoding: a codec of Python; `name` is what people call it.
        errors: its handler of bytes that cannot be decoded.
        has_quote: whether a double quote occurs anywhere; has_escape: whether one behind a backslash does.
    """

    encoding: str
    errors: str
    has_quote: bool
    has_escape: bool

    @property
    def name(self) -> str:
        return name_of(self.encoding)


def name_of(encoding: str) -> str:
    """What people call a codec."""
    if encoding.startswith("cp125"):
        return f"Windows-{encoding[2:]}"
    return _NAMES.get(encoding, encoding)


def look(file: Opener, wanted: str = AUTO) -> Look:
    """The encoding of a file, and whether it holds quotes.

    Args:
        file: its bytes.
        wanted: `data.encoding`: auto, or a codec.

    Raises `UserError` for bytes that are no text or disagree with the encoding that is asked for, and for a line
    longer than any text may be.
    """
    with file.open() as stream:
        start = stream.read(4)
    encoding = _marked(start, wanted, file)
    if encoding is None:
        encoding = _unmarked_utf16(file)
    if encoding is not None:
        return _decoded_look(file, encoding)
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8, has_quote, has_escape, sample = True, False, False, bytearray()
    lines = _Lines(file)
    with file.open() as stream:
        for chunk in chunks(stream):
            has_quote = has_quote or b'"' in chunk
            has_escape = has_escape or b'\\"' in chunk
            lines.add(chunk)
            if not is_utf8:
                _add_sample(sample, chunk)
                continue
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                is_utf8 = False
                _add_sample(sample, chunk)
    if is_utf8 and decoder.getstate()[0]:  # the last character is cut off
        is_utf8 = False
        sample += decoder.getstate()[0]
    if is_utf8:
        return Look("utf-8-sig", "strict", has_quote, has_escape)
    encoding = of_bytes(bytes(sample))
    return Look(encoding, _C1 if encoding == "cp1252" else "replace", has_quote, has_escape)


def of_bytes(sample: bytes) -> str:
    """The codec of bytes that are not UTF-8."""
    cleaned = sample.translate(_OPEN_IN_CP1252)
    matches = _matches(sample, _CANDIDATES)
    if cleaned != sample:
        matches += _matches(cleaned, ["cp1252"])
    if not matches:
        return "cp1252"
    best, chaos, unlike = min(matches, key=lambda m: (m[1], m[2], m[0] != "cp1252"))
    western = next((m for m in matches if m[0] == "cp1252"), None)
    if western is not None and western[1] <= chaos and western[2] - unlike < _TELLING:
        return "cp1252"
    if not _decodes(sample, best) or cleaned.decode(best, "replace") == cleaned.decode("cp1252", "replace"):
        return "cp1252"
    return best


def _matches(sample: bytes, candidates: list[str]) -> list[tuple[str, float, float]]:
    """Codecs that could be those of a sample: how disordered each makes it, and how unlike any language (negative)."""
    from charset_normalizer import from_bytes

    return [(m.encoding, round(m.chaos, 2), -m.coherence) for m in from_bytes(sample, cp_isolation=candidates)]


def decode(data: bytes, encoding: str) -> str:
    """Text of bytes in an encoding that was found for them."""
    return data.decode(encoding, _C1 if encoding == "cp1252" else "replace")


def of_many(contents: Iterable[bytes]) -> str:
    """One codec for many files that are not UTF-8."""
    sample = bytearray()
    for data in contents:
        _add_sample(sample, data)
        if len(sample) > _SAMPLE_BYTES:
            break
    return of_bytes(bytes(sample))


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample[: len(sample) // 2].decode(encoding, "replace" if encoding == "cp1252" else "strict")
    except UnicodeDecodeError as error:
        return error.end >= len(sample) // 2 - 4  # a character cut in two by the sample's end
    return True


def _add_sample(sample: bytearray, chunk: bytes) -> None:
    """Keep the lines that are not ASCII: only they tell encodings apart."""
    if len(sample) < _SAMPLE_BYTES and not chunk.isascii():
        room = 2 * _SAMPLE_BYTES
        telling = (line[:4096] for line in chunk.splitlines(keepends=True) if not line.isascii())
        for line in telling:
            sample += line
            if len(sample) > room:
                return


def _marked(start: bytes, wanted: str, file: Opener) -> str | None:
    """The encoding that is asked for, or that a byte order mark names."""
    if wanted != AUTO:
        try:
            codec = codecs.lookup(wanted).name
        except LookupError as error:
            raise UserError(f"data.encoding: there is no encoding '{wanted}'; such as utf-8, cp1252, utf-16") from error
        if codec == "iso8859-1":
            return "cp1252"
        return "utf-8-sig" if codec == "utf-8" else codec
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


def _unmarked_utf16(file: Opener) -> str | None:
    """UTF-16 without its mark, known by zeros that stand in every second byte alone.

    Raises `UserError` for other zeros: those are no text.
    """
    start = file.start()
    zeros = start.count(0)
    if zeros == 0:
        return None
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if zeros > len(start) // 4 and 20 * min(even, odd) < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    raise _no_text(file)


def _no_text(file: Opener) -> UserError:
    file.refuse_filler()
    return UserError(f"{file.path} holds zero bytes and is no text: name a table of texts, or set data.encoding")


def _decoded_look(file: Opener, encoding: str) -> Look:
    """Read the file in an encoding that is known, to see that it can be."""
    errors = _C1 if encoding == "cp1252" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    has_quote, has_escape, done, lines = False, False, 0, 1
    with file.open() as stream:
        for chunk in chain(chunks(stream), [b""]):
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file.path} is not {name_of(encoding)}: byte {done + error.start:,} (line "
                    f"{lines + chunk[: error.start].count(10):,}) cannot be read; leave data.encoding out to have it found"
                ) from error
            has_quote = has_quote or '"' in text
            has_escape = has_escape or '\\"' in text
            done, lines = done + len(chunk), lines + chunk.count(10)
    return Look(encoding, errors, has_quote, has_escape)


class _Lines:
    """Refuses what no table of texts holds: zero bytes, and a line of many megabytes."""

    def __init__(self, file: Opener) -> None:
        self._file = file
        self._open = 0
        self._number = 1

    def add(self, chunk: bytes) -> None:
        if b"\0" in chunk:
            raise _no_text(self._file)
        parts = chunk.split(b"\n")
        if len(parts) == 1:
            self._open += len(chunk)
        else:
            self._check(self._open + len(parts[0]), self._number)
            self._number += len(parts) - 1
            self._open = len(parts[-1])
        # A middle part is shorter than the chunk, which is shorter than the limit.
        self._check(self._open, self._number)

    def _check(self, length: int, number: int) -> None:
        if length > MAX_LINE_CHARS:
            self._file.refuse_filler()
            raise UserError(
                f"{self._file.path}, line {number:,} is longer than {MAX_LINE_CHARS:,} characters: {TOO_LONG}"
            )
