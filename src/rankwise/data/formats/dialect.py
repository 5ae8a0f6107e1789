"""How a delimited file is written: its delimiter, whether quotes enclose cells, whether it has a header.

The delimiter is the one by which most rows of the file's start split into as many cells as the first. Quotes
enclose cells where that reading gives every row the same number of cells; between tabs and bars they are
characters like any other where only that does, or where quoting would join lines that are whole rows without it. A sniffer that sees a
sample (csv.Sniffer, clevercsv) cannot decide the latter, since one loose quote in a million rows does; so the
standard library's reader, which is C and strict, is asked about the whole file.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from rankwise.data.columns import is_known
from rankwise.data.encoding import Look
from rankwise.data.opening import MAX_LINE_CHARS, Opener
from rankwise.data.table import Reading
from rankwise.errors import UserError

DELIMITERS = (",", ";", "\t", "|")
# Texts hold commas and semicolons, so that files of those are quoted, and a quote left open there is damage.
_UNQUOTED = ("\t", "|")
_SHOWN = {"\t": "tabs", ",": "','", ";": "';'", "|": "'|'"}
_SPELLED = {"\\t": "\t", "tab": "\t"}
_SAMPLE_CHARS = 1 << 18
_NUMBER = re.compile(r"[-+]?[\d.,]*\d%?")
_DECLARED = re.compile(r'"?sep=(.)"?\s*')
"""The line by which spreadsheets are told the delimiter; it is none of the rows."""
_TOP_CHARS = 1 << 13
_TOP_ROWS = 10
"""Lines in which a header is looked for below a title or remarks."""
_RARE = "^~@\x01\x02\x1e\x1f\xa6\xa7\xac"
"""Delimiters of few files, asked for where no common one splits the rows."""
_ALIKE = 0.9
"""Share of rows that a delimiter must split alike before a rarer one is not asked for."""
_MAX_NAME = 64
"""Characters that a column's name may have; a longer first cell is a text."""

Quotes = Literal["doubled", "escaped", "spaced", "literal"]
"""Quotes enclose cells and are doubled inside; or escaped by a backslash inside; or stand behind a space; or are characters."""


@dataclass(frozen=True)
class Dialect:
    """A way to read a delimited file.

    Attributes:
        has_header: whether the first row names the columns.
        has_row_names: whether the header lacks a name for the first column, as R writes tables.
        above: lines above the first row.
        declares_delimiter: whether the one above names the delimiter.
        note: what to tell about the quotes, if anything.
    """

    delimiter: str
    quotes: Quotes
    has_header: bool
    note: str | None = None
    has_row_names: bool = False
    above: int = 0
    declares_delimiter: bool = False

    def reader(self, lines: Iterator[str] | io.TextIOBase) -> Any:
        """The standard library's reader of this dialect: strict, since what it forgives would be lost."""
        return csv_reader(lines, self.delimiter, self.quotes)

    def facts(self) -> list[str]:
        """The dialect in words, ordinary parts left out."""
        facts = [shown(self.delimiter)]
        if self.quotes == "literal" and self.note:
            facts.append("quotes are characters")
        if self.quotes == "escaped":
            facts.append("quotes escaped by a backslash")
        if self.has_row_names:
            facts.append("names of the rows first")
        if self.above and not self.declares_delimiter:
            facts.append(f"{self.above} line{'s' if self.above > 1 else ''} above the header left out")
        return [*facts, *([] if self.has_header else ["no header"])]


def shown(delimiter: str) -> str:
    """A delimiter in words."""
    return _SHOWN.get(delimiter, repr(delimiter))


def csv_reader(lines: Any, delimiter: str, quotes: Quotes) -> Any:
    """A strict reader of lines."""
    # The module's limit is global and smaller than a text may be; it is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
    if quotes == "literal":
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    if quotes == "escaped":
        return csv.reader(lines, delimiter=delimiter, escapechar="\\", doublequote=False, strict=True)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=quotes == "spaced", strict=True)


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
    _, above = _top(file, look)
    with text_of(file, look) as text:
        for _ in range(above):
            text.readline()
        yield text


def _top(file: Opener, look: Look) -> tuple[str | None, int]:
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


def sniff(file: Opener, look: Look, reading: Reading, *, fallback: str = ",") -> Dialect:
    """The dialect of a file, whatever the configuration leaves open being found.

    Args:
        fallback: the delimiter that the file's ending stands for.

    Raises `UserError` where two readings would do equally well.
    """
    with rows_of(file, look) as text:
        start = text.read(_SAMPLE_CHARS)
        is_whole = not text.read(1)
    sample = _Sample(start, is_whole)
    delimiter = reading.delimiter
    if delimiter == "auto":
        delimiter = _top(file, look)[0] or _delimiter(sample, file, reading, fallback)
    delimiter = _SPELLED.get(delimiter, delimiter)
    if len(delimiter) != 1:
        raise UserError(f"data.delimiter is {delimiter!r}, expected one character, or auto")
    quotes, note = _quotes(file, look, delimiter, reading, sample)
    first, *others = sample.rows(delimiter, quotes) or [[]]
    is_header = reading.header
    if isinstance(is_header, str):
        is_header = has_header(first, others, reading)
    declared, above = _top(file, look)
    return Dialect(
        delimiter,
        quotes,
        is_header,
        note,
        has_row_names=is_header and _have_names([first, *others]),
        above=above,
        declares_delimiter=declared is not None,
    )


def splits_alike(file: Opener, look: Look, delimiter: str) -> bool:
    """Whether every row at the file's start splits into the same number of cells, two at least."""
    with rows_of(file, look) as text:
        start = text.read(_SAMPLE_CHARS)
        is_whole = not text.read(1)
    return _Sample(start, is_whole).agreement(delimiter)[0] == 1


# --- the delimiter ------------------------------------------------------------------------------------


class _Sample:
    """The start of a file, in whole rows."""

    def __init__(self, start: str, is_whole: bool) -> None:
        self._text = start
        self._is_whole = is_whole

    def rows(self, delimiter: str, quotes: Quotes) -> list[list[str]]:
        """Rows without blank ones, read forgivingly; a last one that the sample cuts is left out."""
        if quotes == "literal":
            rows = [line.split(delimiter) for line in self._text.splitlines() if line]
        else:
            escape = "\\" if quotes == "escaped" else None
            reader = csv.reader(
                io.StringIO(self._text, newline=""),
                delimiter=delimiter,
                escapechar=escape,
                doublequote=quotes != "escaped",
                skipinitialspace=quotes == "spaced",
            )
            rows = list(filter(None, reader))
        return rows if self._is_whole or len(rows) < 2 else rows[:-1]

    def agreement(self, delimiter: str) -> tuple[float, int]:
        """The share of rows as wide as the first, or all as wide as it and the name of their row, by the better reading of
        quotes, and that width; 0 below two cells."""
        shares = [(0.0, 1)]
        readings: tuple[Quotes, ...] = ("doubled", "escaped", "literal") if '"' in self._text else ("literal",)
        if self.has_quotes_behind_spaces(delimiter):
            readings = (*readings, "spaced")
        for quotes in readings:
            rows = self.rows(delimiter, quotes)
            width = len(rows[0]) if rows else 0
            if width >= 2 and _have_names(rows):
                shares.append((1.0, width + 1))
            elif width >= 2:
                shares.append((sum(len(row) == width for row in rows) / len(rows), width))
        return max(shares)

    def has_quotes_behind_spaces(self, delimiter: str) -> bool:
        """Whether most rows have a quote behind a delimiter and a space, where it encloses nothing for most programs."""
        lines = self._text.count("\n") or 1
        return 2 * self._text.count(f'{delimiter} "') >= lines

    def rare_delimiter(self) -> str | None:
        """See `rare_delimiter`."""
        return rare_delimiter(self._text if self._is_whole else self._text[: self._text.rfind("\n")])


def _delimiter(sample: _Sample, file: Opener, reading: Reading, fallback: str) -> str:
    agreed = {delimiter: sample.agreement(delimiter) for delimiter in DELIMITERS}
    best = max(share for share, _ in agreed.values())
    likely = [delimiter for delimiter in DELIMITERS if agreed[delimiter][0] == best]
    if best < _ALIKE and (rare := sample.rare_delimiter()):
        return rare
    if best == 0:
        return fallback
    if len(likely) > 1:
        likely = _with_names(sample, likely, reading.wanted) or likely
    if len(likely) > 1 and fallback == "\t" and fallback in likely:
        return fallback
    if len(likely) > 1:
        first, second = likely[:2]
        raise UserError(
            f"{file.path} can be read in two ways: {shown(first)} split its rows into {agreed[first][1]} cells and "
            f"{shown(second)} into {agreed[second][1]}: say which with data.delimiter, as in data.delimiter='{first}'"
        )
    return likely[0]


def _have_names(rows: Sequence[Sequence[str]]) -> bool:
    """Whether every row has one cell more than the header: its name, which R writes first."""
    return len(rows) > 2 and all(len(row) == len(rows[0]) + 1 for row in rows[1:])


def rare_delimiter(text: str) -> str | None:
    """A sign by which every line of a text splits into as many cells, which have telling names or are labels in one place."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in _RARE:
        rows = [line.split(mark) for line in lines]
        if len(rows) < 2 or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
            continue
        few = min(len(set(column)) for column in zip(*rows, strict=True))
        if any(map(is_known, rows[0])) or 2 <= few <= max(2, len(rows) // 5):
            return mark
    return None


def _with_names(sample: _Sample, likely: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Of several delimiters those that give the columns asked for, or else columns of telling names."""
    headers = {delimiter: [cell.strip() for cell in sample.rows(delimiter, "doubled")[0]] for delimiter in likely}
    asked = [delimiter for delimiter in likely if wanted and set(wanted) <= set(headers[delimiter])]
    return asked or [delimiter for delimiter in likely if sum(map(is_known, headers[delimiter])) >= 2]


# --- quotes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """How a reading of the quotes fits the whole file: rows, cells of every row (0: not the same), lines."""

    rows: int
    width: int
    lines: int


def _quotes(file: Opener, look: Look, delimiter: str, reading: Reading, sample: _Sample) -> tuple[Quotes, str | None]:
    """How quotes are meant, and a note where that is not what RFC 4180 says."""
    if reading.quotes is False or not look.has_quote:
        return "literal" if reading.quotes is False else "doubled", None
    quoted: Quotes = "doubled"
    fit = _fit(file, look, delimiter, quoted)
    if sample.has_quotes_behind_spaces(delimiter) and _fit(file, look, delimiter, "spaced").width >= max(2, fit.width):
        return "spaced", None
    if not fit.width and look.has_escape:
        escaped = _fit(file, look, delimiter, "escaped")
        quoted, fit = ("escaped", escaped) if escaped.width else (quoted, fit)
    if reading.quotes is True or (fit.width and (fit.lines == fit.rows or fit.width == 1)):
        return quoted, None
    if _encloses(file, look, delimiter) or (not fit.width and delimiter not in _UNQUOTED):
        return quoted, None  # which says where it fails, if it does
    literal = _literal_fit(file, look, delimiter)
    if literal.width < 2:
        return quoted, None
    if delimiter not in _UNQUOTED:
        raise UserError(
            f"{file.path} can be read in two ways: with quotes around cells it has {fit.rows:,} lines, some with breaks "
            f"inside, and with quotes as characters {literal.rows:,}: say which with data.quotes=true or false"
        )
    if fit.width and _has_doubled_quotes(file, look, delimiter):
        return quoted, None
    joined = f"would join {literal.rows:,} lines into {fit.rows:,}" if fit.width else "cannot be read"
    return "literal", (
        f"{file.path}: every line splits into {literal.width} cells and as quoted cells it {joined}, so its quotes "
        "are read as characters; data.quotes=true reads them as quotes"
    )


def _fit(file: Opener, look: Look, delimiter: str, quotes: Quotes) -> _Fit:
    with rows_of(file, look) as text:
        reader = csv_reader(text, delimiter, quotes)
        try:
            widths = Counter(map(len, reader))
        except csv.Error:
            return _Fit(0, 0, 0)
        blank = widths.pop(0, 0)
        rows = sum(widths.values())
        return _Fit(rows, next(iter(widths)) if len(widths) == 1 else 0, reader.line_num - blank)


def _literal_fit(file: Opener, look: Look, delimiter: str) -> _Fit:
    """As `_fit` without quotes, given up at the first line that disagrees."""
    rows, width = 0, 0
    with rows_of(file, look) as text:
        for row in csv_reader(text, delimiter, "literal"):
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                return _Fit(0, 0, 0)
            rows += 1
    return _Fit(rows, width, rows)


def _has_doubled_quotes(file: Opener, look: Look, delimiter: str) -> bool:
    """Whether a quoted cell with a line break holds a quote: doubled, as programs write it and no hand does."""
    with rows_of(file, look) as text:
        reader, before = csv_reader(text, delimiter, "doubled"), 0
        for row in reader:
            if reader.line_num > before + 1 and any('"' in cell for cell in row):
                return True
            before = reader.line_num
    return False


def _encloses(file: Opener, look: Look, delimiter: str) -> bool:
    """Whether quotes stand around most cells of some column: then one that does not close is damage, not text."""
    with rows_of(file, look) as text:
        rows = list(islice(filter(None, csv_reader(text, delimiter, "literal")), 1000))
    for column in zip(*rows, strict=False):
        cells = [cell.strip() for cell in column if cell.strip()]
        if cells and 2 * sum(len(c) > 1 and c[0] == c[-1] == '"' for c in cells) >= len(cells):
            return True
    return False


# --- the header ---------------------------------------------------------------------------------------


def has_header(first: Sequence[str], others: Sequence[Sequence[str]], reading: Reading) -> bool:
    """Whether the first row names the columns.

    It does when it holds a column asked for or a telling name; it does not when a cell is a number, long or a
    sentence, or comes again below as a label does. Otherwise a first line is a header, as it mostly is.
    """
    names = [cell.strip() for cell in first]
    numbers = [str(place) for place in range(len(names))]
    if names == numbers or (reading.wanted and set(reading.wanted) <= set(names)):
        return True
    if reading.wanted and set(reading.wanted) <= set(numbers):
        return False
    known = sum(map(is_known, names))
    if known >= 2 or (known and len(names) == 1):
        return True
    below = [{row[place].strip() for row in others if place < len(row)} for place in range(len(names))]
    if any(name and name in cells for name, cells in zip(names, below, strict=True)) and list(first) not in others:
        return False
    if known:
        return True
    return not any(_NUMBER.fullmatch(name) or len(name) > _MAX_NAME for name in names)
