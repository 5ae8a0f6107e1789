"""The rows of a delimited file: its text below a title, and a strict reader of its cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rankwise.data.columns import is_known
from rankwise.data.encoding import Look
from rankwise.data.opening import MAX_LINE_CHARS

DELIMITERS = (",", ";", "\t", "|")
_DECLARED = re.compile(r'"?sep=(.)"?\s*')
"""The line by which spreadsheets are told the delimiter; it is none of the rows."""
_TOP_CHARS = 1 << 13
_TOP_ROWS = 10
"""Lines in which a header is looked for below a title or remarks."""
_STAND_IN = "\x1f"
"""for a delimiter of several characters; ASCII's own separator of cells, which no text holds"""

Row = list[str]
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


def csv_reader(
    lines: Iterable[str], delimiter: str, quotes: Quotes, *, strict: bool = True
) -> tuple[Any, Iterable[Row]]:
    """The standard library's reader, which counts lines, and its rows; a blank line is a row without cells.

    strict
        What cannot be read is an error, since what the library forgives would be lost.
    """
    # The module's limit is global and smaller than a text may be; it is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
    if "escaped" in quotes:
        quote = _OPTIONS[quotes].get("quotechar", '"')
        lines = (_ESCAPE.sub(lambda found: found[1] * (1 + (found[1] == quote)), line) for line in lines)
    if len(delimiter) == 1:
        reader = csv.reader(lines, delimiter=delimiter, strict=strict, **_OPTIONS[quotes])
        return reader, reader
    lines = (line.replace(delimiter, _STAND_IN) for line in lines)
    reader = csv.reader(lines, delimiter=_STAND_IN, strict=strict, **_OPTIONS[quotes])
    return reader, ([cell.replace(_STAND_IN, delimiter) for cell in row] for row in reader)


class Body:
    """The lines of a delimited file below a title or remarks, read anew by whoever asks.

    Attributes:
        look: the file.
        delimiter: what the file names in a line of its own, if it does.
        above: how many lines stand above its rows.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.delimiter: str | None = None
        self.above = 0
        with look.text() as text:
            lines = io.StringIO(text.read(_TOP_CHARS), newline="").readlines()
        if lines and (declared := _DECLARED.fullmatch(lines[0])):
            self.delimiter, self.above = declared[1], 1
            return
        for delimiter in DELIMITERS:
            rows = [[cell.strip().strip('"') for cell in line.split(delimiter)] for line in lines[: _TOP_ROWS + 1]]
            self.above = self.above or rows_above_header(rows)

    @contextmanager
    def text(self) -> Iterator[io.TextIOWrapper]:
        """The text from the first row on."""
        with self.look.text() as text:
            for _ in range(self.above):
                text.readline()
            yield text

    def rows(self, delimiter: str, quotes: Quotes) -> Iterator[tuple[int, Row]]:
        """Every row, with the number of the line that it ends in; see `csv_reader`."""
        with self.text() as text:
            reader, rows = csv_reader(text, delimiter, quotes)
            above = self.above
            for row in rows:
                yield above + reader.line_num, row


def rows_above_header(rows: Sequence[Sequence[str]]) -> int:
    """How many rows of a title or of remarks stand above a header that names two columns at least by telling names."""
    for place, row in enumerate(rows[: _TOP_ROWS + 1]):
        if sum(map(is_known, row)) >= 2:
            return place if any(any(cell.strip() for cell in above) for above in rows[:place]) else 0
        if len([cell for cell in row if cell.strip()]) > 1 and not row[0].startswith("#"):
            return 0
    return 0
