"""One role's labelled texts from wherever its source says they are.

A source is a file or a folder of any of the kinds in `formats`, with `[part]` behind it a sheet or a split of it;
`packaged:bbc-news`; or a data set of the Hub: `name`, `name:configuration`, `name[split]`. It is opened as a table,
its columns are chosen, and its rows become texts and class names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rankwise.config import Data
from rankwise.data import archives, formats, hub, labels, opening
from rankwise.data.classes import declared
from rankwise.data.cleaning import PAIR
from rankwise.data.columns import Columns, choose, id_column
from rankwise.data.hub import NAME
from rankwise.data.labels import Label
from rankwise.data.opening import existing, split_part
from rankwise.data.table import Reading, Table
from rankwise.data.text import joined, mended
from rankwise.errors import UserError, listed, nearest

_UNLABELLED = "unlabelled"
_NO_CLASS = -1
"""what `datasets` has in a column of a ClassLabel where there is no label"""
# What programs write for no value. As a class it may be meant (a country, an answer): it is told, not taken.
_MISSING_WORDS = ("nan", "NaN", "NULL", "null", "NA", "N/A", "None", "<NA>", "#N/A")


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
    is_list = isinstance(data.label, list)
    if is_list and not data.multi_label:
        raise UserError(
            "data.label names several columns: with data.multi_label=true each is a label of 0 and 1; "
            "otherwise name the one column of classes"
        )
    columns = _columns(table, data)
    rows = _Rows(table, data, columns, role).read()
    return _labelled(rows, table, data, columns, role)


def open_table(source: str, data: Data, role: str) -> Table:
    """The table of a role's source.

    Raises `UserError` when there is none, or it cannot be read.
    """
    if source.startswith("packaged:"):
        return hub.packaged_table(source, data.exclude)
    name, part = split_part(source)
    path = Path(name).expanduser()
    reading = reading_of(data, role)
    if path.is_dir():
        return formats.open_folder(path, part, reading, data.exclude)
    if path.exists():
        return formats.open_file(path, part, reading)
    matched = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if set(name) & {"*", "?"} else []
    if matched:
        return formats.open_matched(matched, name, reading)
    is_file = path.suffix.lower() in (*formats.SUFFIXES, *opening.PICKLE_SUFFIXES, *opening.PACKED_SUFFIXES)
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
    """Texts, ids and label cells of a table; each different label cell is kept once, with its first place."""

    def __init__(self, table: Table, data: Data, columns: Columns, role: str) -> None:
        self.table = table
        self.role = role
        self.pair = data.pair
        self.refuses_empty = data.empty == "refuse"
        self.text = columns.text
        self.label = list(data.label) if isinstance(data.label, list) else [columns.label]
        self.several = isinstance(data.label, list)
        self.identifier = id_column(table.columns)
        if self.identifier in (*self.text, *self.label):
            self.identifier = None
        self.texts: list[str] = []
        self.ids: list[Any] = []
        self.codes: list[int] = []
        self.cells: list[Any] = []
        self.places: list[str] = []
        self.counts: list[int] = []
        self.empty = 0
        self.first_empty = ""
        self.mended = 0

    def read(self) -> _Rows:
        """Take in every row."""
        table = self.table
        width = len(self.text)
        names = [*self.text, *self.label, *([self.identifier] if self.identifier else [])]
        known: dict[Any, int] = {}
        is_train = self.role == "train"
        number = -1
        for cells in table.rows(names):
            number += 1
            text = cells[0]
            if width > 1 or type(text) is not str or not _is_plain(text):
                text = self._text(cells[:width])
            if not text:
                self.empty += 1
                if is_train:
                    if any(cell is not None and str(cell).strip() for cell in cells[width : width + len(self.label)]):
                        self.first_empty = self.first_empty or table.where()
                    continue  # without a label either it is a blank row and asks for nothing
            cell = cells[width : width + len(self.label)] if self.several else cells[width]
            key = cell if type(cell) is str else _key(cell)
            code = known.get(key)
            if code is None:
                code = known[key] = len(known)
                self.cells.append(cell)
                self.places.append(table.where())
                self.counts.append(0)
            self.counts[code] += 1
            self.texts.append(text or (PAIR if self.pair else text))
            self.codes.append(code)
            self.ids.append(cells[-1] if self.identifier else number)
        if number < 0:
            raise UserError(f"{table.name} is empty: it has columns but no rows")
        if self.first_empty and self.refuses_empty:
            raise UserError(
                f"{self.first_empty} has no text (empty, null or NaN), as {self.empty:,} of {number + 1:,} rows: fill it "
                "in, or leave such rows out with data.empty=drop"
            )
        if not self.texts:
            raise UserError(
                f"{table.name} has no text in {' or '.join(map(repr, self.text))}: each of its rows is empty"
            )
        self.rows = number + 1
        return self

    def _text(self, cells: Sequence[Any]) -> str:
        text = joined(cells, self.table.where, pair=self.pair)
        whole = mended(text)
        self.mended += whole is not text
        return whole


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


# --- labels -------------------------------------------------------------------------------------------


def _labelled(rows: _Rows, table: Table, data: Data, columns: Columns, role: str) -> Source:
    """The source of rows, once their label cells are class names."""
    scheme = _Scheme(rows, table, data, columns.label)
    by_code = scheme.labels()
    kept = [row for row, code in enumerate(rows.codes) if by_code[code] is not None]
    if not kept:
        raise UserError(f"{table.name} has no label in '{columns.label}': each of its rows is empty")
    is_whole = len(kept) == len(rows.codes)
    found = [by_code[code] for code in rows.codes]
    chosen = [label for label in found if label is not None]
    counts = Counter(name for label in chosen for name in label)
    notes = [*table.notes, *scheme.notes, *_row_notes(rows, role)]
    if role == "train":
        notes += _class_notes(counts, columns, len(chosen), table.name, data.multi_label)
    fixed = table.has_fixed_columns
    resolved = msgspec.structs.replace(
        data,
        text=data.text if fixed else (columns.text[0] if len(columns.text) == 1 else list(columns.text)),
        label=data.label if fixed or isinstance(data.label, list) else columns.label,
        label_separator=scheme.separator if data.multi_label else data.label_separator,
        classes=scheme.resolved(),
    )
    line = table.line_of(rows.rows)
    return Source(
        texts=rows.texts if is_whole else [rows.texts[row] for row in kept],
        labels=chosen,
        ids=rows.ids if is_whole else [rows.ids[row] for row in kept],
        classes=scheme.classes,
        where=table.name,
        data=resolved,
        line=f"{line}; {columns.reason}" if columns.reason else line,
        notes=tuple(notes),
    )


class _Scheme:
    """How the label cells of a source become class names."""

    def __init__(self, rows: _Rows, table: Table, data: Data, column: str) -> None:
        self._rows = rows
        self._table = table
        self._data = data
        self._column = column
        self.notes: list[str] = []
        self.separator = data.label_separator or labels.SEPARATORS[0]
        self.names: tuple[str, ...] | None = tuple(rows.label) if rows.several else table.class_names.get(column)
        self.numbers: labels.Numbers | None = None
        self._width = 0
        self._of_one: bool | None = None
        given = declared(data)
        if data.multi_label and not rows.several:
            self._several(data)
        elif not rows.several and labels.are_lists(rows.cells):
            self._of_one = all(len(labels.items(cell, self.separator) or ()) < 2 for cell in rows.cells)
        if self._of_one is False and rows.role == "train":
            raise UserError(
                f"{rows.places[0]} holds a list in '{column}', as every row does: with data.multi_label=true a text may "
                "carry several labels"
            )
        if isinstance(given, dict):
            self.names, self.numbers = tuple(given.values()), given
        elif given is not None:
            self.names = tuple(given)
        if self.names is not None and self.numbers is None:
            self.numbers = labels.numbered(self.names, rows.cells if rows.role == "train" else ())
        if self._width and self.names is None:
            self.names = tuple(map(str, range(self._width)))
            self.notes.append(
                f"{table.name}: '{column}' holds lists of {self._width} zeros and ones, read as one place a label; "
                "data.classes=[NAME,...] names them in order"
            )
        if self._width and len(self.names or ()) != self._width:
            raise UserError(
                f"{table.name}: '{column}' holds lists of {self._width} zeros and ones, and data.classes names "
                f"{len(self.names or ())} classes"
            )

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that are declared and not left out."""
        return None if self.names is None else tuple(name for name in self.names if name not in self._data.exclude)

    def resolved(self) -> list[str] | dict[str, str] | None:
        """`data.classes` for the run's record: an order once declared holds for every file it meets."""
        if self.numbers is None:
            return list(self.names) if self.names is not None else None
        from_zero = list(self.numbers) == list(map(str, range(len(self.numbers))))
        return list(self.numbers.values()) if from_zero else dict(self.numbers)

    def _several(self, data: Data) -> None:
        """Find the separator of several labels a cell, or that they are multi-hot lists."""
        cells = [cell for cell in self._rows.cells if not self._is_missing(cell)]
        self._width = labels.multi_hot_width(cells, self.separator) if cells else 0
        if data.label_separator is None and not self._width:
            self.separator = labels.separator_of(cells, f"the column '{self._column}'")

    def _is_missing(self, cell: Any) -> bool:
        if cell is None or cell != cell or (cell == _NO_CLASS and self._column in self._table.class_names):
            return True
        return isinstance(cell, str) and cell.strip() in self._data.missing

    def labels(self) -> list[Label | None]:
        """The label of each different cell; None for rows that are left out."""
        found = [self._label(code, cell) for code, cell in enumerate(self._rows.cells)]
        found = self._without_unlabelled(found)
        found = self._one_truth(found)
        return self._without_excluded(found)

    def _label(self, code: int, cell: Any) -> Label | None:
        if self._is_missing(cell):
            return None
        try:
            if self._rows.several:
                return labels.of_bits(cell, self._rows.label)
            if self._width:
                return labels.of_bits(labels.items(cell, self.separator) or [], self.names or ())
            if self._data.multi_label:
                return labels.names_of(cell, self.numbers, self.separator)
            name = labels.name_of(labels.items(cell, self.separator) if self._of_one else cell, self.numbers)
        except ValueError as error:
            raise UserError(f"{self._rows.places[code]} {error}") from error
        return None if name is None else (name,)

    def _without_unlabelled(self, found: list[Label | None]) -> list[Label | None]:
        absent = [code for code, label in enumerate(found) if label is None]
        if not absent:
            return found
        count = sum(self._rows.counts[code] for code in absent)
        rows = f"{count:,} row{'s' if count > 1 else ''}"
        if self._data.unlabelled == "refuse":
            raise UserError(
                f"{self._rows.places[absent[0]]} has no label in '{self._column}', one of {rows}: fill them in, or "
                "leave them out with data.unlabelled=drop"
            )
        if self._data.unlabelled == "keep":
            self.notes.append(f"{rows} without a label in '{self._column}' are the class '{_UNLABELLED}'")
            return [label if label is not None else (_UNLABELLED,) for label in found]
        self.notes.append(
            f"{rows} of {self._rows.role} without a label in '{self._column}' left out (data.unlabelled decides)"
        )
        return found

    def _one_truth(self, found: list[Label | None]) -> list[Label | None]:
        counts: Counter[str] = Counter()
        for code, label in enumerate(found):
            for name in label or ():
                counts[name] += self._rows.counts[code]
        spelled = labels.truth_spellings(counts)
        return [label and tuple(spelled.get(name, name) for name in label) for label in found] if spelled else found

    def _without_excluded(self, found: list[Label | None]) -> list[Label | None]:
        left_out = set(self._data.exclude)
        if not left_out:
            return found
        self._check_excluded({name for label in found for name in label or ()})
        if self._data.multi_label:
            return [None if label is None else tuple(n for n in label if n not in left_out) for label in found]
        return [None if label and label[0] in left_out else label for label in found]

    def _check_excluded(self, there: set[str]) -> None:
        """A class of training that is left out must be one: a misspelt name would leave it in."""
        known = there | self._table.left_out | set(self.names or ())
        absent = next((name for name in self._data.exclude if name not in known), None)
        if absent is not None and self._rows.role == "train":
            raise UserError(
                f"data.exclude: {self._table.name} has no class '{absent}'{nearest(absent, known)}: its classes are "
                f"{listed(sorted(known), 10)}"
            )


def _row_notes(rows: _Rows, role: str) -> list[str]:
    notes = []
    if rows.empty:
        count = f"{rows.empty:,} row{'s' if rows.empty > 1 else ''}"
        fate = "left out" if role == "train" else "kept: they get the answer of an empty text"
        notes.append(f"{count} of {role} without a text {fate}")
    if rows.mended:
        notes.append(f"{rows.mended:,} texts of {role} held half a character (a lone surrogate), now U+FFFD")
    return notes


def _class_notes(counts: Counter[str], columns: Columns, rows: int, where: str, is_multi_label: bool) -> list[str]:
    """What the user should know of the classes; refuses a column that is no class at all."""
    notes = labels.alike(counts)
    words = [name for name in counts if name in _MISSING_WORDS]
    if words:
        shown = ", ".join(f"'{word}' ({counts[word]:,} rows)" for word in words)
        notes.append(f"the class {shown} may stand for a missing value: data.missing=[{words[0]}] reads it as none")
    several = None if is_multi_label else labels.may_be_several(counts)
    if several is not None:
        notes.append(f"the class '{several}' may be several labels: data.multi_label=true reads them so")
    truths = [name for name in counts if name.lower() in ("true", "false")]
    others = [name for name in counts if name in ("0", "1")]
    if truths and others:
        notes.append(f"the classes {', '.join(map(repr, sorted(truths + others)))} are in one column: write one kind")
    if len(counts) == rows >= 10:
        raise UserError(
            f"{where}: '{columns.label}' has another value in each of its {rows:,} rows, which is no class: name the "
            "label column with data.label"
        )
    if 2 * len(counts) > rows >= 20:
        notes.append(f"'{columns.label}' has {len(counts):,} classes in {rows:,} rows: is it the label?")
    if columns.other_texts:
        both = ",".join((*columns.text, columns.other_texts[0]))
        shown = " and ".join(map(repr, columns.other_texts[:3]))
        notes.append(
            f"{shown} read{'s' if len(columns.other_texts) == 1 else ''} as text too: data.text=[{both}] takes both"
        )
    if columns.others:
        notes.append(f"the label is '{columns.label}'; {', '.join(map(repr, columns.others[:6]))} would do too")
    return notes
