"""Whether quotes enclose the cells of a delimited file, and how, asked of the whole file: one loose quote in a million rows
decides.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rankwise.data.encoding import Look
from rankwise.data.formats.reader import SINGLE, Quotes, csv_reader, rows_of, top
from rankwise.data.formats.sample import Sample
from rankwise.data.opening import Opener
from rankwise.data.table import Reading
from rankwise.errors import UserError

# Texts hold commas and semicolons, so that files of those are quoted, and a quote left open there is damage.
_UNQUOTED = ("\t", "|")
_MOST = 0.5
"""of the lines has a cell in single quotes where these enclose cells and are no apostrophes"""


@dataclass(frozen=True)
class _Fit:
    """How a reading of the quotes fits the whole file: rows, cells of every row (0: not the same), lines."""

    rows: int
    width: int
    lines: int


def quotes_of(file: Opener, look: Look, delimiter: str, reading: Reading, sample: Sample) -> tuple[Quotes, str | None]:
    """How quotes are meant, and a note where that is not what RFC 4180 says."""
    if reading.quotes is not False and (share := sample.single_quotes(delimiter)):
        single = _single_quotes(file, look, delimiter, is_certain=share > _MOST, is_said=reading.quotes is True)
        if single is not None:
            return single, None
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
        return quoted, _damage(file, look, delimiter, quoted, fit)  # without a width it says where it fails
    literal = _literal_fit(file, look, delimiter)
    if literal.width < 2:
        return quoted, _damage(file, look, delimiter, quoted, fit)
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


def _single_quotes(
    file: Opener, look: Look, delimiter: str, *, is_certain: bool, is_said: bool = False
) -> Quotes | None:
    """How single quotes enclose cells; None where they are characters.

    is_certain
        Of most cells; of few they do where rows are equally wide by them alone.
    is_said
        Whether the user said that quotes enclose cells: double ones, where these fit and single ones do not.
    """
    plain = _fit(file, look, delimiter, "doubled")
    if not is_certain and (plain.width or _literal_fit(file, look, delimiter).width):
        return None
    for quotes in SINGLE:
        fit = _fit(file, look, delimiter, quotes)
        # Apostrophes that open one row and close the next would join them, where each is a row without.
        if fit.width and not (plain.width == fit.width and plain.rows == plain.lines and fit.rows < fit.lines):
            return quotes
    return "single" if is_certain and not (is_said and plain.width) else None  # which says where it fails, if it does


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


def _damage(file: Opener, look: Look, delimiter: str, quotes: Quotes, fit: _Fit) -> str | None:
    """A note where a row has an odd number of quotes, which no writer leaves: a cell with line breaks may hold other rows."""
    marks = 0
    if not fit.width or quotes != "doubled":
        return None

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal marks
        for line in lines:
            marks += line.count('"')
            yield line

    with rows_of(file, look) as text:
        reader = csv_reader(counted(text), delimiter, "doubled")
        for _ in reader:
            if marks % 2:
                return (
                    f"{file.path}: line {reader.line_num + top(file, look)[1]:,} has a quote that closes nothing, and cells elsewhere have line "
                    "breaks: a quote lost or doubled may have joined rows"
                )
            marks = 0
    return None


def _encloses(file: Opener, look: Look, delimiter: str) -> bool:
    """Whether quotes stand around most cells of some column: then one that does not close is damage, not text."""
    with rows_of(file, look) as text:
        rows = list(islice(filter(None, csv_reader(text, delimiter, "literal")), 1000))
    for column in zip(*rows, strict=False):
        cells = [cell.strip() for cell in column if cell.strip()]
        if cells and 2 * sum(len(c) > 1 and c[0] == c[-1] == '"' for c in cells) >= len(cells):
            return True
    return False
