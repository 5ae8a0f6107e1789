"""Predictions written batch by batch in constant memory: CSV, JSON Lines, Parquet, and submissions.

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
from rankwise.scoring.submissions import KAGGLE_HEADERS, KaggleWriter, Sample, SampleWriter, validate_kaggle
from rankwise.scoring.writer import LABEL_SEPARATOR, PROBABILITY_PREFIX, Writer, columns, joined_labels

__all__ = [
    "FORMATS",
    "KAGGLE_HEADERS",
    "PROBABILITY_PREFIX",
    "Sample",
    "Writer",
    "columns",
    "format_of",
    "open_writer",
    "validate_kaggle",
]

FORMATS = ("csv", "jsonl", "parquet", "kaggle")
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
    separator: str = LABEL_SEPARATOR,
    kaggle_header: str = KAGGLE_HEADERS[0],
    own_ids: bool = False,
    spelled: bool = False,
    sample: Sample | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[Writer]:
    """A writer whose file takes its name when the block ends, after validation; on any error nothing is left.

    Args:
        format: one of `FORMATS`. kaggle numbers the rows from 0 in the order they come, and the labels.
        label_names: names of the classes, in the order of the probabilities.
        labelled: each batch comes with its true labels (a column `label`).
        multi_label: a row may carry several labels.
        separator: between several labels in a cell; a label that holds it makes the cell a JSON list.
        kaggle_header: header of the kaggle format; competitions differ in it.
        own_ids, spelled: the kaggle format carries the ids it is given, and the labels' names.
        sample: a sample submission, which decides the columns and the order of the kaggle format.
        metadata: plain values kept in a Parquet file's schema.

    Raises:
        UserError: the file cannot be written, or the kaggle file does not pass its own validation.
    """
    with replacing(path) as handle:
        writer: Writer
        if format == "csv":
            writer = CsvWriter(path, handle, label_names, labelled, multi_label, separator)
        elif format == "jsonl":
            writer = JsonlWriter(path, handle, label_names, labelled, multi_label)
        elif format == "parquet":
            writer = ParquetWriter(path, handle, label_names, labelled, multi_label, metadata)
        elif format == "kaggle" and sample is not None:
            writer = SampleWriter(path, handle, label_names, multi_label, sample, separator)
        elif format == "kaggle":
            writer = KaggleWriter(path, handle, label_names, multi_label, kaggle_header, own_ids, spelled)
        else:
            raise UserError(f"unknown format '{format}'; expected one of {', '.join(FORMATS)}")
        try:
            yield writer
            with writing(path):
                writer.finish()
        finally:
            writer.release()


class CsvWriter(Writer):
    """Columns id, label (when labelled), predicted, and p_NAME for each class with six decimals."""

    def __init__(
        self,
        path: Path,
        handle: IO[bytes],
        label_names: Sequence[str],
        labelled: bool,
        multi_label: bool,
        separator: str = LABEL_SEPARATOR,
    ) -> None:
        super().__init__(path, handle, label_names, labelled, multi_label)
        self._separator = separator
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
        return [joined_labels(several, self._separator) for several in names] if self.multi_label else names


class JsonlWriter(Writer):
    """One object a line: id, label (when labelled), predicted, probabilities by name."""

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        answers = self._named(predicted)
        truths = None if labels is None else self._named(labels)
        lines = []
        for i, shares in enumerate(p.tolist()):
            row = {"id": ids[i]} | ({} if truths is None else {"label": truths[i]}) | {"predicted": answers[i]}
            row["probabilities"] = {name: round(share, 6) for name, share in zip(self.label_names, shares, strict=True)}
            lines.append(json.dumps(row, ensure_ascii=False, default=str) + "\n")
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


def _whole_numbers(ids: Sequence[Any]) -> bool:
    """Whether Parquet can hold the ids as whole numbers: beyond 64 bits they are text."""
    return all(isinstance(name, (int, np.integer)) and -(2**63) <= int(name) < 2**63 for name in ids)
