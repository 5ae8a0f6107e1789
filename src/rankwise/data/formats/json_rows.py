"""JSON in its several shapes: an object a line, an array of rows, rows by split, and columns.

Which it is, the content says and not the ending: `to_json` of more than one library writes JSON Lines into a
.json file. Rows are read one at a time, of a document too, unless it holds whole columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec

from rankwise.data import encoding
from rankwise.data.columns import TEXT_NAMES, TEXTS_NAMES, is_known
from rankwise.data.encoding import Look
from rankwise.data.formats import endings
from rankwise.data.formats.json_exports import export_of
from rankwise.data.formats.json_shapes import Outline, Shape, outline, rows_of, shape_of
from rankwise.data.formats.json_walk import Walk
from rankwise.data.opening import MAX_LINE_CHARS, Opener
from rankwise.data.table import SAMPLE_ROWS, SPLIT_NAMES, Reading, Table
from rankwise.errors import UserError

_LOOKED_AHEAD = 1 << 16
_PAIR = ("text", "label")
_EXPECTED = 'expected an object such as {"text": ..., "label": ...}'


def open_json(file: Opener, reading: Reading) -> Table:
    """The table of a JSON file, by its content."""
    look = encoding.look(file, reading.encoding, in_lines=False)
    with look.text() as text:
        lines = iter(lambda: text.readline(MAX_LINE_CHARS), "")  # as far as a row may be long
        first = next((line for line in lines if line.strip()), "")
        has_more = first.endswith(("\n", "\r")) and bool(text.read(_LOOKED_AHEAD).strip())
    if not first:
        raise UserError(f"{file.path} is empty: expected one JSON object a line, or an array of them")
    try:
        value = _decoded(first, msgspec.json.Decoder().decode)
    except (ValueError, RecursionError):
        value = None
    is_row = isinstance(value, dict) and (has_more or not _is_document(value))
    is_no_json = value is None and not first.lstrip().startswith(("[", "{"))
    if is_row or is_no_json or file.suffix in endings.JSON_LINES:
        look.refuse_long_line()
        return JsonLines(look, reading)
    return JsonDocument(look, reading)


def _decoded(line: str, decode: Any) -> Any:
    """A JSON value; NaN and halves of characters, which msgspec refuses, are read as Python's module reads them."""
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(line)


def _is_document(value: Mapping[str, Any]) -> bool:
    """Whether an object is a whole data set and not one row: it holds lists of rows, or columns, and no text itself."""
    if any(isinstance(cell, str) and is_known(name) for name, cell in value.items()):
        return False
    holds_rows = any(map(_holds_rows, value.values()))
    holds_more = any(isinstance(cell, (list, dict)) and cell for cell in value.values())
    return holds_rows or (holds_more and not any(isinstance(cell, str) for cell in value.values()))


def _holds_rows(value: Any) -> bool:
    """Whether a value is a list of rows, or an object around one."""
    if isinstance(value, dict):
        return any(map(_holds_rows, value.values()))
    return isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list))


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the objects inside: what they hold stands under `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, cell in record.items():
        inside = _flat(cell) if isinstance(cell, dict) else {}
        flat |= {f"{name}.{inner}": value for inner, value in inside.items()} if inside else {name: cell}
    return flat


def _lists_of_texts(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The keys that hold a list of texts in every row, where none holds a text: a chatbot's intents with their examples.

    Texts hardly come again, and some have more than one word; a list of words is a text, and one of labels comes again.
    """
    found = []
    for name in names:
        cells = [row[name] for row in rows if row.get(name)]
        if cells and isinstance(cells[0], str) and name.lower() in TEXT_NAMES:
            return []
        texts = [text for cell in cells for text in cell] if all(isinstance(cell, list) for cell in cells) else []
        are_texts = all(isinstance(text, str) for text in texts) and any(" " in text.strip() for text in texts)
        if are_texts and 2 * len(set(texts)) > len(texts) > len(cells):
            found.append(name)
    return found


def _meant(source: str, lists: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Which of several lists holds the texts: the one that is asked for, or that is called so; None where a text is named.

    Raises: UserError where it is neither.
    """
    asked = [name for name in lists if name in wanted]
    known = sorted((name for name in lists if name.lower() in TEXTS_NAMES), key=lambda n: TEXTS_NAMES.index(n.lower()))
    likely = asked or known or (list(lists) if len(lists) == 1 else [])
    if likely or wanted:
        return likely[0] if likely else None
    shown = " or ".join(map(repr, lists[:4]))
    raise UserError(
        f"{source}: which list holds the texts, {shown}? Name it with data.text={lists[0]}: each of its texts is a row then"
    )


def _are_labels_first(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether pairs are a label and a text: the first comes again and the second hardly does."""
    if not all(tuple(row) == _PAIR and isinstance(row["label"], str) for row in rows):
        return False
    firsts, seconds = ({str(row[name]) for row in rows} for name in _PAIR)
    return 2 * len(firsts) <= len(rows) < 2 * len(seconds)


class _Rows(Table):
    """Rows that are objects, any of whose keys may be absent."""

    _row: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """what makes a row of an object that is none"""
    _pair = _PAIR
    """the columns of rows that are lists of two"""
    _spread: str | None = None
    """the key whose list of texts is a row for each of them"""

    def __init__(self, look: Look, kind: str) -> None:
        super().__init__(str(look.file.path))
        self._look = look
        self.facts = [kind, *([look.name] if look.name != "UTF-8" else [])]
        self.notes += look.notes

    def _values(self) -> Iterator[Any]:
        """The rows as the file has them."""
        raise NotImplementedError

    def _records(self) -> Iterator[Mapping[str, Any]]:
        return map(self._record, self._values())

    def _record(self, row: Any) -> Mapping[str, Any]:
        if isinstance(row, dict):
            return row
        if isinstance(row, str):
            return {_PAIR[0]: row}
        if isinstance(row, list) and len(row) == len(_PAIR) and any(isinstance(cell, str) for cell in row):
            return dict(zip(self._pair, row, strict=True))
        place = f", line {self.line:,}" if self.line else ""
        raise UserError(f"{self.name}{place} holds {repr(row)[:60]} as a row, {_EXPECTED} or [text, label]")

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        rows = self._records() if self._row is None else map(self._row, self._records())
        spread = self._spread
        for record in rows:
            # The rows of one object stand one after the other.
            for row in (record,) if spread is None else ({**record, spread: text} for text in record.get(spread) or ()):
                self.row += 1
                yield tuple([row.get(name) for name in names])

    def _columns(self, reading: Reading) -> tuple[str, ...]:
        """The keys of the first rows, in the order they come; those of an object inside one as `outer.inner`."""
        first = list(islice(self._records(), SAMPLE_ROWS))
        if _are_labels_first(first):
            self._pair = _PAIR[::-1]
            first = list(islice(self._records(), SAMPLE_ROWS))
        export = export_of(first)
        if export is not None:
            self._row = export.row
            self.facts.append(export.name)
        elif any(isinstance(cell, dict) for record in first for cell in record.values()):
            self._row = _flat
        first = list(map(self._row, first)) if self._row else first
        keys = dict.fromkeys(key for record in first for key in record)
        lists = _lists_of_texts(first, list(keys)) if reading.labelled else []  # of texts to predict a row is a row
        self._spread = _meant(self.name, lists, reading.wanted) if lists else None
        if self._spread is None:
            return tuple(keys)
        self.facts.append(f"a row for each of '{self._spread}'")
        return tuple(key for key in keys if key == self._spread or key not in lists)


class JsonLines(_Rows):
    """One JSON object a line."""

    def __init__(self, look: Look, reading: Reading) -> None:
        super().__init__(look, "JSON Lines")
        self.columns = self._columns(reading)

    def _values(self) -> Iterator[Any]:
        decode = msgspec.json.Decoder().decode
        self.line = 0
        with self._look.text() as text:
            for line in text:
                self.line += 1
                if line.isspace():
                    continue
                try:
                    value = _decoded(line, decode)
                except ValueError as error:
                    raise UserError(f"{self.name}, line {self.line:,} is not JSON: {error}") from error
                yield value


class JsonDocument(_Rows):
    """One value of rows: an array, an object of arrays by split, of rows by key, or of columns."""

    def __init__(self, look: Look, reading: Reading) -> None:
        super().__init__(look, "JSON")
        self._shape = self._found(look.file.part, reading)
        if self._shape.path:
            key = self._shape.path[-1]
            self.facts.append(f"split '{key}'" if key in SPLIT_NAMES else f"under '{key}'")
        self.columns = self._columns(reading)
        if not self.columns:
            raise UserError(f"{self.name} is empty: it has no rows")

    @contextmanager
    def _walk(self, path: Sequence[str] = ()) -> Iterator[Walk]:
        """A walk that stands before the value at a path of keys."""
        with self._look.text() as text:
            walk = Walk(text, self.name)
            for wanted in path:
                for key in walk.fields():
                    if key == wanted:
                        break
                    walk.skip()
            yield walk

    def _found(self, part: str | None, reading: Reading) -> Shape:
        path: tuple[str, ...] = ()
        while True:
            with self._walk(path) as walk:
                opening = walk.next()
                if opening == "[":
                    return Shape("rows", path)
                if opening != "{":
                    raise UserError(f"{self.name} holds {repr(walk.value())[:40]}, expected rows")
                whole = outline(walk)
                if not path and walk.next() == "{":
                    return Shape("one after the other")
                if not path:
                    walk.end()
            if (shape := shape_of(whole)) is not None:
                return replace(shape, path=path)
            # One object around all others is not what a part names, unless it is called so.
            around = part is not None and part not in whole.members and whole.count == 1
            path = (*path, self._split(whole, None if around else part, reading))
            part = part if around else None

    def _split(self, whole: Outline, part: str | None, reading: Reading) -> str:
        """The key of the rows that the role needs."""
        splits = [name for name, member in whole.members.items() if member.kind != "value" and member.count]
        split = part or reading.split_in(splits)
        arrays = [name for name in splits if whole.members[name].kind == "array"]
        of_texts = [name for name in arrays if whole.members[name].holds_rows_of_texts]
        for likely in (arrays, of_texts, splits):
            if split is None and len(likely) == 1:
                (split,) = likely
        if split is None or split not in splits:
            raise UserError(
                f"{self.name} has {reading.no_split(part, splits)}: it holds "
                f"{', '.join(map(repr, list(whole.members)[:10]))}; "
                f"name one, as in {self.name}[{next(iter(splits), 'train')}]"
            )
        return split

    def _values(self) -> Iterator[Any]:
        with self._walk(self._shape.path) as walk:
            yield from rows_of(walk, self._shape)
            if not self._shape.path:
                walk.end()
