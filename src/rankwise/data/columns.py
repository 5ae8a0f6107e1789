"""Which columns are the text, the label and the id, where nobody has said; and why.

Names decide first. Failing those, the longest strings are the text, and the column of few values that come
again is the label. Where two would do, the name decides and the other is told; where no name does, it is a
question. A column that counts the rows is neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rankwise.data.table import Table
from rankwise.errors import UserError, listed

LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "topic", "sentiment", "intent", "class_index", "class index"),
    *("polarity", "rating", "overall", "stars", "score", "y", "tag", "gold_label"),
)
TEXT_NAMES = (
    *("text", "content", "body", "sentence", "review", "message", "description", "document", "article", "comment"),
    *("tweet", "question", "utterance", "query", "comment_text", "review_text", "texts"),
)
TITLE_NAMES = ("title", "headline", "subject")
TEXTS_NAMES = (
    *(
        "patterns",
        "utterances",
        "examples",
        "phrases",
        "training_phrases",
        "texts",
        "sentences",
        "questions",
        "queries",
    ),
    *("samples", "messages", "comments", "reviews", "documents", "tweets"),
)
"""of columns that hold a list of texts each"""
_ID = "id"
_NAMES_ROWS = re.compile(r"[_\- ][iI][dD]$|ID$|[a-z]Id$")
"""Ends of names such as review_id, Review ID and PhraseId."""
_SHOWN = 8
_FEW = 5
"""A label comes again: a column has at most one value for every so many rows; of a handful of rows, for every two."""
_HANDFUL = 50
_PAIRED = (("premise", "hypothesis"), ("1", "2"), ("_a", "_b"))
_NUMBER = re.compile(r"\s*[-+]?\d[\d.,]*\s*")


@dataclass(frozen=True)
class Columns:
    """What was chosen.

    Attributes:
        reason: one sentence on what was chosen by what, None where the user named both.
        others, other_texts: columns that would do as the label and as the text too.
    """

    text: tuple[str, ...]
    label: str
    reason: str | None = None
    others: tuple[str, ...] = ()
    other_texts: tuple[str, ...] = ()


def is_known(name: str) -> bool:
    """Whether a word is what people call a column of texts, labels or ids."""
    return name.strip().lower() in (*LABEL_NAMES, *TEXT_NAMES, *TITLE_NAMES, _ID)


def id_column(columns: Sequence[str]) -> str | None:
    """The column that holds row ids: `id` in any case."""
    return next((column for column in columns if column.strip().lower() == _ID), None)


def row_ids(table: Table) -> str | None:
    """The column of a file to predict that names its rows: `id`, or one whose name ends so and whose cells never repeat."""
    named = id_column(table.columns)
    if named is not None:
        return named
    unique = [name for name in table.columns if _NAMES_ROWS.search(name.strip()) and _never_repeats(table, name)]
    return unique[0] if len(unique) == 1 else None


def _never_repeats(table: Table, column: str) -> bool:
    if table.columns.count(column) > 1:
        return False
    cells = [row[0] for row in table.sample([column])]
    return None not in cells and len(set(map(str, cells))) == len(cells)


def choose(table: Table, text: Sequence[str] | None, label: str | None, *, pair: bool = False) -> Columns:
    """The text and label columns of a table.

    Args:
        text, label: what the user named, or None.
        pair: whether the text is two columns.

    Raises `UserError` for a named column that is missing, and where nothing or too much would do.
    """
    if text:
        table.require(text, "data.text")
    if label is not None:
        table.require([label], "data.label")
    if text and label is not None:
        return Columns(tuple(text), label)
    names = table.telling_columns()
    found = tuple(text or table.declared_text) or _text_by_name([name for name in names if name != label])
    by_name = label or table.declared_label or _named(names, LABEL_NAMES)
    if label is None and by_name in found:
        by_name = None
    kinds = _Kinds(table, names)
    why = []
    declares = "as its header declares"
    both = kinds.pair() if not text and (pair or not found) else ()
    if both and not pair:
        raise UserError(
            f"{table.name} has two texts a row, '{both[0]}' and '{both[1]}': data.text=[{','.join(both)}] data.pair=true reads "
            f"them as a pair, data.text={both[0]} the first alone"
        )
    found = both or found
    if not found:
        found = (kinds.longest(table, exclude=by_name),)
        why.append(f"text is '{found[0]}' (the longest strings)")
    elif not text:
        why.append(f"text is {' and '.join(map(repr, found))} ({declares if table.declared_text else 'by name'})")
    likely = [name for name in kinds.labels() if name not in found] if label is None else []
    how = declares if table.declared_label else "by name"
    if by_name is None:
        by_name = _only(table, kinds, likely)
        how = f"{kinds.values(by_name)} values that come again"
    if label is None:
        why.append(f"label is '{by_name}' ({how})")
    others = tuple(name for name in likely if name != by_name)
    other_texts = () if text else kinds.beside(found, by_name)
    return Columns(found, by_name, "; ".join(why), others, other_texts)


def find_text(table: Table) -> tuple[str, ...]:
    """The text columns of a table without labels."""
    names = table.telling_columns()
    return table.declared_text or _text_by_name(names) or (_Kinds(table, names).longest(table, exclude=None),)


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_lower = {part: name for name in reversed(names) if "." in name for part in reversed(name.lower().split("."))}
    by_lower |= {name.lower().strip(): name for name in names}
    return next((by_lower[word] for word in known if word in by_lower), None)


def _text_by_name(names: Sequence[str]) -> tuple[str, ...]:
    """The text column, with the title before it."""
    text, title = _named(names, TEXT_NAMES), _named(names, TITLE_NAMES)
    return tuple(name for name in (title, text) if name is not None)


def _only(table: Table, kinds: _Kinds, likely: Sequence[str]) -> str:
    """The one column that may be the label, or the only one of words among numbers; otherwise the question."""
    for candidates in (likely, [name for name in likely if not kinds.is_numeric(name)]):
        if len(candidates) == 1:
            return candidates[0]
    shown = table.shown_columns()
    twice = next((name for name in table.columns if name and table.columns.count(name) > 1), None)
    if not likely and twice is not None:
        table.require([twice], "data.label")
    if not likely:
        raise UserError(
            f"{table.name}: which column is the label? Its columns are {shown}, and none has few values that come "
            "again: name it with data.label=..."
        )
    if len(likely) > 1 and all(kinds.is_truth(name) for name in likely):
        raise UserError(
            f"{table.name}: which column is the label? {', '.join(map(repr, likely[:_SHOWN]))} hold 0 and 1: "
            f"data.label=[{','.join(likely)}] data.multi_label=true takes each as a label of its own, data.label={likely[0]} one"
        )
    two = listed([f"'{column}'" for column in likely], 4, " or ")
    raise UserError(
        f"{table.name}: which column is the label, {two}? Its columns are {shown}: name it with data.label=..."
    )


class _Kinds:
    """What the first rows say of each column."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        rows = table.sample(names) if names else []
        self.rows = len(rows)
        self.cells: dict[str, list[Any]] = {
            name: [row[place] for row in rows if row[place] is not None and row[place] != ""]
            for place, name in enumerate(names)
        }

    def values(self, column: str) -> int:
        """How many different values a column has."""
        return len(set(map(str, self.cells[column])))

    def length(self, column: str) -> float:
        """Characters of a cell, on average."""
        cells = self.cells.get(column, [])
        return sum(map(len, map(str, cells))) / max(1, len(cells))

    def is_numeric(self, column: str) -> bool:
        """Whether a column holds numbers alone."""
        return all(isinstance(cell, (int, float)) or _NUMBER.fullmatch(str(cell)) for cell in self.cells[column])

    def is_truth(self, column: str) -> bool:
        """Whether a column holds 0 and 1 alone, or false and true."""
        found = {str(cell).strip().lower().removesuffix(".0") for cell in self.cells[column]}
        return found in ({"0", "1"}, {"false", "true"})

    def reads_as_text(self, column: str) -> bool:
        """Whether most cells have a word beside another, or letters that are not ASCII; a link, a date and a code have not."""
        cells = self.cells[column]
        return 2 * sum(_is_prose(cell) for cell in cells if isinstance(cell, str)) > len(cells)

    def longest(self, table: Table, exclude: str | None) -> str:
        """The column of the longest strings, of those that hardly come again where there are such."""
        likely = [
            name
            for name, cells in self.cells.items()
            if name != exclude
            and all(isinstance(cell, str) for cell in cells)
            and self.length(name) >= 2
            and not _counts(cells)
        ]
        likely = list(filter(self.reads_as_text, likely)) or likely
        labels = self.labels()
        likely = [name for name in likely if name not in labels] or likely
        if not likely:
            raise UserError(
                f"{table.name}: which column is the text? Its columns are {table.shown_columns()}: "
                "name it with data.text=..."
            )
        return max(likely, key=self.length)

    def pair(self) -> tuple[str, ...]:
        """Two columns of texts whose names say that they belong together: premise and hypothesis, or 1 and 2 in one name."""
        by_lower = {name.strip().lower(): name for name in self.cells if not name.strip().isdigit()}
        for name in sorted(by_lower, key=len):
            for one, two in _PAIRED:
                both = (name, name.replace(one, two))
                if one in name and both[1] in by_lower and all(self.reads_as_text(by_lower[n]) for n in both):
                    return tuple(by_lower[n] for n in both)
        return ()

    def beside(self, text: Sequence[str], label: str) -> tuple[str, ...]:
        """Other columns whose cells read as texts, hardly come again and are at least half as long."""
        least = max(self.length(name) for name in text) / 2
        others = [name for name in self.cells if name not in (*text, label) and self.length(name) >= least]
        return tuple(name for name in others if 2 * self.values(name) > self.rows and self.reads_as_text(name))

    def labels(self) -> list[str]:
        """Columns of few values that come again."""
        limit = max(2, self.rows // (_FEW if self.rows >= _HANDFUL else 2))
        return [
            name
            for name, cells in self.cells.items()
            if 2 * len(cells) >= self.rows
            and name.strip().lower() != _ID
            and not isinstance(cells[0] if cells else None, dict)
            and 2 <= self.values(name) <= limit
            and max(len(str(cell)) for cell in cells) <= 100
            and not _counts(cells)
        ]


def _is_prose(cell: str) -> bool:
    letters = [word for word in cell.split() if any(map(str.isalpha, word)) and "://" not in word]
    return len(letters) > 1 or (bool(letters) and not cell.isascii())


def _counts(cells: Sequence[Any]) -> bool:
    """Whether a column counts its rows: whole numbers, each one more than the last."""
    try:
        numbers = [int(cell) for cell in cells]
    except (TypeError, ValueError, OverflowError):
        return False
    return len(numbers) > 2 and all(b - a == 1 for a, b in pairwise(numbers))
