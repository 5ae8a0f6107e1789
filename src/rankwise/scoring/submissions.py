"""Predictions as competitions want them: the papers' `ID,Label`, a file with its own ids, and a sample's layout."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError
from rankwise.scoring.writer import Writer, joined_labels

KAGGLE_HEADERS = ("ID,Label", "ID,label")
"""Headers of the papers' hidden test, whose rows are numbered and whose labels are numbers."""


@dataclass(frozen=True)
class Sample:
    """A sample submission: it decides the columns, the order and the ids.

    Attributes:
        columns: the id, then one column for the label or one a class for its probability.
        ids: as text, in order.
    """

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]


def header_of(line: str) -> tuple[str, str]:
    """The two names of a header line.

    Raises `UserError` for any other number of names.
    """
    names = next(csv.reader([line]), [])
    if len(names) != 2 or not all(name.strip() for name in names):
        raise UserError(f"the kaggle header '{line}' names {len(names)} columns, expected two: the id and the label")
    return names[0], names[1]


class KaggleWriter(Writer):
    """Two columns: an id and a label.

    With neither `own_ids` nor `spelled` it is the papers' hidden-test file: rows numbered from 0 in input order, and
    labels as numbers, in the order of the classes.
    """

    def __init__(
        self,
        path: Path,
        handle: IO[bytes],
        label_names: Sequence[str],
        multi_label: bool,
        header: str,
        own_ids: bool = False,
        spelled: bool = False,
    ) -> None:
        if multi_label:
            raise UserError(
                "the kaggle format holds one label a row: write several labels as csv, jsonl or parquet, or give a "
                "sample submission with --like"
            )
        super().__init__(path, handle, label_names, labelled=False, multi_label=False)
        self._header = header
        self._own_ids = own_ids
        self._spelled = spelled
        header_of(header)
        handle.write(f"{header}\n".encode())

    def finish(self) -> None:
        self.handle.flush()
        names = self.label_names if self._spelled else None
        validate_kaggle(
            Path(self.handle.name),
            self.rows,
            len(self.label_names),
            header=self._header,
            names=names,
            own_ids=self._own_ids,
        )

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        numbers = ids if self._own_ids else range(self.rows, self.rows + len(ids))
        answers = self._named(predicted) if self._spelled else predicted.tolist()
        lines = (f"{_cell(_id_text(n))},{_cell(label)}\n" for n, label in zip(numbers, answers, strict=True))
        self.handle.write("".join(lines).encode())


class SampleWriter(Writer):
    """Rows in the order of a sample submission; answers are held until all ids are known."""

    def __init__(
        self,
        path: Path,
        handle: IO[bytes],
        label_names: Sequence[str],
        multi_label: bool,
        sample: Sample,
        separator: str,
    ) -> None:
        super().__init__(path, handle, label_names, labelled=False, multi_label=multi_label)
        self._sample = sample
        self._separator = separator
        self._answers: dict[str, str] = {}
        asked = sample.columns[1:]
        self._places = [self.label_names.index(name) for name in asked if name in self.label_names]
        self._shares = len(asked) > 1 or bool(self._places)
        if not asked or (self._shares and len(self._places) != len(asked)):
            unknown = next((name for name in asked if name not in self.label_names), "")
            raise UserError(
                f"{sample.path} has the columns {', '.join(sample.columns)}: expected an id and a label, or an id and "
                f"classes, and '{unknown}' is no class of {', '.join(self.label_names[:10])}"
            )

    def _write(self, ids: Sequence[Any], p: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any] | None) -> None:
        if self._shares:
            cells = [",".join(f"{share:.6f}" for share in row) for row in p[:, self._places].tolist()]
        elif self.multi_label:
            cells = [_cell(joined_labels(names, self._separator)) for names in self._named(predicted)]
        else:
            cells = [_cell(name) for name in self._named(predicted)]
        self._answers.update(zip(map(_id_text, ids), cells, strict=True))

    def finish(self) -> None:
        missing = [name for name in self._sample.ids if name not in self._answers]
        if missing:
            raise UserError(
                f"{self._sample.path} asks for the id {missing[0]}, one of {len(missing):,} that the texts do not have"
            )
        lines = [",".join(map(_cell, self._sample.columns))]
        lines += [f"{_cell(name)},{self._answers[name]}" for name in self._sample.ids]
        self.handle.write(("\n".join(lines) + "\n").encode())


def _id_text(name: Any) -> str:
    return str(int(name)) if isinstance(name, (float, np.floating)) and float(name).is_integer() else str(name)


def _cell(text: Any) -> str:
    """One cell of a CSV file, quoted where it must be."""
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()


def validate_kaggle(
    path: Path,
    expected_rows: int,
    num_labels: int,
    *,
    header: str = KAGGLE_HEADERS[0],
    names: Sequence[str] | None = None,
    own_ids: bool = False,
) -> None:
    """Check a file to be submitted: header, ids, labels, and the number of rows.

    Args:
        names: the labels as they are spelled; None stands for numbers from 0 to `num_labels`.
        own_ids: the ids are those of the texts; else they are 0, 1, 2, ... in row order.

    Raises `UserError`, which says the first line that is wrong, what was expected and what came.
    """
    rows = 0
    known = set(names or ())
    with path.open(encoding="utf-8", newline="") as file:
        first = file.readline().rstrip("\n")
        if first != header:
            raise UserError(f"line 1 of {path}: expected the header {header}, got {first[:40]!r}")
        for cells in csv.reader(file):
            shown = ",".join(cells)[:40]
            if len(cells) != 2 or (not own_ids and cells[0] != str(rows)):
                wanted = "an id and a label" if own_ids else f"ID {rows}"
                raise UserError(f"line {rows + 2} of {path}: expected {wanted}, got {shown!r}")
            label = cells[1]
            is_number = label.isascii() and label.isdecimal() and int(label) < num_labels
            if not (label in known if names is not None else is_number):
                wanted = "a label of training" if names is not None else f"a label from 0 to {num_labels - 1}"
                raise UserError(f"line {rows + 2} of {path}: expected {wanted}, got {label[:40]!r}")
            rows += 1
    if rows != expected_rows:
        raise UserError(f"{path}: expected {expected_rows:,} rows, got {rows:,}")
