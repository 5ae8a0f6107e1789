"""Whether quotes enclose the cells of a delimited file, and how, asked of the whole file: one loose quote in a million rows
decides.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rankwise.data.formats.reader import SINGLE, Body, Quotes, csv_reader
from rankwise.data.formats.sample import Sample
from rankwise.data.table import SAMPLE_ROWS, Reading
from rankwise.errors import UserError

# Texts hold commas and semicolons, so that files of those are quoted, and a quote left open there is damage.
_UNQUOTED = ("\t", "|")
_MOST = 0.5
"""of the lines has a cell in single quotes where these enclose cells and are no apostrophes"""


@dataclass(frozen=True)
class _Fit:
    """How a reading of the quotes fits the whole file.

    Attributes:
        rows: how many there are.
        width: cells of every row, 0 where it is not the same or a row cannot be read.
        has_breaks: whether a row is longer than a line.
        has_doubled: whether such a row holds a quote: doubled, as programs write it and no hand does.
    """

    rows: int = 0
    width: int = 0
    has_breaks: bool = False
    has_doubled: bool = False


def quotes_of(body: Body, delimiter: str, reading: Reading, sample: Sample) -> tuple[Quotes, str | None]:
    """How quotes are meant, and a note where that is not what RFC 4180 says."""
    if reading.quotes is not False and (share := sample.single_quotes(delimiter)):
        single = _single_quotes(body, delimiter, is_certain=share > _MOST, is_said=reading.quotes is True)
        if single is not None:
            return single, None
    if reading.quotes is False or not body.look.has_quote:
        return "literal" if reading.quotes is False else "doubled", None
    quoted: Quotes = "doubled"
    fit = _fit(body, delimiter, quoted)
    if sample.has_quotes_behind_spaces(delimiter) and _fit(body, delimiter, "spaced").width >= max(2, fit.width):
        return "spaced", None
    if not fit.width and body.look.has_escape:
        escaped = _fit(body, delimiter, "escaped")
        quoted, fit = ("escaped", escaped) if escaped.width else (quoted, fit)
    if reading.quotes is True or (fit.width and (not fit.has_breaks or fit.width == 1)):
        return quoted, None
    is_quoted = _encloses(body, delimiter) or (not fit.width and delimiter not in _UNQUOTED)  # or says where it fails
    literal = _Fit() if is_quoted else _fit(body, delimiter, "literal")
    if literal.width < 2:
        return quoted, _damage(body, delimiter) if fit.width and quoted == "doubled" else None
    if delimiter not in _UNQUOTED:
        raise UserError(
            f"{body.look.file.path} can be read in two ways: with quotes around cells it has {fit.rows:,} lines, some with breaks "
            f"inside, and with quotes as characters {literal.rows:,}: say which with data.quotes=true or false"
        )
    if fit.has_doubled:
        return quoted, None
    joined = f"would join {literal.rows:,} lines into {fit.rows:,}" if fit.width else "cannot be read"
    return "literal", (
        f"{body.look.file.path}: every line splits into {literal.width} cells and as quoted cells it {joined}, so its quotes "
        "are read as characters; data.quotes=true reads them as quotes"
    )


def _single_quotes(body: Body, delimiter: str, *, is_certain: bool, is_said: bool = False) -> Quotes | None:
    """How single quotes enclose cells; None where they are characters.

    is_certain
        Of most cells; of few they do where rows are equally wide by them alone.
    is_said
        Whether the user said that quotes enclose cells: double ones, where these fit and single ones do not.
    """
    plain = _fit(body, delimiter, "doubled")
    if not is_certain and (plain.width or _fit(body, delimiter, "literal").width):
        return None
    for quotes in SINGLE:
        fit = _fit(body, delimiter, quotes)
        # Apostrophes that open one row and close the next would join them, where each is a row without.
        if fit.width and not (plain.width == fit.width and not plain.has_breaks and fit.has_breaks):
            return quotes
    return "single" if is_certain and not (is_said and plain.width) else None  # which says where it fails, if it does


def _fit(body: Body, delimiter: str, quotes: Quotes) -> _Fit:
    """Given up at the first row that disagrees."""
    rows, width, before, has_breaks, has_doubled = 0, 0, body.above, False, False
    try:
        for line, row in body.rows(delimiter, quotes):
            if len(row) != width and row:
                if width:
                    return _Fit()
                width = len(row)
            if row:
                rows += 1
                if line != before + 1:
                    has_breaks = True
                    has_doubled = has_doubled or any('"' in cell for cell in row)
            before = line
    except csv.Error:
        return _Fit()
    return _Fit(rows, width, has_breaks, has_doubled)


def _damage(body: Body, delimiter: str) -> str | None:
    """A note where a row has an odd number of quotes, which no writer leaves: a cell with line breaks may hold other rows."""
    marks = 0

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal marks
        for line in lines:
            marks += line.count('"')
            yield line

    with body.text() as text:
        reader, rows = csv_reader(counted(text), delimiter, "doubled")
        for _ in rows:
            if marks % 2:
                return (
                    f"{body.look.file.path}: line {body.above + reader.line_num:,} has a quote that closes nothing, and cells elsewhere have line "
                    "breaks: a quote lost or doubled may have joined rows"
                )
            marks = 0
    return None


def _encloses(body: Body, delimiter: str) -> bool:
    """Whether quotes stand around most cells of some column: then one that does not close is damage, not text."""
    rows = list(islice((row for _, row in body.rows(delimiter, "literal") if row), SAMPLE_ROWS))
    for column in zip(*rows, strict=False):
        cells = [cell.strip() for cell in column if cell.strip()]
        if cells and 2 * sum(len(c) > 1 and c[0] == c[-1] == '"' for c in cells) >= len(cells):
            return True
    return False
