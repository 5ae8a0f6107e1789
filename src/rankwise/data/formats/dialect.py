"""How a delimited file is written: its delimiter, whether quotes enclose cells, whether it has a header.

The delimiter is the one by which most rows of the file's start split into as many cells as the first. Quotes
enclose cells where that reading gives every row the same number of cells; between tabs and bars they are
characters like any other where only that does, or where quoting would join lines that are whole rows without it. A sniffer that sees a
sample (csv.Sniffer, clevercsv) cannot decide the latter, since one loose quote in a million rows does; so the
standard library's reader, which is C and strict, is asked about the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.data.columns import is_known
from rankwise.data.formats.quoting import quotes_of
from rankwise.data.formats.reader import DELIMITERS, SINGLE, Body, Quotes
from rankwise.data.formats.sample import ALIKE, Sample, have_names
from rankwise.data.opening import Opener
from rankwise.data.table import Reading
from rankwise.errors import UserError, counted

_SHOWN = {"\t": "tabs", ",": "','", ";": "';'", "|": "'|'"}
_SPELLED = {"\\t": "\t", "tab": "\t"}
_NUMBER = re.compile(r"[-+]?[\d.,]*\d%?")
_MAX_NAME = 64
"""Characters that a column's name may have; a longer first cell is a text."""


@dataclass(frozen=True)
class Dialect:
    """A way to read a delimited file.

    Attributes:
        has_header: whether the first row names the columns.
        has_row_names: whether the header lacks a name for the first column, as R writes tables.
        above: lines of a title or of remarks above the first row.
        note: what to tell about the quotes, if anything.
    """

    delimiter: str
    quotes: Quotes
    has_header: bool
    note: str | None = None
    has_row_names: bool = False
    above: int = 0

    def facts(self) -> list[str]:
        """The dialect in words, ordinary parts left out."""
        facts = [shown(self.delimiter)]
        if self.quotes == "literal" and self.note:
            facts.append("quotes are characters")
        if self.quotes in SINGLE:
            facts.append("single quotes")
        if "escaped" in self.quotes:
            facts.append("quotes escaped by a backslash")
        if self.has_row_names:
            facts.append("names of the rows first")
        if self.above:
            facts.append(f"{counted(self.above, 'line')} above the header left out")
        return [*facts, *([] if self.has_header else ["no header"])]


def shown(delimiter: str) -> str:
    """A delimiter in words."""
    return _SHOWN.get(delimiter, repr(delimiter))


def sniff(body: Body, reading: Reading, fallback: str) -> Dialect:
    """The dialect of a file, whatever the configuration leaves open being found.

    Args:
        fallback: the delimiter that the file's ending stands for.

    Raises `UserError` where two readings would do equally well.
    """
    sample = Sample(body)
    delimiter = reading.delimiter
    if delimiter == "auto":
        delimiter = body.delimiter or _delimiter(sample, body.look.file, reading, fallback)
    delimiter = _SPELLED.get(delimiter, delimiter)
    if not delimiter or "\n" in delimiter or (delimiter.isspace() and delimiter.strip("\t ")):
        raise UserError(f"data.delimiter is {delimiter!r}, expected what stands between two cells, or auto")
    quotes, note = quotes_of(body, delimiter, reading, sample)
    first, *others = sample.rows(delimiter, quotes) or [[]]
    is_header = has_header(first, others, reading)
    has_row_names = is_header and have_names([first, *others])
    above = 0 if body.delimiter else body.above
    return Dialect(delimiter, quotes, is_header, note, has_row_names=has_row_names, above=above)


# --- the delimiter ------------------------------------------------------------------------------------


def _delimiter(sample: Sample, file: Opener, reading: Reading, fallback: str) -> str:
    agreed = {delimiter: sample.agreement(delimiter) for delimiter in DELIMITERS}
    best = max(share for share, _ in agreed.values())
    likely = [delimiter for delimiter in DELIMITERS if agreed[delimiter][0] == best]
    rare = sample.rare_delimiter()
    telling = [delimiter for delimiter in likely if sample.tells(delimiter)]
    # A comma in every text splits rows alike as well, and so does a bar between two other signs.
    if rare and (best < ALIKE or not telling or any(sample.covers(rare, delimiter) for delimiter in likely)):
        return rare
    if best == 0:
        return fallback
    if len(likely) > 1 and sample.has_decimal_commas():
        likely.remove(",")
    if len(likely) > 1:
        likely = _with_names(sample, likely, reading.wanted) or telling or likely
    if len(likely) > 1 and fallback == "\t" and fallback in likely:
        return fallback
    if len(likely) > 1:
        first, second = likely[:2]
        raise UserError(
            f"{file.path} can be read in two ways: {shown(first)} split its rows into {agreed[first][1]} cells and "
            f"{shown(second)} into {agreed[second][1]}: say which with data.delimiter, as in data.delimiter='{first}'"
        )
    return likely[0]


def _with_names(sample: Sample, likely: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Of several delimiters those that give the columns asked for, or else columns of telling names."""
    headers = {delimiter: [cell.strip() for cell in sample.rows(delimiter, "doubled")[0]] for delimiter in likely}
    asked = [delimiter for delimiter in likely if wanted and set(wanted) <= set(headers[delimiter])]
    return asked or [delimiter for delimiter in likely if sum(map(is_known, headers[delimiter])) >= 2]


# --- the header ---------------------------------------------------------------------------------------


def has_header(first: Sequence[str], others: Sequence[Sequence[str]], reading: Reading) -> bool:
    """Whether the first row names the columns, where that is not said.

    It does when it holds a column asked for or a telling name; it does not when a cell is a number, long or a
    sentence, or comes again below as a label does. Otherwise a first line is a header, as it mostly is.
    """
    if not isinstance(reading.header, str):
        return reading.header
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
