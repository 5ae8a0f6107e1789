"""JSON in its several shapes: an object a line, an array of rows, rows by split, and columns.

Which it is, the content says and not the ending: `to_json` of more than one library writes JSON Lines into a
.json file. Lines are read one at a time; a document is read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from rankwise.data import encoding
from rankwise.data.encoding import Look
from rankwise.data.formats.dialect import text_of
from rankwise.data.opening import Opener
from rankwise.data.table import SAMPLE_ROWS, Reading, Table
from rankwise.errors import UserError, nearest

SUFFIXES = (".json", ".jsonl", ".ndjson")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing", "eval"),
}
"""What the splits of a role are called."""
_PAIR = ("text", "label")
_EXPECTED = 'expected an object such as {"text": ..., "label": ...}'


def open_json(file: Opener, reading: Reading) -> Table:
    """The table of a JSON file, by its content."""
    look = encoding.look(file, reading.encoding)
    decode = msgspec.json.Decoder().decode
    with text_of(file, look) as text:
        first = next((line for line in text if line.strip()), "")
        has_more = any(line.strip() for line in text)
    if not first:
        raise UserError(f"{file.path} is empty: expected one JSON object a line, or an array of them")
    try:
        value = _decoded(first, decode)
    except ValueError:
        value = None
    is_lines = isinstance(value, dict) and (has_more or not _is_document(value))
    if (
        is_lines
        or (value is None and not first.lstrip().startswith(("[", "{")))
        or file.suffix in (".jsonl", ".ndjson")
    ):
        return JsonLines(file, look)
    return JsonDocument(file, look, reading)


def _decoded(line: str, decode: Any) -> Any:
    """A JSON value; NaN and halves of characters, which msgspec refuses, are read as Python's module reads them."""
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(line)


def _is_document(value: Mapping[str, Any]) -> bool:
    """Whether an object is a whole data set and not one row: it holds lists of rows, or columns."""
    return any(isinstance(cell, (list, dict)) and cell for cell in value.values()) and not any(
        isinstance(cell, str) for cell in value.values()
    )


class _Rows(Table):
    """Rows that are objects, any of whose keys may be absent."""

    def _records(self) -> Iterator[Mapping[str, Any]]:
        raise NotImplementedError

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        for record in self._records():
            self.row += 1
            yield tuple([record.get(name) for name in names])

    def _columns(self) -> tuple[str, ...]:
        """The keys of the first rows, in the order they come."""
        keys: dict[str, None] = {}
        for record, _ in zip(self._records(), range(SAMPLE_ROWS), strict=False):
            keys.update(dict.fromkeys(record))
        return tuple(keys)


class JsonLines(_Rows):
    """One JSON object a line."""

    def __init__(self, file: Opener, look: Look) -> None:
        super().__init__(str(file.path))
        self._file = file
        self._look = look
        self.facts = ["JSON Lines", *([look.name] if look.name != "UTF-8" else [])]
        self.columns = self._columns()

    def _records(self) -> Iterator[Mapping[str, Any]]:
        decode = msgspec.json.Decoder().decode
        self.line = 0
        with text_of(self._file, self._look) as text:
            for line in text:
                self.line += 1
                if line.isspace():
                    continue
                try:
                    record = _decoded(line, decode)
                except ValueError as error:
                    raise UserError(f"{self.name}, line {self.line:,} is not JSON: {error}") from error
                if not isinstance(record, dict):
                    raise UserError(
                        f"{self.name}, line {self.line:,} holds a {type(record).__name__}, "
                        'expected an object such as {"text": ..., "label": ...}'
                    )
                yield record

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        known = set(self.columns)
        for record in self._records():
            self.row += 1
            try:
                yield tuple([record[name] for name in names])
            except KeyError as error:
                if error.args[0] not in known:
                    keys = ", ".join(f"'{key}'" for key in record)
                    raise UserError(f"{self.where()} has no key {error}: its keys are {keys}") from error
                yield tuple([record.get(name) for name in names])


class JsonDocument(_Rows):
    """An array of rows, an object of such arrays by split, or an object of columns."""

    def __init__(self, file: Opener, look: Look, reading: Reading) -> None:
        super().__init__(str(file.path))
        with text_of(file, look) as text:
            content = text.read()
        try:
            document = _decoded(content, msgspec.json.Decoder().decode)
        except ValueError as error:
            raise UserError(f"{self.name} is not JSON: {error}") from error
        self.facts = ["JSON"]
        rows = self._rows_of(document, file.part, reading)
        self._all = [self._record(row) for row in rows]
        if not self._all:
            raise UserError(f"{self.name} is empty: it has no rows")
        self.columns = self._columns()

    def _records(self) -> Iterator[Mapping[str, Any]]:
        yield from self._all

    def _record(self, row: Any) -> Mapping[str, Any]:
        if isinstance(row, dict):
            return row
        if isinstance(row, list) and len(row) == len(_PAIR):
            return dict(zip(_PAIR, row, strict=True))
        raise UserError(f"{self.name} holds {repr(row)[:60]} as a row, {_EXPECTED} or [text, label]")

    def _rows_of(self, document: Any, part: str | None, reading: Reading) -> Sequence[Any]:
        """The rows of a document."""
        if isinstance(document, list):
            return document
        if not isinstance(document, dict):
            raise UserError(f"{self.name} holds a {type(document).__name__}, expected rows")
        columns = _columns_of(document)
        if columns is not None:
            return columns
        lists = {name: rows for name, rows in document.items() if isinstance(rows, list)}
        split = part or next((name for name in SPLITS[reading.role] if name in lists), None)
        if part is None and split is None and len(lists) == 1:
            (split,) = lists
        if split not in lists:
            asked = f"no split '{part}'{nearest(str(part), lists)}" if part else f"no split for {reading.role}"
            raise UserError(
                f"{self.name} has {asked}: it holds {', '.join(map(repr, list(document)[:10]))}; "
                f"name one, as in {self.name}[{next(iter(lists), 'train')}]"
            )
        self.facts.append(f"split '{split}'")
        return lists[split]


def _columns_of(document: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of an object of columns, each a list or (as pandas writes them) an object by row; None if it is none."""
    values = list(document.values())
    if not values or "data" in document or "train" in document:
        return None
    if all(isinstance(v, dict) for v in values):
        keys = list(values[0])
        if all(list(v) == keys for v in values):
            return [{name: column[key] for name, column in document.items()} for key in keys]
    if all(isinstance(v, list) for v in values) and len({len(v) for v in values}) == 1:
        if any(isinstance(cell, (dict, list)) for cell in values[0][:1]):
            return None
        return [dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True)]
    return None
