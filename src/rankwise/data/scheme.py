"""How the label cells of a source become class names: one label or several, what numbers stand for, who is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.config import Data
from rankwise.data import labels
from rankwise.data.classes import declared
from rankwise.data.columns import Columns
from rankwise.data.labels import Label
from rankwise.data.table import Table
from rankwise.errors import UserError, counted, listed, nearest

_UNLABELLED = "unlabelled"
_NO_CLASS = -1
"""what `datasets` has in a column of a ClassLabel where there is no label"""
# What programs write for no value. As a class it may be meant (a country, an answer): it is told, not taken.
_MISSING_WORDS = ("nan", "NaN", "NULL", "null", "NA", "N/A", "None", "<NA>", "#N/A")


@dataclass
class Cell:
    """One of the different cells of a label column: what it holds, its first place, and how many rows have it."""

    value: Any
    place: str
    rows: int = 0


class Scheme:
    """How the label cells of a source become class names.

    Attributes:
        separator: what stands between several labels of a cell.
        names, numbers: the classes in their order and what numbers stand for, where they are declared.
        notes: what the user should know.
    """

    def __init__(self, cells: Sequence[Cell], table: Table, data: Data, columns: Columns, role: str) -> None:
        self._cells = cells
        self._table = table
        self._data = data
        self._column = columns.label
        self._role = role
        self.notes: list[str] = []
        self.separator = data.label_separator or labels.SEPARATORS[0]
        self._width = 0  # of multi-hot lists
        self._of_one = False
        given = declared(data)
        self.names = table.class_names.get(self._column)
        values = [cell.value for cell in cells]
        if isinstance(data.label, list):
            self.names = tuple(data.label)
        elif data.multi_label:
            self._find_separator()
        elif labels.are_lists(values):
            self._of_one = all(len(labels.items(value, self.separator) or ()) < 2 for value in values)
            if not self._of_one and role == "train":
                raise UserError(
                    f"{cells[0].place} holds a list in '{self._column}', as every row does: with data.multi_label=true a text "
                    "may carry several labels"
                )
        if given is not None:
            self.names = tuple(given.values() if isinstance(given, dict) else given)
        if self._width:
            self._name_places()
        self.numbers: labels.Numbers | None = given if isinstance(given, dict) else None
        if self.names is not None and self.numbers is None:
            self.numbers = labels.numbered(self.names, values if role == "train" else ())

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that are declared and not left out."""
        return None if self.names is None else tuple(name for name in self.names if name not in self._data.exclude)

    def resolved(self) -> list[str] | dict[str, str] | None:
        """`data.classes` for the run's record: an order once declared holds for every file it meets."""
        if self.numbers is None:
            return None
        from_zero = list(self.numbers) == list(map(str, range(len(self.numbers))))
        return list(self.numbers.values()) if from_zero else dict(self.numbers)

    def _find_separator(self) -> None:
        """What stands between several labels of a cell, or that cells are multi-hot lists."""
        values = [cell.value for cell in self._cells if not self._is_missing(cell.value)]
        self._width = labels.multi_hot_width(values, self.separator) if values else 0
        if self._data.label_separator is None and not self._width:
            self.separator = labels.separator_of(values, f"the column '{self._column}'")

    def _name_places(self) -> None:
        """The classes that the places of multi-hot lists stand for."""
        lists = f"{self._table.name}: '{self._column}' holds lists of {self._width} zeros and ones"
        if self.names is None:
            self.names = tuple(map(str, range(self._width)))
            self.notes.append(f"{lists}, read as one place a label; data.classes=[NAME,...] names them in order")
        if self._width != len(self.names):
            raise UserError(f"{lists}, and data.classes names {len(self.names)} classes")

    def _is_missing(self, value: Any) -> bool:
        if value is None or value != value or (value == _NO_CLASS and self._column in self._table.class_names):
            return True
        return isinstance(value, str) and value.strip() in self._data.missing

    def labels(self) -> list[Label | None]:
        """The label of each different cell; None for rows that are left out."""
        found = self._with_a_label([self._label(cell) for cell in self._cells])
        rows: Counter[str] = Counter()
        for cell, label in zip(self._cells, found, strict=True):
            rows.update(dict.fromkeys(label or (), cell.rows))
        if spelled := labels.truth_spellings(rows):
            found = [label and tuple(spelled.get(name, name) for name in label) for label in found]
        if not (left_out := set(self._data.exclude)):
            return found
        self._check_excluded({spelled.get(name, name) for name in rows})
        found = [label and tuple(name for name in label if name not in left_out) for label in found]
        # Without its class a row is none, unless a text may have no label.
        return found if self._data.multi_label else [label or None for label in found]

    def _label(self, cell: Cell) -> Label | None:
        if self._is_missing(cell.value):
            return None
        try:
            if isinstance(self._data.label, list):
                return labels.of_bits(cell.value, self._data.label)
            if self._width:
                return labels.of_bits(labels.items(cell.value, self.separator) or [], self.names or ())
            if self._data.multi_label:
                return labels.names_of(cell.value, self.numbers, self.separator)
            value = labels.items(cell.value, self.separator) if self._of_one else cell.value
            name = labels.name_of(value, self.numbers)
        except ValueError as error:
            raise UserError(f"{cell.place} {error}") from error
        return None if name is None else (name,)

    def _with_a_label(self, found: list[Label | None]) -> list[Label | None]:
        """What `data.unlabelled` makes of rows without one."""
        absent = [cell for cell, label in zip(self._cells, found, strict=True) if label is None]
        if not absent:
            return found
        rows = counted(sum(cell.rows for cell in absent), "row")
        if self._data.unlabelled == "refuse":
            raise UserError(
                f"{absent[0].place} has no label in '{self._column}', one of {rows}: fill them in, or "
                "leave them out with data.unlabelled=drop"
            )
        if self._data.unlabelled == "keep":
            self.notes.append(f"{rows} without a label in '{self._column}' are the class '{_UNLABELLED}'")
            return [label if label is not None else (_UNLABELLED,) for label in found]
        self.notes.append(
            f"{rows} of {self._role} without a label in '{self._column}' left out (data.unlabelled decides)"
        )
        return found

    def _check_excluded(self, there: set[str]) -> None:
        """A class of training that is left out must be one: a misspelt name would leave it in."""
        known = {*there, *self._table.left_out, *(self.names or ())}
        absent = next((name for name in self._data.exclude if name not in known), None)
        if absent is not None and self._role == "train":
            raise UserError(
                f"data.exclude: {self._table.name} has no class '{absent}'{nearest(absent, known)}: its classes are "
                f"{listed(sorted(known), 10)}"
            )


def class_notes(counts: Counter[str], columns: Columns, rows: int, where: str, is_multi_label: bool) -> list[str]:
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
