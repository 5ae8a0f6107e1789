"""The prediction files of a run's folder: `predictions_<role>.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError
from rankwise.scoring.writers import PROBABILITY_PREFIX, Writer, open_writer


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for the rows of one role.

    Shapes: ids (rows,); labels and predicted (rows,) class numbers or, with several labels a row,
    (rows, classes) 0s and 1s; probabilities (rows, classes) float32.
    """

    role: str
    label_names: list[str]
    rows_sha256: str
    multi_label: bool
    ids: list[int] | list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which rows are right, every label of them. Shape: (rows,)"""
        same = np.asarray(self.labels == self.predicted)
        return np.asarray(same.all(axis=1)) if self.multi_label else same

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of the prediction; with several labels, of its least certain one. Shape: (rows,)"""
        p = self.probabilities
        chosen: NDArray[np.float32] = np.maximum(p, 1 - p).min(axis=1) if self.multi_label else p.max(axis=1)
        return chosen


def path_of(folder: Path, role: str) -> Path:
    """Where a run keeps its predictions for a role."""
    return folder / f"predictions_{role}.parquet"


def open_predictions(
    folder: Path, role: str, label_names: Sequence[str], *, rows_sha256: str, multi_label: bool = False
) -> AbstractContextManager[Writer]:
    """A writer of the role's file, fed batch by batch with ids, probabilities and labels."""
    metadata = {"role": role, "rows_sha256": rows_sha256, "multi_label": multi_label}
    return open_writer(
        path_of(folder, role),
        "parquet",
        label_names,
        labelled=True,
        multi_label=multi_label,
        metadata=metadata,
    )


def write(
    folder: Path,
    role: str,
    label_names: Sequence[str],
    *,
    rows_sha256: str,
    ids: Sequence[Any],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
) -> Path:
    """Write the role's file from whole arrays (shapes as in `Predictions`) and return its path."""
    with open_predictions(folder, role, label_names, rows_sha256=rows_sha256, multi_label=labels.ndim == 2) as out:
        out.add(ids, probabilities, labels)
    return path_of(folder, role)


def read(folder: Path, role: str) -> Predictions:
    """The predictions that a run's folder holds for a role.

    Raises:
        UserError: there are none, or the file is damaged or not ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path_of(folder, role)
    if not path.is_file():
        first = (
            f"run  rankwise evaluate {folder}  first" if role == "test" else f"it has not ended, or has no {role} rows"
        )
        raise UserError(f"{folder} holds no predictions for {role}: {first}")
    try:
        table = pq.read_table(path)
        metadata = json.loads((table.schema.metadata or {})[b"rankwise"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or was not written by rankwise: run  rankwise evaluate {folder}  again"
        ) from error
    names = [name.removeprefix(PROBABILITY_PREFIX) for name in table.column_names[3:]]
    p = np.column_stack([table.column(c).to_numpy() for c in range(3, table.num_columns)])
    numbers = _several_numbers if metadata["multi_label"] else _numbers
    return Predictions(
        role=role,
        label_names=names,
        rows_sha256=metadata["rows_sha256"],
        multi_label=metadata["multi_label"],
        ids=table.column("id").to_pylist(),
        labels=numbers(table.column("label"), names),
        predicted=numbers(table.column("predicted"), names),
        probabilities=p,
    )


def _numbers(column: Any, names: list[str]) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: NDArray[np.int64] = pc.index_in(column, value_set=pa.array(names)).to_numpy().astype(np.int64)
    return found


def _several_numbers(column: Any, names: list[str]) -> NDArray[np.int64]:
    place = {name: c for c, name in enumerate(names)}
    numbers = np.zeros((len(column), len(names)), dtype=np.int64)
    for row, carried in enumerate(column.to_pylist()):
        numbers[row, [place[name] for name in carried]] = 1
    return numbers
