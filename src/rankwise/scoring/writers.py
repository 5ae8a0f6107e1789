"""Predictions written batch by batch in constant memory: CSV, JSON Lines, Parquet, the papers' `ID,Label`.

A file appears under its name only when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError, nearest
from rankwise.files import replacing, writing
from rankwise.scoring.metrics import decide

FORMATS = ("csv", "jsonl", "parquet", "kaggle")
KAGGLE_HEADERS = ("ID,Label", "ID,label")
# Between the labels of one row where a cell holds a single text.
LABEL_SEPARATOR = "|"
PROBABILITY_PREFIX = "p_"
# Rows gathered before a Parquet row group is written; groups of one batch each would read back slowly.
_GROUP_ROWS = 65_536


def format_of(path: Path, named: str | None = None) -> str:
    """The format named, else the one that the file's ending says.

    Raises:
        UserError: no such format, or the ending says nothing.
    """
    word = named or path.suffix.removeprefix(".").lower()
    if word not in FORMATS:
        what = f"unknown format '{named}'" if named else f"the ending of {path.name} names no format"
        raise UserError(f"{what}{nearest(word, FORMATS)}; expected one of {', '.join(FORMATS)}")
    return word


@contextmanager
def open_writer(
    path: Path,
    format: str,
    label_names: Sequence[str],
    *,
    labelled: bool = False,
    multi_label: bool = False,
    kaggle_header: str = KAGGLE_HEADERS[0],
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[Writer]:
    """A writer whose file takes its name when the block ends, after validation; on any error nothing is left.

    Args:
        format: one of `FORMATS`. kaggle numbers the rows from 0 in the order they come.
        label_names: names of the classes, in the order of the probabilities.
        labelled: each batch comes with its true labels (a column `label`).
        multi_label: a row may carry several labels.
        kaggle_header: header of the kaggle format; competitions differ in it.
        metadata: plain values kept in a Parquet file's schema.

    Raises:
        UserError: the file cannot be written, or the kaggle file does not pass its own validation.
    """
    with replacing(path) as handle:
        writer: Writer
        if format == "csv":
            writer = CsvWriter(path, handle, label_names, labelled, multi_label)
        elif format == "jsonl":
            writer = JsonlWriter(path, handle, label_names, labelled, multi_label)
        elif format == "parquet":
            writer = ParquetWriter(path, handle, label_names, labelled, multi_label, metadata)
        elif format == "kaggle":
            writer = KaggleWriter(path, handle, label_names, multi_label, kaggle_header)
        else:
            raise UserError(f"unknown format '{format}'; expected one of {', '.join(FORMATS)}")
        try:
            yield writer
            with writing(path):
                writer.finish()
        finally:
            writer.release()


class Writer:
    """Takes scored batches in row order. Subclasses say what a batch looks like in their format."""

    def __init__(
        self, path: Path, handle: IO[bytes], label_names: Sequence[str], labelled: bool, multi_label: bool
    ) -> None:
        self.path = path
        self.handle = handle
        self.label_names = list(label_names)
        self.labelled = labelled
        self.multi_label = multi_label
        self.rows = 0

    def add(self, ids: Sequence[Any], probabilities: NDArray[Any], labels: NDArray[Any] | None = None) -> None:
        """Write one batch.

        Args:
            ids: what names each row. Shape: (rows,)
            probabilities: shape (rows, classes).
            labels: class numbers (rows,) or 0s and 1s (rows, classes); given exactly when `labelled`.
        """
        if (labels is not None) != self.labelled:
            raise ValueError("labels must be given exactly when the writer was opened with labelled=True")
        predicted = decide(probabilities, probabilities=True) if self.multi_label else probabilities.argmax(1)
        with writing(self.path):
            self._write(ids, probabilities, predicted, labels)
        self.rows += len(ids)

    def finish(self) -> None:
        """Write what is held back and check the whole."""

    def release(self) -> None:
        """Let go of the open file, after success or failure."""

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        raise NotImplementedError

    def _named(self, numbers: NDArray[Any]) -> list[Any]:
        """Label names of class numbers: one text a row, or a list of texts with several labels."""
        if self.multi_label:
            return [[self.label_names[c] for c in np.flatnonzero(row)] for row in numbers]
        return [self.label_names[c] for c in numbers.tolist()]


class CsvWriter(Writer):
    """Columns id, label (when labelled), predicted, and p_NAME for each class with six decimals."""

    def __init__(
        self, path: Path, handle: IO[bytes], label_names: Sequence[str], labelled: bool, multi_label: bool
    ) -> None:
        super().__init__(path, handle, label_names, labelled, multi_label)
        self._write_rows([columns(label_names, labelled)])

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        cells = [ids, *([] if labels is None else [self._joined(labels)]), self._joined(predicted)]
        self._write_rows(
            [*first, *(f"{share:.6f}" for share in shares)] for *first, shares in zip(*cells, p.tolist(), strict=True)
        )

    def _write_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.handle.write(text.getvalue().encode())

    def _joined(self, numbers: NDArray[Any]) -> list[str]:
        names = self._named(numbers)
        return [LABEL_SEPARATOR.join(several) for several in names] if self.multi_label else names


class JsonlWriter(Writer):
    """One object a line: id, label (when labelled), predicted, probabilities by name."""

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        answers = self._named(predicted)
        truths = None if labels is None else self._named(labels)
        lines = []
        for i, shares in enumerate(p.tolist()):
            row = {"id": ids[i]} | ({} if truths is None else {"label": truths[i]}) | {"predicted": answers[i]}
            row["probabilities"] = {name: round(share, 6) for name, share in zip(self.label_names, shares, strict=True)}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        self.handle.write("".join(lines).encode())


class ParquetWriter(Writer):
    """Columns id, label (when labelled), predicted, and p_NAME (float32) for each class."""

    def __init__(
        self,
        path: Path,
        handle: IO[bytes],
        label_names: Sequence[str],
        labelled: bool,
        multi_label: bool,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(path, handle, label_names, labelled, multi_label)
        self._metadata = {b"rankwise": json.dumps(dict(metadata or {})).encode()}
        self._held: list[Any] = []
        self._held_rows = 0
        self._file: Any = None

    def finish(self) -> None:
        self._flush()
        self._file.close()

    def release(self) -> None:
        # Closing writes the footer, also of a file given up: then its errors no longer matter.
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        self._held.append((list(ids), p.astype(np.float32), predicted, labels))
        self._held_rows += len(ids)
        if self._held_rows >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        ids = [name for batch in self._held for name in batch[0]]
        if self._file is None:
            self._schema = self._make_schema(pa.int64() if _whole_numbers(ids) else pa.string())
            self._file = pq.ParquetWriter(self.handle, self._schema)
        if not ids:
            return
        if self._schema.field("id").type == pa.string():
            ids = [str(name) for name in ids]
        elif not _whole_numbers(ids):
            raise UserError(f"{self.path}: the ids are whole numbers at first and later are not: make them alike")
        p = np.concatenate([batch[1] for batch in self._held])
        arrays: list[Any] = [ids]
        if self.labelled:
            arrays.append(self._named(np.concatenate([batch[3] for batch in self._held])))
        arrays.append(self._named(np.concatenate([batch[2] for batch in self._held])))
        arrays += [np.ascontiguousarray(p[:, c]) for c in range(p.shape[1])]
        typed = [pa.array(array, type=field.type) for array, field in zip(arrays, self._schema, strict=True)]
        self._file.write_table(pa.Table.from_arrays(typed, schema=self._schema))
        self._held.clear()
        self._held_rows = 0

    def _make_schema(self, id_type: Any) -> Any:
        import pyarrow as pa

        name_type = pa.list_(pa.string()) if self.multi_label else pa.string()
        types = [id_type, *([name_type] if self.labelled else []), name_type]
        types += [pa.float32()] * len(self.label_names)
        fields = zip(columns(self.label_names, self.labelled), types, strict=True)
        return pa.schema(list(fields), metadata=self._metadata)


class KaggleWriter(Writer):
    """The papers' hidden-test file: `ID,Label`, rows numbered from 0 in input order, labels as numbers."""

    def __init__(
        self, path: Path, handle: IO[bytes], label_names: Sequence[str], multi_label: bool, header: str
    ) -> None:
        if multi_label:
            raise UserError("the kaggle format holds one label a row: write several labels as csv, jsonl or parquet")
        super().__init__(path, handle, label_names, labelled=False, multi_label=False)
        self._header = header
        handle.write(f"{header}\n".encode())

    def finish(self) -> None:
        self.handle.flush()
        validate_kaggle(Path(self.handle.name), self.rows, len(self.label_names), header=self._header)

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        lines = (f"{self.rows + i},{label}\n" for i, label in enumerate(predicted.tolist()))
        self.handle.write("".join(lines).encode())


def _whole_numbers(ids: Sequence[Any]) -> bool:
    return all(isinstance(name, (int, np.integer)) for name in ids)


def columns(label_names: Sequence[str], labelled: bool) -> list[str]:
    """Column names of a table of predictions."""
    return [
        "id",
        *(["label"] if labelled else []),
        "predicted",
        *(PROBABILITY_PREFIX + n for n in label_names),
    ]


def validate_kaggle(path: Path, expected_rows: int, num_labels: int, *, header: str = KAGGLE_HEADERS[0]) -> None:
    """Check a file to be submitted: header, IDs 0, 1, 2, ... in row order, labels, and the number of rows.

    Raises:
        UserError: says the first line that is wrong, what was expected and what came.
    """
    rows = 0
    with path.open(encoding="utf-8", newline="") as file:
        first = file.readline().rstrip("\n")
        if first != header:
            raise UserError(f"line 1 of {path}: expected the header {header}, got {first[:40]!r}")
        for line in file:
            number, comma, label = line.rstrip("\n").partition(",")
            if number != str(rows) or not comma:
                raise UserError(f"line {rows + 2} of {path}: expected ID {rows}, got {line[:40].rstrip()!r}")
            if not (label.isascii() and label.isdecimal() and int(label) < num_labels):
                wanted = f"a label from 0 to {num_labels - 1}"
                raise UserError(f"line {rows + 2} of {path}: expected {wanted}, got {label[:40]!r}")
            rows += 1
    if rows != expected_rows:
        raise UserError(f"{path}: expected {expected_rows:,} rows, got {rows:,}")
