"""The prediction files of a run's folder: `predictions_<role>.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise import files
from rankwise.errors import UserError
from rankwise.scoring.calibration import apply_temperature
from rankwise.scoring.decisions import names_of
from rankwise.scoring.judged import right
from rankwise.scoring.metrics import decide, logits_of_probabilities
from rankwise.scoring.writers import PROBABILITY_PREFIX, Column, arrow_table

LOGITS = "logits"


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for the rows of one role.

    Shapes: ids (rows,); labels and predicted (rows,) class numbers or, with several labels a row,
    (rows, classes) 0s and 1s; probabilities and logits (rows, classes) float32.
    """

    role: str
    label_names: list[str]
    rows_sha256: str
    multi_label: bool
    ids: list[int] | list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which rows are right, every label of them. Shape: (rows,)"""
        return right(self.predicted, self.labels)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of the prediction; with several labels, of its least certain one. Shape: (rows,)"""
        p = self.probabilities
        chosen: NDArray[np.float32] = np.maximum(p, 1 - p).min(axis=1) if self.multi_label else p.max(axis=1)
        return chosen


def path_of(folder: Path, role: str) -> Path:
    """Where a run keeps its predictions for a role."""
    return folder / f"predictions_{role}.parquet"


def draw_order(rows: int) -> NDArray[np.int64]:
    """In which rows are drawn where there is no time to predict all, the same for every run. Shape: (rows,)"""
    return np.random.default_rng(0).permutation(rows)


class Scored(Protocol):
    """Labelled rows (`data.Rows`)."""

    @property
    def sha256(self) -> str:
        """Hash of the rows."""

    @property
    def ids(self) -> Sequence[Any]:
        """A name each."""

    @property
    def labels(self) -> NDArray[Any]:
        """As in `Predictions`."""


def write_logits(
    folder: Path,
    role: str,
    label_names: Sequence[str],
    rows: Scored,
    logits: NDArray[Any],
    predicted: NDArray[Any] | None = None,
) -> Path:
    """Write the role's file of scored rows; `predicted` as in `write`. Raises: UserError."""
    return write(
        folder,
        role,
        label_names,
        rows_sha256=rows.sha256,
        ids=rows.ids,
        labels=rows.labels,
        probabilities=apply_temperature(logits, 1.0, multi_label=rows.labels.ndim == 2),
        logits=logits,
        predicted=predicted,
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
    logits: NDArray[Any] | None = None,
    predicted: NDArray[Any] | None = None,
) -> Path:
    """Write the role's file from whole arrays (shapes as in `Predictions`) and return its path.

    Columns: id, label, predicted, p_NAME (float32) for each class, and logits, a list of float32 a row.

    predicted
        The answers, where they are not the most probable ones (`scoring.decisions`).

    Raises: UserError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    multi_label = labels.ndim == 2
    if predicted is None:
        predicted = decide(probabilities, probabilities=True) if multi_label else probabilities.argmax(axis=1)
    of_names: Literal["labels", "label"] = "labels" if multi_label else "label"
    columns = [Column("id", "id"), Column("label", of_names), Column("predicted", of_names)]
    columns += [Column(f"{PROBABILITY_PREFIX}{name}", "share") for name in label_names]
    named = [names_of(numbers.astype(np.int64), label_names) for numbers in (labels, predicted)]
    table = arrow_table(columns, [ids, *named, *probabilities.T])
    if logits is not None:
        flat = pa.array(np.ascontiguousarray(logits, dtype=np.float32).ravel())
        table = table.append_column(LOGITS, pa.FixedSizeListArray.from_arrays(flat, len(label_names)))
    metadata = {"role": role, "rows_sha256": rows_sha256, "multi_label": multi_label}
    table = table.replace_schema_metadata({b"rankwise": json.dumps(metadata).encode()})
    path = path_of(folder, role)
    with files.replacing(path) as handle, files.writing(path):
        pq.write_table(table, handle)
    return path


def read(folder: Path, role: str) -> Predictions:
    """The predictions that a run's folder holds for a role.

    Raises: UserError: there are none, or the file is damaged or not ours.
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
    columns = [name for name in table.column_names[3:] if name != LOGITS]
    names = [name.removeprefix(PROBABILITY_PREFIX) for name in columns]
    p = np.column_stack([table.column(name).to_numpy() for name in columns])
    if LOGITS in table.column_names:
        logits = table.column(LOGITS).combine_chunks().flatten().to_numpy().reshape(p.shape)
    else:
        logits = logits_of_probabilities(p, multi_label=metadata["multi_label"]).astype(np.float32)
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
        logits=logits,
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
