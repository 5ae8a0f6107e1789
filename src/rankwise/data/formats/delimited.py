"""Comma-, semicolon-, tab- and bar-separated values in any dialect and encoding."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice

from rankwise.data.encoding import Look
from rankwise.data.formats.dialect import shown, sniff
from rankwise.data.formats.orange import declared
from rankwise.data.formats.reader import Body, Row
from rankwise.data.opening import MAX_LINE_CHARS, TOO_LONG
from rankwise.data.table import Reading, Table
from rankwise.errors import UserError


class Delimited(Table):
    """Rows of cells, read strictly: what would be lost is an error that names its line."""

    def __init__(self, look: Look, reading: Reading) -> None:
        super().__init__(str(look.file.path))
        self._body = Body(look)
        self._dialect = sniff(self._body, reading, "\t" if look.file.suffix in (".tsv", ".tab") else ",")
        self.facts = [look.name, *self._dialect.facts()]
        self.notes += [*look.notes, *([self._dialect.note] if self._dialect.note else [])]
        self._broken_line = 0
        top = list(islice(self._written(), 3))
        if not top:
            raise UserError(f"{self.name} is empty: expected a header line and rows")
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

    def _written(self) -> Iterator[Row]:
        """The rows and the header, as they are written."""
        line = self._body.above
        try:
            for last, record in self._body.rows(self._dialect.delimiter, self._dialect.quotes):
                self.line = line = line + 1
                if last != line:
                    self.broken_rows += 1
                    self._broken_line, line = line, last
                if record:
                    yield record
        except csv.Error as error:
            raise self._unreadable(error, line + 1) from error

    def _unreadable(self, error: csv.Error, line: int) -> UserError:
        start = f"{self.name}, the row from line {line:,} cannot be read"
        if "field limit" in str(error):
            return UserError(f"{start}: a cell is longer than {MAX_LINE_CHARS:,} characters: {TOO_LONG}")
        return UserError(
            f"{start}: {error}; quote the cell, and double the quotes inside it, "
            "or set data.quotes=false if quotes are characters in this file"
        )

    def records(self) -> Iterator[Row]:
        written = self._written()
        for _ in range(self._header_rows):
            next(written)
        self.broken_rows = 0
        width = len(self.columns)
        for record in written:
            self.row += 1
            yield record if len(record) == width else self._mended(record)

    def _mended(self, record: Row) -> Row:
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
