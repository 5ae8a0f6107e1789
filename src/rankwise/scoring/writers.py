"""Tables of answers, written a window of rows at a time in constant memory: CSV, JSON Lines, Parquet; the first two packed
where their name ends in .gz.

A file appears under its name only when it is whole.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from rankwise.errors import UserError, nearest
from rankwise.files import replacing, writing

FORMATS = ("csv", "jsonl", "parquet", "kaggle")
PROBABILITY_PREFIX = "p_"
LABEL_SEPARATOR = "|"
"""between the labels of one row where a cell holds a single text and training named nothing else"""
_PACKED = ".gz"
# Rows gathered before a Parquet row group is written; groups of one window each would read back slowly.
_GROUP_ROWS = 65_536

Cells = Sequence[Sequence[Any]]
"""of a window of rows, a list a column"""


class Column(NamedTuple):
    """A column: what names a row, a label, several labels, a probability, or probabilities by name (JSON Lines alone)."""

    name: str
    kind: Literal["id", "label", "labels", "share", "shares"]


def format_of(path: Path, named: str | None = None) -> str:
    """The format named, else the one that the file's ending says.

    Raises: UserError: no such format, or the ending says nothing.
    """
    packed = path.suffix.lower() == _PACKED
    word = named or Path(path.stem if packed else path.name).suffix.removeprefix(".").lower()
    if packed and word == "parquet":
        raise UserError(f"{path.name}: Parquet is packed in itself, leave {_PACKED} out")
    if word not in FORMATS:
        what = f"unknown format '{named}'" if named else f"the ending of {path.name} names no format"
        raise UserError(f"{what}{nearest(word, FORMATS)}; expected one of {', '.join(FORMATS)}")
    return word


@contextmanager
def open_writer(path: Path, format: str, columns: Sequence[Column]) -> Iterator[Writer]:
    """A writer whose file takes its name when the block ends; on any error nothing is left.

    Raises: UserError when the file cannot be written.
    """
    with replacing(path) as file:
        packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix.lower() == _PACKED else None
        writer = _WRITERS[format](path, packed or file, columns)
        try:
            yield writer
            with writing(path):
                writer.finish()
                if packed is not None:
                    packed.close()
        finally:
            writer.release()


class Writer:
    """Takes windows of rows in their order; a subclass says what one looks like in its format."""

    def __init__(self, path: Path, handle: IO[bytes] | gzip.GzipFile, columns: Sequence[Column]) -> None:
        self.path, self.handle, self.columns = path, handle, columns

    def add(self, cells: Cells) -> None:
        """Write a window; probabilities as an array or floats."""
        with writing(self.path):
            self._write(cells)

    def finish(self) -> None:
        """Write what is held back."""

    def release(self) -> None:
        """Let go of the open file, after success or failure."""

    def _write(self, cells: Cells) -> None:
        raise NotImplementedError


class CsvWriter(Writer):
    """A header, then probabilities with six decimals."""

    def __init__(self, path: Path, handle: IO[bytes] | gzip.GzipFile, columns: Sequence[Column]) -> None:
        super().__init__(path, handle, columns)
        self._write_rows([[column.name for column in columns]])

    def _write(self, cells: Cells) -> None:
        shown = [
            [f"{share:.6f}" for share in column] if kind == "share" else column
            for (_, kind), column in zip(self.columns, cells, strict=True)
        ]
        self._write_rows(zip(*shown, strict=True))

    def _write_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.handle.write(text.getvalue().encode())


class JsonlWriter(Writer):
    """One object a line, probabilities at six digits."""

    def _write(self, cells: Cells) -> None:
        for row in zip(*cells, strict=True):
            shown = {name: _rounded(cell, kind) for (name, kind), cell in zip(self.columns, row, strict=True)}
            self.handle.write(f"{json.dumps(shown, ensure_ascii=False, default=str)}\n".encode())


def _rounded(cell: Any, kind: str) -> Any:
    if kind == "shares":
        return {name: round(float(share), 6) for name, share in cell.items()}
    return round(float(cell), 6) if kind == "share" else cell


class ParquetWriter(Writer):
    """Ids as whole numbers where the first ones are, probabilities as float32."""

    def __init__(self, path: Path, handle: IO[bytes] | gzip.GzipFile, columns: Sequence[Column]) -> None:
        super().__init__(path, handle, columns)
        self._held: list[Any] = []
        self._file: Any = None

    def finish(self) -> None:
        if self._file is None:
            self._write([[] for _ in self.columns])
        self._flush()
        self._file.close()

    def release(self) -> None:
        # Closing writes the footer, also of a file given up: then its errors no longer matter.
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, cells: Cells) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = arrow_table(self.columns, cells)
        if self._file is None:
            self._file = pq.ParquetWriter(self.handle, table.schema)
        try:
            self._held.append(table.cast(self._file.schema))
        except pa.ArrowException as error:
            raise UserError(
                f"{self.path}: the ids are whole numbers at first and later are not: make them alike"
            ) from error
        if sum(map(len, self._held)) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._file.write_table(pa.concat_tables(self._held))
            self._held.clear()


_WRITERS: dict[str, type[Writer]] = {"csv": CsvWriter, "jsonl": JsonlWriter, "parquet": ParquetWriter}


def arrow_table(columns: Sequence[Column], cells: Cells) -> Any:
    """An Arrow table; ids are whole numbers where 64 bits hold all of them, else text."""
    import pyarrow as pa

    kinds = {"label": pa.string(), "labels": pa.list_(pa.string())}
    arrays = []
    for (_, kind), column in zip(columns, cells, strict=True):
        if kind == "id":
            whole = all(isinstance(one, int | np.integer) and -(2**63) <= int(one) < 2**63 for one in column)
            arrays.append(pa.array(column, pa.int64()) if whole else pa.array([str(one) for one in column]))
        else:
            arrays.append(pa.array(np.asarray(column, np.float32) if kind == "share" else column, kinds.get(kind)))
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def joined_labels(names: Sequence[str], separator: str | None = None) -> str:
    """Labels as one cell that reads back to the same labels: a JSON list where the separator would not do."""
    separator = separator or LABEL_SEPARATOR
    is_plain = all(separator not in name and not name.startswith("[") for name in names)
    return separator.join(names) if is_plain else json.dumps(list(names), ensure_ascii=False)
