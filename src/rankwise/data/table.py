"""A table of rows as its file stores them, read one at a time and in constant memory.

A `Table` knows its columns, yields rows as tuples, and can say where it is (`row 7, line 9`), so that every
complaint about a row names the place. Cells come as they are stored: strings from CSV, values from JSON and
Parquet; what counts as a text or a label is decided by the callers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from rankwise.errors import UserError, listed, nearest

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing", "eval"),
}
"""What the splits of a role are called."""
SPLIT_NAMES = {name for names in SPLITS.values() for name in names}
SAMPLE_ROWS = 1000
"""Rows looked at to tell texts, labels and ids apart."""


@dataclass(frozen=True)
class Reading:
    """What is known about a file before it is opened.

    Attributes:
        encoding, delimiter, quotes, header: as the configuration has them; auto is found.
        wanted: columns that are asked for by name; a reading that has them is the right one.
        role: train, validation or test, where a file holds several.
        labelled: whether each row needs a label; texts to predict have none.
    """

    encoding: str = "auto"
    delimiter: str = "auto"
    quotes: bool | str = "auto"
    header: bool | str = "auto"
    wanted: tuple[str, ...] = ()
    role: str = "train"
    labelled: bool = True

    def split_in(self, names: Collection[str]) -> str | None:
        """The split of the role among parts of these names."""
        return next((name for name in SPLITS[self.role] if name in names), None)

    def no_split(self, part: str | None, names: Iterable[str]) -> str:
        """What is missing where none of the parts is the one that is asked for, or the role's."""
        return f"no split '{part}'{nearest(part, names)}" if part else f"no split for {self.role}"


class Table:
    """A source of rows. `rows` may be called again: it reads from the start.

    Attributes:
        name: what to call the source in messages.
        columns: names of the columns, in order.
        has_fixed_columns: whether the kind of source names them, and not the file: they are text, label and id.
        declared_text, declared_label: columns that the source itself declares to be so.
        class_names: of a column whose source declares its classes, their names in order.
        facts: how the source was read, for the one line that is printed.
        notes: what the user should know about it.
        left_out: classes of `data.exclude` that the table has and does not give rows of.
        row, line: the place of the row yielded last, counted from 1; line 0 where there are no lines.
    """

    columns: tuple[str, ...] = ()
    has_fixed_columns = False
    declared_text: tuple[str, ...] = ()
    declared_label: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.row = 0
        self.line = 0
        self.class_names: dict[str, tuple[str, ...]] = {}
        self.facts: list[str] = []
        self.notes: list[str] = []
        self.broken_rows = 0
        self.left_out: set[str] = set()

    def records(self) -> Iterator[Sequence[Any]]:
        """Every row, its cells in the order of the columns; counts `row`."""
        raise NotImplementedError

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The cells of the named columns, row by row."""
        places = [self.columns.index(name) for name in names]
        self.row = self.line = 0
        if len(places) == 1:
            (one,) = places
            return ((record[one],) for record in self.records())
        return map(itemgetter(*places), self.records())

    def sample(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The first rows."""
        return list(islice(self.rows(names), SAMPLE_ROWS))

    def telling_columns(self) -> list[str]:
        """The columns that have a name, and one of their own."""
        return [name for name in self.columns if name and self.columns.count(name) == 1]

    def where(self) -> str:
        """The place of the row yielded last, without the header."""
        place = f"row {self.row:,}"
        return f"{self.name}, {place} (line {self.line:,})" if self.line else f"{self.name}, {place}"

    def line_of(self, rows: int) -> str:
        """The one line that says what was read; `rows` is their number."""
        broken = [f"{self.broken_rows:,} with line breaks inside"] if self.broken_rows else []
        return f"{self.name}: {', '.join([*self.facts, f'{rows:,} rows', *broken])}"

    def require(self, names: Sequence[str], key: str) -> None:
        """Raise `UserError` naming the first column that is missing or stands twice; `key` is the key that asked."""
        for name in names:
            if name not in self.columns:
                raise UserError(
                    f"{self.name} has no column '{name}'{nearest(name, self.columns)}: "
                    f"its columns are {self.shown_columns()}; name the right one with {key}"
                )
            if self.columns.count(name) > 1:
                raise UserError(f"{self.name} names the column '{name}' twice in its header: rename one of them")

    def shown_columns(self) -> str:
        """The columns for a message."""
        return listed([f"'{c}'" if len(c) <= 40 else f"'{c[:37]}...'" for c in self.columns], 40)
