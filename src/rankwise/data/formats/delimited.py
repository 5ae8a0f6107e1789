"""Comma-, semicolon-, tab- and bar-separated values in any dialect and encoding."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

from rankwise.data import encoding
from rankwise.data.encoding import Look
from rankwise.data.formats.dialect import Dialect, shown, sniff
from rankwise.data.formats.orange import declared
from rankwise.data.formats.reader import rows_of
from rankwise.data.opening import MAX_LINE_CHARS, TOO_LONG, Opener
from rankwise.data.table import Reading, Table
from rankwise.errors import UserError

SUFFIXES = (".csv", ".tsv", ".tab", ".psv")


class Delimited(Table):
    """Rows of cells, read strictly: what would be lost is an error that names its line."""

    def __init__(self, file: Opener, reading: Reading, look: Look | None = None) -> None:
        super().__init__(str(file.path))
        self._file = file
        self._look = look or encoding.look(file, reading.encoding)
        fallback = "\t" if file.suffix in (".tsv", ".tab") else ","
        self._dialect: Dialect = sniff(file, self._look, reading, fallback=fallback)
        self.facts = [self._look.name, *self._dialect.facts()]
        self.notes += self._look.notes
        if self._dialect.note:
            self.notes.append(self._dialect.note)
        self._broken_line = 0
        top = list(islice(self._records(), 3))
        if not top:
            raise UserError(f"{file.path} is empty: expected a header line and rows")
        first, *below = top
        names = [*([""] if self._dialect.has_row_names else []), *(name.strip() for name in first)]
        self.columns = tuple(names) if self._dialect.has_header else tuple(map(str, range(len(names))))
        self._header_rows = int(self._dialect.has_header)
        roles = declared(names, below) if self._dialect.has_header else None
        if roles is not None:
            self.declared_text, self.declared_label = roles
            self._header_rows = 3
            self.facts.append("Orange's types below the header")
        # Spreadsheets end a header with columns that nobody named and rows may leave out.
        self._least = len(names)
        while self._dialect.has_header and self._least > 1 and not names[self._least - 1]:
            self._least -= 1

    def _records(self) -> Iterator[list[str]]:
        above = self._dialect.above
        first = 1 + above
        with rows_of(self._file, self._look) as text:
            reader = self._dialect.reader(text)
            try:
                for record in reader:
                    self.line = first
                    last = reader.line_num + above
                    if last != first:
                        self.broken_rows += 1
                        self._broken_line = first
                    first = last + 1
                    if record:
                        yield record
            except csv.Error as error:
                raise self._unreadable(error, first) from error

    def _unreadable(self, error: csv.Error, line: int) -> UserError:
        start = f"{self.name}, the row from line {line:,} cannot be read"
        if "field limit" in str(error):
            return UserError(f"{start}: a cell is longer than {MAX_LINE_CHARS:,} characters: {TOO_LONG}")
        return UserError(
            f"{start}: {error}; quote the cell, and double the quotes inside it, "
            "or set data.quotes=false if quotes are characters in this file"
        )

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        places = [self.columns.index(name) for name in names]
        one = places[0] if len(places) == 1 else None
        cells = itemgetter(*places)
        self.broken_rows = self.row = 0
        records = self._records()
        for _ in range(self._header_rows):
            next(records)
        self.broken_rows = 0
        width = len(self.columns)
        for record in records:
            self.row += 1
            if len(record) != width:
                record = self._mended(record)
            yield (record[one],) if one is not None else cells(record)

    def _mended(self, record: list[str]) -> list[str]:
        """A row with empty cells left out or added at its end; any other number of cells is an error."""
        width = len(self.columns)
        if self.line != self._broken_line:  # of a row over several lines another width is a quote too many
            if self._least <= len(record) < width:
                return record + [""] * (width - len(record))
            if len(record) > width and not any(cell.strip() for cell in record[width:]):
                return record[:width]
        expected = "as in the header" if self._dialect.has_header else "as in the first row"
        mark = _called(self._dialect.delimiter)
        advice = (
            f"quote cells that hold {mark}" if len(record) > width else f"fill in what is missing, {mark} between cells"
        )
        raise UserError(f"{self.where()} has {len(record)} cells, expected {width} {expected}: {advice}")


def _called(delimiter: str) -> str:
    return {",": "a comma", "\t": "a tab", ";": "a semicolon"}.get(delimiter, shown(delimiter))
