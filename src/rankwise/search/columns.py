"""Which columns of a file are the text and the label, when nobody has said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rankwise.data import files
from rankwise.errors import UserError

_LABELS = ("label", "labels", "class", "category", "target", "topic", "sentiment", "intent", "class_index", "y")
_TEXTS = (
    "text",
    "content",
    "body",
    "sentence",
    "review",
    "message",
    "description",
    "document",
    "article",
    "comment",
    "tweet",
    "question",
)
_TITLES = ("title", "headline", "subject")
_SAMPLE_ROWS = 500


def guess(source: str) -> tuple[str | list[str], str]:
    """The text column (or title and text) and the label column of a file; others have `text` and `label`.

    Names decide first; failing those, the longest strings are the text and the column of fewest values the label.

    Raises: UserError when no column could be the one or the other.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        return "text", "label"
    table = files.open_table(path)
    columns = list(table.columns)
    label = _named(columns, _LABELS)
    text = _named(columns, _TEXTS)
    title = _named(columns, _TITLES)
    text = text or title
    if label is None or text is None:
        text, label = _by_content(table, columns, text, label)
    if text is None or label is None:
        missing = "text" if text is None else "label"
        raise UserError(
            f"{path}: which column is the {missing}? Its columns are {', '.join(columns)}: name it with data.{missing}=..."
        )
    return ([title, text] if title and title != text else text), label


def _named(columns: Sequence[str], known: Sequence[str]) -> str | None:
    by_lower = {column.lower().strip(): column for column in columns}
    return next((by_lower[name] for name in known if name in by_lower), None)


def _by_content(
    table: Any, columns: Sequence[str], text: str | None, label: str | None
) -> tuple[str | None, str | None]:
    """What names left open, by the values of the first rows."""
    rows = list(islice(table.rows(columns), _SAMPLE_ROWS))
    values = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
    lengths = {
        column: sum(map(len, cells)) / len(cells)
        for column, cells in values.items()
        if cells and column != label and all(isinstance(cell, str) for cell in cells)
    }
    text = text or max(lengths, key=lambda column: lengths[column], default=None)
    kinds = {
        column: len(set(map(str, cells)))
        for column, cells in values.items()
        if column != text and column.lower() != "id" and 2 <= len(set(map(str, cells))) <= max(2, len(rows) // 5)
    }
    return text, label or min(kinds, key=lambda column: kinds[column], default=None)
