"""One role's labelled texts from wherever its source says they are.

A source is a file or a folder of any of the kinds in `formats`, with `[part]` behind it a sheet or a split of it;
`packaged:bbc-news`; or a data set of the Hub: `name`, `name:configuration`, `name[split]`. It is opened as a table,
its columns are chosen, and its rows become texts and class names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rankwise.config import Data
from rankwise.data import archives, formats, hub
from rankwise.data.cleaning import PAIR
from rankwise.data.columns import Columns, choose, id_column
from rankwise.data.foreign import PICKLE_SUFFIXES
from rankwise.data.formats import endings
from rankwise.data.hub import NAME
from rankwise.data.labels import Label
from rankwise.data.opening import PACKED_SUFFIXES, existing, split_part
from rankwise.data.scheme import Cell, Scheme, class_notes
from rankwise.data.table import Reading, Table
from rankwise.data.text import joined, mended
from rankwise.errors import UserError, counted


@dataclass(frozen=True)
class Source:
    """Labelled texts as they were read.

    Attributes:
        texts: one string a row, columns joined.
        labels: a tuple of class names a row, of one name unless `multi_label`.
        ids: the column `id` (any case) if there is one, else row numbers from 0.
        classes: the class names that are declared, in order, or None.
        where: what to call the source in messages.
        data: the configuration with what was found: columns, separator, what numbers stand for.
        line: how it was read, in one line.
        notes: what the user should know.
    """

    texts: list[str]
    labels: list[Label]
    ids: list[Any]
    classes: tuple[str, ...] | None
    where: str
    data: Data = field(default_factory=Data)
    line: str = ""
    notes: tuple[str, ...] = ()


def read(source: str, data: Data, role: str) -> Source:
    """Read the source of a role (`train`, `validation` or `test`).

    Raises `UserError`, one sentence that names the row, for anything that is not a labelled text.
    """
    table = open_table(source, data, role)
    if isinstance(data.label, list) and not data.multi_label:
        raise UserError(
            "data.label names several columns: with data.multi_label=true each is a label of 0 and 1; "
            "otherwise name the one column of classes"
        )
    columns = _columns(table, data)
    rows = _Rows(table, data, columns, role)
    scheme = Scheme(rows.cells, table, data, columns, role)
    by_code = scheme.labels()
    found = [by_code[code] for code in rows.codes]
    kept = [row for row, label in enumerate(found) if label is not None]
    if not kept:
        raise UserError(f"{table.name} has no label in '{columns.label}': each of its rows is empty")
    chosen = [label for label in found if label is not None]
    notes = [*table.notes, *scheme.notes, *rows.notes()]
    if role == "train":
        counts = Counter(name for label in chosen for name in label)
        notes += class_notes(counts, columns, len(chosen), table.name, data.multi_label)
    names: dict[str, Any] = {}
    if not table.has_fixed_columns:
        names["text"] = columns.text[0] if len(columns.text) == 1 else list(columns.text)
        names["label"] = data.label if isinstance(data.label, list) else columns.label
    if data.multi_label:
        names["label_separator"] = scheme.separator
    line = table.line_of(rows.read)
    is_whole = len(kept) == len(found)
    return Source(
        texts=rows.texts if is_whole else [rows.texts[row] for row in kept],
        labels=chosen,
        ids=rows.ids if is_whole else [rows.ids[row] for row in kept],
        classes=scheme.classes,
        where=table.name,
        data=msgspec.structs.replace(data, **names, classes=scheme.resolved()),
        line=f"{line}; {columns.reason}" if columns.reason else line,
        notes=tuple(notes),
    )


def open_table(source: str, data: Data, role: str) -> Table:
    """The table of a role's source.

    Raises `UserError` when there is none, or it cannot be read.
    """
    if source.startswith("packaged:"):
        return hub.packaged_table(source, data.exclude)
    name, part = split_part(source)
    path = Path(name).expanduser()
    reading = reading_of(data, role)
    if path.exists():
        return formats.open_path(path, part, reading, data.exclude)
    matched = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if set(name) & {"*", "?"} else []
    if matched:
        return formats.open_matched(matched, name, reading)
    is_file = path.suffix.lower() in (*endings.KNOWN, *PICKLE_SUFFIXES, *PACKED_SUFFIXES)
    if is_file or source.startswith((".", "/", "~")):
        existing(name, f"data.{role}: ")
    return hub.table(source, role)


def reading_of(data: Data, role: str) -> Reading:
    """What the configuration says of a file before it is opened."""
    label = [data.label] if isinstance(data.label, str) else data.label or []
    wanted = (*text_columns(data), *label) if data.text is not None or data.label is not None else ()
    return Reading(data.encoding, data.delimiter, data.quotes, data.header, tuple(wanted), role)


def identity(source: str, role: str) -> str:
    """A name that two roles share exactly when they would read the same rows."""
    name, part = split_part(source)
    path = Path(name).expanduser()
    if source.startswith("packaged:"):
        return source
    if path.exists():
        by_role = path.is_dir() or ".json" in path.suffixes or archives.holds_roles(path)
        return f"{path.resolve()}[{part or (role if by_role else '')}]"
    match = NAME.fullmatch(source)
    return f"{match['name']}:{match['configuration']}[{match['split'] or role}]" if match else source


def text_columns(data: Data) -> list[str]:
    """The columns that make up a text, as far as they are named."""
    if data.text is None:
        return []
    columns = [data.text] if isinstance(data.text, str) else list(data.text)
    if not columns:
        raise UserError("data.text is empty: name the text column, or several")
    return columns


def _columns(table: Table, data: Data) -> Columns:
    """The columns of a table whose own are not fixed by its kind."""
    named = text_columns(data)
    label = data.label
    if table.has_fixed_columns:
        return Columns(("text",), "label")
    if isinstance(label, list):
        table.require(label, "data.label")
        text = tuple(named) if named else choose(table, None, label[0]).text
        columns = Columns(text, label[0])
    else:
        columns = choose(table, named or None, label, pair=data.pair)
    if data.pair and len(columns.text) != 2:
        raise UserError(
            f"data.pair: true needs two text columns, such as data.text=[premise,hypothesis]; "
            f"the text is {', '.join(columns.text)}"
        )
    return columns


# --- rows ---------------------------------------------------------------------------------------------


class _Rows:
    """Texts, ids and label cells of a table; each different label cell is kept once, and rows have its number."""

    def __init__(self, table: Table, data: Data, columns: Columns, role: str) -> None:
        self._role = role
        self.texts: list[str] = []
        self.ids: list[Any] = []
        self.codes: list[int] = []
        self.cells: list[Cell] = []
        self.read = self._empty = self._mended = 0
        label = data.label if isinstance(data.label, list) else [columns.label]
        identifier = id_column(table.columns)
        has_ids = identifier is not None and identifier not in (*columns.text, *label)
        width, label_end = len(columns.text), len(columns.text) + len(label)
        several = isinstance(data.label, list)
        known: dict[Any, int] = {}
        first_empty = ""
        for cells in table.rows([*columns.text, *label, *([str(identifier)] if has_ids else [])]):
            self.read += 1
            text = cells[0]
            if width > 1 or type(text) is not str or not _is_plain(text):
                whole = joined(cells[:width], table.where, pair=data.pair)
                text = mended(whole)
                self._mended += text is not whole
            if not text:
                self._empty += 1
                if role == "train":
                    if any(cell is not None and str(cell).strip() for cell in cells[width:label_end]):
                        first_empty = first_empty or table.where()
                    continue  # without a label either it is a blank row and asks for nothing
            cell = cells[width:label_end] if several else cells[width]
            key = cell if type(cell) is str else _key(cell)
            code = known.get(key)
            if code is None:
                code = known[key] = len(known)
                self.cells.append(Cell(cell, table.where()))
            self.cells[code].rows += 1
            self.texts.append(text or (PAIR if data.pair else text))
            self.codes.append(code)
            self.ids.append(cells[-1] if has_ids else self.read - 1)
        if not self.read:
            raise UserError(f"{table.name} is empty: it has columns but no rows")
        if first_empty and data.empty == "refuse":
            raise UserError(
                f"{first_empty} has no text (empty, null or NaN), as {self._empty:,} of {self.read:,} rows: fill it "
                "in, or leave such rows out with data.empty=drop"
            )
        if not self.texts:
            raise UserError(
                f"{table.name} has no text in {' or '.join(map(repr, columns.text))}: each of its rows is empty"
            )

    def notes(self) -> list[str]:
        """What was done about texts that are none."""
        notes = []
        if self._empty:
            fate = "left out" if self._role == "train" else "kept: they get the answer of an empty text"
            notes.append(f"{counted(self._empty, 'row')} of {self._role} without a text {fate}")
        if self._mended:
            notes.append(f"{self._mended:,} texts of {self._role} held half a character (a lone surrogate), now U+FFFD")
        return notes


def _is_plain(text: str) -> bool:
    """Whether a cell is a text as it stands; the others take the long way."""
    return text.isascii() and 0 < len(text) < 1000 and PAIR not in text and not text.isspace()


def _key(cell: Any) -> Any:
    """What tells label cells apart: 1, 1.0 and True are equal to Python."""
    if isinstance(cell, (list, tuple)):
        return (type(cell), tuple(map(_key, cell)))
    try:
        hash(cell)
    except TypeError:
        return (type(cell), repr(cell))
    return (type(cell), cell) if cell == cell else None
