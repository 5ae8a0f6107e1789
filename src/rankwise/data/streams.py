"""Texts to predict: batches of a file's rows in their order, in constant memory, a row for every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rankwise.data import formats
from rankwise.data.cleaning import PAIR
from rankwise.data.columns import find_text, row_ids
from rankwise.data.opening import existing, split_part
from rankwise.data.table import Reading, Table
from rankwise.data.text import joined, mended
from rankwise.errors import UserError, counted
from rankwise.objects import source_of

_EMPTY = ("", PAIR)
"""a row without a text, and a pair without either"""


@dataclass(frozen=True)
class Batch:
    """Texts to predict, with the ids that their predictions carry."""

    ids: list[Any]
    texts: list[str]


class Stream:
    """Batches of a table's texts, read as they are asked for; may be read again.

    Attributes:
        rows: how many there are.
        empty: rows without a text, which get the answer of an empty one.
        id_column: the column that the ids come from; None where they are row numbers.
        line: how the source was read, in one line.
        columns: the columns that make up a text.
    """

    def __init__(self, table: Table, columns: Sequence[str], batch_rows: int, *, pair: bool = False) -> None:
        self._table = table
        self.columns = list(columns)
        self._batch_rows = batch_rows
        self._pair = pair
        named = row_ids(table)
        self.id_column = None if named in self.columns else named
        self.rows = self.empty = 0
        self.first_empty = ""
        for _, text in self._texts():
            self.rows += 1
            if text in _EMPTY:
                self.empty += 1
                self.first_empty = self.first_empty or table.where()
        self.line = table.line_of(self.rows)

    @property
    def notes(self) -> list[str]:
        """What the user should know of the source."""
        empty = f"{counted(self.empty, 'row')} without a text got the answer of an empty one"
        return [*self._table.notes, *([empty] if self.empty else [])]

    def __iter__(self) -> Iterator[Batch]:
        rows = self._texts()
        while window := list(islice(rows, self._batch_rows)):
            yield Batch([identifier for identifier, _ in window], [text for _, text in window])

    def _texts(self) -> Iterator[tuple[Any, str]]:
        names = [*self.columns, *([self.id_column] if self.id_column else [])]
        for number, cells in enumerate(self._table.rows(names)):
            text = mended(joined(cells[: len(self.columns)], self._table.where, pair=self._pair))
            identifier = cells[-1] if self.id_column else number
            named = mended(identifier) if isinstance(identifier, str) else identifier
            yield named, text or (PAIR if self._pair else text)


def stream(
    source: Any,
    columns: Sequence[str] | None,
    batch_rows: int,
    *,
    reading: Reading | None = None,
    empty: str = "answer",
    pair: bool = False,
) -> Stream:
    """The texts of a file to predict, in constant memory.

    The whole file is read once before anything is predicted: a bad last row is told now, not after an hour.

    Args:
        source: a table of any kind, also from Python, a .txt file of one text a line, or a folder of texts.
        columns: text columns, joined by a space; None finds one. Texts that are lines or files have no columns, and
            a table of one column has no other.
        batch_rows: rows of a batch.
        reading: how the file is written, where that is not to be found.
        empty: answer gives rows without a text the answer of an empty one; refuse is strict.
        pair: the columns are the two texts of a pair.

    Raises `UserError` for a file or column that is missing, and a row that cannot be read.
    """
    name, part = split_part(source_of(source))
    path = existing(name)
    wanted = reading or Reading(wanted=tuple(columns or ()), labelled=False)
    table = formats.open_path(path, part, wanted)
    result = Stream(table, _text_columns(table, columns), batch_rows, pair=pair)
    if result.rows == 0:
        raise UserError(f"{path} is empty: expected {'text files' if path.is_dir() else 'rows'} to predict")
    if result.empty and empty == "refuse":
        raise UserError(
            f"{result.first_empty} has no text, one of {result.empty:,}: fill it in, or leave --empty refuse out"
        )
    return result


def sample_submission(path: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a sample submission and its ids, as text.

    Raises `UserError` for a file without an id and another column, and for an id that stands twice.
    """
    table = formats.open_file(existing(path), None, Reading(header=True, labelled=False))
    if len(table.columns) < 2:
        raise UserError(f"{path} has the columns {table.shown_columns()}: expected an id and a label")
    ids = tuple(str(cells[0]) for cells in table.rows(table.columns[:1]))
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"{path} has the id {twice} twice: each row needs its own")
    return table.columns, ids


def _text_columns(table: Table, columns: Sequence[str] | None) -> list[str]:
    if table.has_fixed_columns:
        return ["text"]
    if table.columns == ("0",):  # no header, and nothing else it could be
        return ["0"]
    if columns is None:
        return list(find_text(table))
    table.require(columns, "data.text")
    return list(columns)
