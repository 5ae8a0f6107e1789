"""Which encoding a text file is in, found from all of its bytes in constant memory.

UTF-8 is what every byte agrees with, UTF-16 and UTF-32 what their marks or zeros say. For anything else
`charsets` judges the lines that are not ASCII.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain

from rankwise.data import charsets
from rankwise.data.charsets import Judgement
from rankwise.data.opening import MAX_LINE_CHARS, TOO_LONG, Opener, chunks
from rankwise.errors import UserError, counted

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
    "koi8-u": "KOI8-U",
    "mac_roman": "Mac Roman",
    "mac_cyrillic": "Mac Cyrillic",
    "gb18030": "GB18030",
    "big5": "Big5",
    "euc_jp": "EUC-JP",
    "iso2022_jp": "ISO-2022-JP",
}
_SAMPLE_BYTES = 1 << 16
_GIVEN_UP = 1000
"""bytes that are not UTF-8 from which on a file is only judged once more if they are few in it"""
_SHIFT = b"\x1b$B"
"""what mail in Japanese writes before characters of seven bits"""
_BROKEN = "\ufffd"


@dataclass(frozen=True)
class Look:
    """A text file, and what one pass over its bytes tells.

    Attributes:
        file: its bytes.
        encoding: a codec of Python; `name` is what people call it.
        errors: its handler of bytes that cannot be decoded.
        has_quote: whether a double quote occurs anywhere; has_escape: whether one behind a backslash does.
        notes: what else the file may be in, and what was damaged.
        long_line: the first line that is longer than any row, if one is.
    """

    file: Opener
    encoding: str
    errors: str
    has_quote: bool
    has_escape: bool
    notes: tuple[str, ...] = ()
    long_line: int | None = None

    @property
    def name(self) -> str:
        """What people call the encoding."""
        return name_of(self.encoding)

    @contextmanager
    def text(self) -> Iterator[TextIOWrapper]:
        """The text from its start, with its line ends as they are."""
        with (
            self.file.open() as stream,
            TextIOWrapper(stream, encoding=self.encoding, errors=self.errors, newline="") as text,
        ):
            yield text

    def refuse_long_line(self) -> None:
        """Raise `UserError` where there is a line that is longer than a row may be."""
        if self.long_line is not None:
            raise _too_long(self.file, self.long_line)


def name_of(encoding: str) -> str:
    """What people call a codec."""
    if encoding.startswith("cp125"):
        return f"Windows-{encoding[2:]}"
    return _NAMES.get(encoding, encoding.replace("iso8859", "ISO-8859"))


def look(file: Opener, wanted: str = AUTO, *, in_lines: bool = True) -> Look:
    """The encoding of a file, and whether it holds quotes.

    Args:
        file: its bytes.
        wanted: `data.encoding`: auto, or a codec.
        in_lines: whether a row is a line or a few; a JSON document may have one line of any length.

    Raises `UserError` for bytes that are no text or disagree with the encoding that is asked for, and for a line
    longer than any text may be.
    """
    encoding = _marked(file, wanted) or _unmarked_utf16(file)
    if encoding is not None:
        return _decoded_look(file, encoding)
    utf8, sample = _Utf8(), bytearray()
    has_quote = has_escape = has_shifts = False
    long_line, opened = None, 0  # bytes of the line that a chunk's end cuts
    with file.open() as stream:
        for chunk in chunks(stream):
            if 0 in chunk:
                raise _no_text(file, utf8.line + chunk[: chunk.index(0)].count(b"\n"))
            end = chunk.find(b"\n")
            opened += len(chunk) if end < 0 else end
            if opened > MAX_LINE_CHARS and long_line is None:
                long_line = utf8.line
                if in_lines:
                    raise _too_long(file, long_line)
            if end >= 0:  # a line inside is shorter than the chunk, which is shorter than the limit
                opened = len(chunk) - chunk.rfind(b"\n") - 1
            has_shifts = has_shifts or _SHIFT in chunk
            has_quote = has_quote or b'"' in chunk
            has_escape = has_escape or b'\\"' in chunk
            utf8.add(chunk)
            if utf8.damaged:
                _add_sample(sample, chunk)
    utf8.add(b"", final=True)
    if has_shifts and not utf8.damaged:
        return _decoded_look(file, "iso2022_jp")
    codec, errors, notes = "utf-8-sig", "strict", []
    if utf8.damaged and utf8.is_it:
        errors, notes = "replace", [utf8.note(file)]
    elif utf8.damaged:
        found = charsets.judged(bytes(sample) or file.start())
        codec, errors = found.codec, charsets.OPEN_BYTES if found.codec == charsets.WESTERN else "replace"
        notes = _doubt(str(file.path), found)
    return Look(file, codec, errors, has_quote, has_escape, tuple(notes), long_line)


def _doubt(name: str, found: Judgement) -> list[str]:
    """What another encoding would make of the file, where that is nearly as likely."""
    if found.rival is None:
        return []
    shown = f"'{found.word}'" if found.word else "its letters"
    other = f"'{found.rival_word}'" if found.rival_word else "others"
    return [
        f"{name} may be in {name_of(found.codec)}, which gives {shown}, or in {name_of(found.rival)}, which gives {other}: "
        f"read as the first; data.encoding={found.rival} reads the second"
    ]


class _Utf8:
    """Whether bytes are UTF-8, or were before a few of them were damaged.

    Characters of several bytes are UTF-8's own: other encodings hardly ever write one, and where they do, many more
    bytes are none.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.line = 1
        self.damaged = 0
        self.first_line = 0
        self._own = 0

    def add(self, chunk: bytes, *, final: bool = False) -> None:
        """Take in the next bytes of the file."""
        line, self.line = self.line, self.line + chunk.count(b"\n")
        if self.damaged > _GIVEN_UP and not self.is_it:
            return
        before = self._decoder.getstate()[0]
        text = self._decoder.decode(chunk, final)
        broken = text.count(_BROKEN)
        if broken:
            broken -= (before + chunk).count(_BROKEN.encode())  # which the file holds itself
            if broken > 0 and not self.damaged:
                self.first_line = line + text[: text.index(_BROKEN)].count("\n")
        self.damaged += broken
        if broken:
            self._own += len(text) - len(text.encode("ascii", "ignore")) - broken
        else:  # what a character has beyond its first byte; one that the chunk cuts counts with the next
            self._own += len(before) + len(chunk) - len(self._decoder.getstate()[0]) - len(text)

    @property
    def is_it(self) -> bool:
        """Whether it holds as many characters of UTF-8's own as damaged ones."""
        return self._own >= self.damaged

    def note(self, file: Opener) -> str:
        return (
            f"{file.path} is UTF-8 with {counted(self.damaged, 'damaged character')}, the first in line "
            f"{self.first_line:,}, now U+FFFD; data.encoding names another encoding"
        )


def _too_long(file: Opener, line: int) -> UserError:
    file.refuse_filler()
    return UserError(f"{file.path}, line {line:,} is longer than {MAX_LINE_CHARS:,} characters: {TOO_LONG}")


def is_mostly_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, damaged or not."""
    utf8 = _Utf8()
    utf8.add(data, final=True)
    return not utf8.damaged or utf8.is_it


def of_many(contents: Iterable[bytes]) -> str:
    """One codec for many files that are not UTF-8."""
    sample = bytearray()
    for data in contents:
        _add_sample(sample, data)
        if len(sample) > _SAMPLE_BYTES:
            break
    return charsets.judged(bytes(sample)).codec


def _add_sample(sample: bytearray, chunk: bytes) -> None:
    """Keep the lines that are not ASCII: only they tell encodings apart."""
    if len(sample) < _SAMPLE_BYTES and not chunk.isascii():
        for line in chunk.splitlines(keepends=True):
            if not line.isascii() and len(sample) <= 2 * _SAMPLE_BYTES:
                sample += line[:4096]


def _marked(file: Opener, wanted: str) -> str | None:
    """The encoding that is asked for, or that a byte order mark names."""
    if wanted != AUTO:
        try:
            codec = codecs.lookup(wanted).name
        except LookupError as error:
            raise UserError(f"data.encoding: there is no encoding '{wanted}'; such as utf-8, cp1252, utf-16") from error
        if codec == "iso8859-1":
            return "cp1252"
        return "utf-8-sig" if codec == "utf-8" else codec
    start = file.start()
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


def _unmarked_utf16(file: Opener) -> str | None:
    """UTF-16 without its mark: read so, bytes with zeros among them are lines of characters that are in use.

    Raises `UserError` for other zeros: those are no text.
    """
    start = file.start()
    if not start.count(0):
        return None
    likely = {codec: text for codec in ("utf-16-le", "utf-16-be") if (text := _text_in(start, codec)) is not None}
    if not likely:
        raise _no_text(file)
    # Read the wrong way round, a space or a line's end is a letter that no text needs.
    return max(likely, key=lambda codec: sum(map(likely[codec].count, " \n,;\t")))


def _text_in(start: bytes, codec: str) -> str | None:
    text = start[: len(start) // 2 * 2].decode(codec, "replace").rstrip("\ufffd")
    kinds = Counter(map(unicodedata.category, text))
    is_text = not any(kinds[kind] for kind in ("Cn", "Co", "Cs")) and kinds["Cc"] == sum(map(text.count, "\r\n\t"))
    return text if is_text and "\ufffd" not in text else None


def _no_text(file: Opener, line: int = 1) -> UserError:
    file.refuse_filler()
    place = f" (line {line:,})" if line > 1 else ""
    return UserError(f"{file.path} holds zero bytes{place} and is no text: name a table of texts, or set data.encoding")


def _decoded_look(file: Opener, encoding: str) -> Look:
    """Read the file in an encoding that is known, to see that it can be."""
    errors = charsets.OPEN_BYTES if encoding == charsets.WESTERN else "strict"
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
    return Look(file, encoding, errors, has_quote, has_escape)
