"""Rows of CSV, TSV, JSONL, Parquet and plain-text files, one at a time and in constant memory.

A `Table` knows its columns, yields rows as tuples, and can say where it is (`row 7, line 9`), so that every
complaint about a row names the place. Cells come as they are stored: strings from CSV, values from JSONL and
Parquet; what counts as a text or a label is decided by the callers.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from rankwise.errors import UserError, nearest

MAX_TEXT_CHARS = 1_000_000
"""Characters a text may have. Longer ones are mostly files that lost their line breaks."""

MAX_LINE_CHARS = 8 * MAX_TEXT_CHARS
"""Characters a line of a file may have: several columns, or a text written in JSON escapes."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TOO_LONG = (
    f"a text may have at most {MAX_TEXT_CHARS:,} characters; shorten it, or mend an unclosed quote or lost line breaks"
)
PICKLE_SUFFIXES = (".pkl", ".pickle", ".p", ".pck", ".joblib")
_PARQUET_BATCH_ROWS = 1024


class Table:
    """A file of rows. `rows` may be called again: it reads the file from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.row = 0
        self.line = 0
        self.columns: tuple[str, ...] = ()
        self.class_names: dict[str, tuple[str, ...]] = {}

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The cells of the named columns, row by row."""
        raise NotImplementedError

    def where(self) -> str:
        """The place of the row yielded last, counted from 1 without the header."""
        place = f"row {self.row:,}"
        return f"{self.path}, {place} (line {self.line:,})" if self.line else f"{self.path}, {place}"

    def require(self, names: Sequence[str], key: str) -> None:
        """Raise `UserError` naming the first column that is missing; `key` is the config key that asked."""
        for name in names:
            if name not in self.columns:
                known = ", ".join(_shortened(column) for column in self.columns)
                raise UserError(
                    f"{self.path} has no column '{name}'{nearest(name, self.columns)}: "
                    f"its columns are {known}; name the right one with {key}"
                )


def open_table(path: Path) -> Table:
    """The reader for a file, by its suffix.

    Raises `UserError` for a file that is absent, empty, a pickle, or of an unknown kind.
    """
    refuse_pickle(path)
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".txt"):
        raise UserError(
            f"{path} is not a kind of file that can be read: expected {', '.join(SUFFIXES)}"
            f"{' or a folder of class folders' if not suffix else ''}"
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: expected a table with a text and a label column")
    if suffix in (".csv", ".tsv"):
        return _Csv(path, "," if suffix == ".csv" else "\t")
    if suffix == ".parquet":
        return _Parquet(path)
    return _Lines(path) if suffix == ".txt" else _Jsonl(path)


def refuse_pickle(path: Path) -> None:
    """Raise `UserError` for a pickle, known by its name or its first bytes, with the way to convert it."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    is_pickle = len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5
    if path.suffix.lower() in PICKLE_SUFFIXES or is_pickle:
        target = path.with_suffix(".parquet")
        raise UserError(
            f"{path} is a pickle, and opening a pickle runs whatever code it holds, so it is refused: "
            f'if you trust its origin, convert it once with  python -c "import pickle; '
            f"pickle.load(open('{path}', 'rb')).to_parquet('{target}')\"  and name {target} instead"
        )


# --- text files ---------------------------------------------------------------------------------------


def read_text(path: Path, fallback: str | None = None) -> str:
    """A whole text file, in UTF-8 or else in the fallback encoding; raises `UserError` as the tables do."""
    if path.stat().st_size > 4 * MAX_TEXT_CHARS:
        raise UserError(f"{path} holds {path.stat().st_size:,} bytes: {TOO_LONG}")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise _wrong_encoding(path) from error
    return data.decode(fallback, errors="replace")


def _lines(path: Path, newline: str) -> Iterator[str]:
    """Lines with their ends, each of bounded length."""
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        number = 0
        try:
            while line := file.readline(MAX_LINE_CHARS + 1):
                number += 1
                if len(line) > MAX_LINE_CHARS:
                    raise UserError(f"{path}, line {number:,} is longer than {MAX_LINE_CHARS:,} characters: {TOO_LONG}")
                yield line
        except UnicodeDecodeError as error:
            raise _wrong_encoding(path) from error


def _wrong_encoding(path: Path) -> UserError:
    """The error for a file that is not UTF-8: first bad byte, its line, and how to convert the file."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line, pending = 0, 1, 0
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        while chunk := file.read(1 << 20):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                # error.start counts from the bytes the decoder still held of the chunk before.
                bad = error.start - pending
                offset, line = offset + bad, line + chunk[: max(bad, 0)].count(b"\n")
                break
            pending = len(decoder.getstate()[0])
            offset, line = offset + len(chunk), line + chunk.count(b"\n")
        else:
            offset -= pending
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if wide else "WINDOWS-1252"
    return UserError(
        f"{path} is not UTF-8: byte {offset:,} (line {line:,}) cannot be read; convert it with  "
        f"iconv -f {encoding} -t UTF-8 '{path}' > '{path.with_stem(path.stem + '-utf8')}'  "
        f"({'its first bytes say' if wide else 'if it was written as'} {encoding})"
    )


class _Csv(Table):
    """Comma- or tab-separated rows under a header line, quoted as RFC 4180 has it."""

    def __init__(self, path: Path, delimiter: str) -> None:
        super().__init__(path)
        self.delimiter = delimiter
        header = next(self._records(), None)
        if header is None:
            raise UserError(f"{path} is empty: expected a header line and rows")
        self.columns = tuple(name.strip() for name in header)
        twice = {name for name in self.columns if self.columns.count(name) > 1}
        if twice:
            raise UserError(f"{path} names the column '{min(twice)}' twice in its header: rename one of them")

    def _records(self) -> Iterator[list[str]]:
        # The module's limit is global and smaller than a text may be; it is only ever raised here.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
        reader = csv.reader(_lines(self.path, newline=""), delimiter=self.delimiter, strict=True)
        first = 1
        try:
            for record in reader:
                self.line, first = first, reader.line_num + 1
                if record:
                    yield record
        except csv.Error as error:
            is_long = "field limit" in str(error)
            reason = TOO_LONG if is_long else f"{error}; quote the cell, and double the quotes inside it"
            raise UserError(f"{self.path}, the row from line {first:,} cannot be read: {reason}") from error

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        places = [self.columns.index(name) for name in names]
        records = self._records()
        next(records)
        self.row = 0
        for record in records:
            self.row += 1
            if len(record) != len(self.columns):
                raise UserError(
                    f"{self.where()} has {len(record)} cells, expected {len(self.columns)} as in the header: "
                    f"quote cells that hold a {'comma' if self.delimiter == ',' else 'tab'}"
                )
            yield tuple(record[place] for place in places)


class _Jsonl(Table):
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        first = next(self._records(), None)
        if first is None:
            raise UserError(f"{path} is empty: expected one JSON object a line")
        self.columns = tuple(first)

    def _records(self) -> Iterator[dict[str, Any]]:
        decode = msgspec.json.Decoder().decode
        self.line = 0
        for line in _lines(self.path, newline="\n"):
            self.line += 1
            if line.isspace():
                continue
            try:
                record = decode(line)
            except msgspec.DecodeError as error:
                raise UserError(f"{self.path}, line {self.line:,} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise UserError(
                    f"{self.path}, line {self.line:,} holds a {type(record).__name__}, "
                    'expected an object such as {"text": ..., "label": ...}'
                )
            yield record

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        for record in self._records():
            self.row += 1
            try:
                cells = tuple(record[name] for name in names)
            except KeyError as error:
                keys = ", ".join(f"'{key}'" for key in record)
                raise UserError(f"{self.where()} has no key {error}: its keys are {keys}") from error
            yield cells


class _Lines(Table):
    """One text a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.columns = ("text",)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = self.line = 0
        for line in _lines(self.path, newline="\n"):
            self.row = self.line = self.row + 1
            yield tuple(line.rstrip("\r\n") for _ in names)


# --- Parquet ------------------------------------------------------------------------------------------


class _Parquet(Table):
    """Parquet, decoded a thousand rows at a time; class names are taken from `datasets`' metadata."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        self.columns = tuple(schema.names)
        self.class_names = _class_names(schema.metadata or {})

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        distinct = list(dict.fromkeys(names))
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_PARQUET_BATCH_ROWS, columns=distinct, use_threads=False):
                    cells = {name: batch.column(name).to_pylist() for name in distinct}
                    for row in zip(*(cells[name] for name in names), strict=True):
                        self.row += 1
                        yield row
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        reason = str(error).strip().splitlines()[0]
        return UserError(f"{self.path} is not a whole Parquet file ({reason}): write or download it again")


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of the classes of each column that `datasets` wrote as a ClassLabel, or as a list of them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        inner = {column: feature.get("feature") or feature for column, feature in features.items()}
        return {column: tuple(f["names"]) for column, f in inner.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _shortened(column: str) -> str:
    return f"'{column}'" if len(column) <= 40 else f"'{column[:37]}...'"
