"""The start of a delimited file, in whole rows, and what it says of delimiters."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rankwise.data.columns import is_known
from rankwise.data.formats.reader import SINGLE, Body, Quotes, Row, csv_reader

_CHARS = 1 << 18
_RARE = "^~@\x01\x02\x1e\x1f\xa6\xa7\xac"
"""Delimiters of one character and of few files, asked for where no common one splits the rows into texts and labels."""
_LONG = re.compile(r"</?\w+>|\[\w+\]|[^\w\s\"'.?!…]{2,}")
"""what may be one, beside spaces around it: a word in brackets, or signs in a row that end no sentence"""
_LINK = "://"
ALIKE = 0.9
"""Share of rows that a delimiter must split alike before a rarer one is not asked for."""


class Sample:
    """The start of a file, in whole rows."""

    def __init__(self, body: Body) -> None:
        with body.text() as text:
            self._text = text.read(_CHARS)
            self._is_whole = not text.read(1)

    def rows(self, delimiter: str, quotes: Quotes) -> list[Row]:
        """Rows without blank ones, read forgivingly; a last one that the sample cuts is left out."""
        if quotes == "literal":
            rows = [line.split(delimiter) for line in self._text.splitlines() if line]
        else:
            text = io.StringIO(self._text, newline="")
            rows = list(filter(None, csv_reader(text, delimiter, quotes, strict=False)[1]))
        return rows if self._is_whole or len(rows) < 2 else rows[:-1]

    def splits_alike(self, delimiter: str) -> bool:
        """Whether every row splits into the same number of cells, two at least."""
        return self.agreement(delimiter)[0] == 1

    def agreement(self, delimiter: str) -> tuple[float, int]:
        """The share of rows as wide as the first, or all as wide as it and the name of their row, by the better reading of
        quotes, and that width; 0 below two cells."""
        shares = [(0.0, 1)]
        readings: tuple[Quotes, ...] = ("doubled", "escaped", "literal") if '"' in self._text else ("literal",)
        if self.single_quotes(delimiter):
            readings = (*readings, *SINGLE)
        if self.has_quotes_behind_spaces(delimiter):
            readings = (*readings, "spaced")
        for quotes in readings:
            rows = self.rows(delimiter, quotes)
            width = len(rows[0]) if rows else 0
            if width >= 2 and have_names(rows):
                shares.append((1.0, width + 1))
            elif width >= 2:
                shares.append((sum(len(row) == width for row in rows) / len(rows), width))
        return max(shares)

    def has_decimal_commas(self) -> bool:
        """Whether every comma, of which there are some, stands between two digits."""
        return "," in self._text and not re.search(r"(?<!\d),|,(?!\d)", self._text)

    def has_quotes_behind_spaces(self, delimiter: str) -> bool:
        """Whether most rows have a quote behind a delimiter and a space, where it encloses nothing for most programs."""
        lines = self._text.count("\n") or 1
        return 2 * self._text.count(f'{delimiter} "') >= lines

    def single_quotes(self, delimiter: str) -> float:
        """How many cells begin with a single quote, or end with one, whichever are fewer, for every line."""
        sides = re.escape(delimiter)
        begins = len(re.findall(f"(?:^|{sides})'", self._text, re.MULTILINE))
        ends = len(re.findall(f"'(?=\\r?$|{sides})", self._text, re.MULTILINE))
        return min(begins, ends) / (self._text.count("\n") or 1)

    def covers(self, mark: str, delimiter: str) -> bool:
        """Whether every delimiter is part of a longer mark, which has other signs too."""
        inside = mark.count(delimiter)
        return inside < len(mark.strip()) and self._text.count(delimiter) == inside * self._text.count(mark)

    def tells(self, delimiter: str) -> bool:
        """Whether a delimiter gives columns of telling names, or one of few values."""
        return any(
            _tells(self.rows(delimiter, quotes)) for quotes in ("doubled", *(SINGLE if "'" in self._text else ()))
        )

    def rare_delimiter(self) -> str | None:
        """A sign, or several in a row, by which every line splits into as many cells, which have telling names or are labels
        in one place."""
        text = self._text if self._is_whole else self._text[: self._text.rfind("\n")]
        lines = [line for line in text.splitlines() if line.strip()]
        marks: list[str] = [*_long_marks(lines), *_RARE]
        for mark in marks:
            rows = [line.split(mark) for line in lines]
            alike = sum(len(row) == len(rows[0]) for row in rows)
            # Several signs in a row are a delimiter of lines that nearly all split alike: the others are damage then.
            enough = alike == len(rows) or (len(mark) > 1 and alike >= ALIKE * len(rows))
            if len(rows) >= 2 and enough and len(rows[0]) >= 2 and _tells(rows):
                return mark
        return None


def have_names(rows: Sequence[Sequence[str]]) -> bool:
    """Whether every row has one cell more than the header: its name, which R writes first; a word that no other row has.

    The start of a text before a comma that nobody quoted is no name.
    """
    if len(rows) < 3 or any(len(row) != len(rows[0]) + 1 for row in rows[1:]):
        return False
    names = [row[0].strip() for row in rows[1:]]
    return len(set(names)) == len(names) and not any(" " in name for name in names)


def _long_marks(lines: Sequence[str]) -> list[str]:
    """What the first line has of signs in a row, spaces around them included where every line has these."""
    marks: list[str] = []
    for mark in dict.fromkeys(map(str, _LONG.findall(lines[0] if lines else ""))):
        if mark != _LINK:
            marks += [wide for wide in (f" {mark} ", mark) if all(wide in line for line in lines)]
    return marks


def _tells(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names a column, or some column has few values that come again."""
    if not rows or any(map(is_known, rows[0])):
        return bool(rows)
    few = min((len(set(column)) for column in zip(*rows, strict=False) if len(set(column)) > 1), default=0)
    return 2 <= few <= max(2, len(rows) // 5)
