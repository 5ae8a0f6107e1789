"""The rows of a delimited file: its text below a title, and a strict reader of its cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rankwise.data.columns import is_known
from rankwise.data.encoding import Look
from rankwise.data.opening import MAX_LINE_CHARS, Opener

DELIMITERS = (",", ";", "\t", "|")
_DECLARED = re.compile(r'"?sep=(.)"?\s*')
"""The line by which spreadsheets are told the delimiter; it is none of the rows."""
_TOP_CHARS = 1 << 13
_TOP_ROWS = 10
"""Lines in which a header is looked for below a title or remarks."""
_STAND_IN = "\x1f"
"""for a delimiter of several characters; ASCII's own separator of cells, which no text holds"""

Quotes = Literal["doubled", "escaped", "spaced", "literal", "single", "single escaped"]
_OPTIONS: dict[Quotes, dict[str, Any]] = {
    "doubled": {},
    "escaped": {},  # once doubled: the library's own way forgives a quote that is neither, and loses it
    "spaced": {"skipinitialspace": True},
    "literal": {"quoting": csv.QUOTE_NONE},
    "single": {"quotechar": "'"},
    "single escaped": {"quotechar": "'"},
}
"""Quotes enclose cells and are doubled inside; or escaped by a backslash inside; or stand behind a space; or are characters;
single ones enclose cells, doubled or escaped inside."""
SINGLE: tuple[Quotes, ...] = ("single", "single escaped")
_ESCAPE = re.compile(r"\\([\\\"'])")


def csv_reader(lines: Any, delimiter: str, quotes: Quotes, *, strict: bool = True) -> Any:
    """A reader of lines; strict unless what cannot be read is to be forgiven."""
    # The module's limit is global and smaller than a text may be; it is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
    if "escaped" in quotes:
        quote = _OPTIONS[quotes].get("quotechar", '"')
        lines = (_ESCAPE.sub(lambda found: found[1] * (1 + (found[1] == quote)), line) for line in lines)
    if len(delimiter) > 1:
        return _LongDelimiter(lines, delimiter, quotes, strict=strict)
    return csv.reader(lines, delimiter=delimiter, strict=strict, **_OPTIONS[quotes])


class _LongDelimiter:
    """A reader of cells that several characters divide: the standard library's of one that stands for them."""

    def __init__(self, lines: Any, delimiter: str, quotes: Quotes, *, strict: bool) -> None:
        self._delimiter = delimiter
        one = (line.replace(delimiter, _STAND_IN) for line in lines)
        self._reader = csv.reader(one, delimiter=_STAND_IN, strict=strict, **_OPTIONS[quotes])

    @property
    def line_num(self) -> int:
        """Lines read."""
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        for row in self._reader:
            yield [cell.replace(_STAND_IN, self._delimiter) for cell in row]


@contextmanager
def text_of(file: Opener, look: Look) -> Iterator[io.TextIOWrapper]:
    """The file's text, with its line ends as they are."""
    with (
        file.open() as stream,
        io.TextIOWrapper(stream, encoding=look.encoding, errors=look.errors, newline="") as text,
    ):
        yield text


@contextmanager
def rows_of(file: Opener, look: Look) -> Iterator[io.TextIOWrapper]:
    """The text of a delimited file from its first row on."""
    _, above = top(file, look)
    with text_of(file, look) as text:
        for _ in range(above):
            text.readline()
        yield text


def top(file: Opener, look: Look) -> tuple[str | None, int]:
    """The delimiter that the file names in a line of its own, and how many lines stand above its rows."""
    with text_of(file, look) as text:
        lines = io.StringIO(text.read(_TOP_CHARS), newline="").readlines()
    declared = _DECLARED.fullmatch(lines[0]) if lines else None
    if declared:
        return declared[1], 1
    for delimiter in DELIMITERS:
        rows = [
            [cell.strip().strip('"') for cell in line.rstrip("\r\n").split(delimiter)]
            for line in lines[: _TOP_ROWS + 1]
        ]
        above = rows_above_header(rows)
        if above:
            return None, above
    return None, 0


def rows_above_header(rows: Sequence[Sequence[str]]) -> int:
    """How many rows of a title or of remarks stand above a header that names two columns at least by telling names."""
    for place, row in enumerate(rows[: _TOP_ROWS + 1]):
        if sum(map(is_known, row)) >= 2:
            return place if any(any(cell.strip() for cell in above) for above in rows[:place]) else 0
        if len([cell for cell in row if cell.strip()]) > 1 and not row[0].startswith("#"):
            return 0
    return 0
