"""Tables that live in Python, wherever a path of data is taken.

They are kept as Parquet files in the cache under a name made of their rows: a configuration then names them as it names
any file, so that a run can be resumed, evaluated and searched by other processes, and equal rows are one file.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.errors import UserError, reason_of
from rankwise.machine import caches

_EXPECTED = (
    "expected a path, a table of pandas, polars, pyarrow or datasets, a list of dicts, columns by name, or "
    "(texts, labels)"
)


def source_of(value: Any, role: str = "train") -> str:
    """The path that stands for a source: itself where it is one, else that of the table's file.

    Args:
        role: which split of a `datasets.DatasetDict` is meant.

    Raises `UserError` for anything that is no table.
    """
    if isinstance(value, (str, Path)):
        return str(value)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = _table(value, role)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"data.{role}: a {type(value).__name__} cannot be read as a table ({reason_of(error)}): {_EXPECTED}"
        ) from error
    content = sink.getvalue().to_pybytes()
    name = f"{type(value).__name__}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    path = caches.cache("objects") / name
    if not path.is_file():
        with files.replacing(path) as file:
            file.write(content)
    return str(path)


def _table(value: Any, role: str) -> Any:
    """A pyarrow table of a table's rows; the names of its classes stay with it."""
    import pyarrow as pa

    from rankwise.data.table import SPLIT_NAMES, SPLITS

    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.RecordBatchReader):
        return value.read_all()
    if isinstance(value, dict) and (hasattr(value, "num_rows") or (value and set(value) <= SPLIT_NAMES)):
        split = next((name for name in SPLITS[role] if name in value), None)
        if split is None:
            raise UserError(
                f"data.{role}: the data set has no split '{role}', but {', '.join(value)}: name one of them"
            )
        return _table(value[split], role)
    if hasattr(value, "features") and hasattr(value, "num_rows"):
        table = value.with_format("arrow")[:]
        return table.replace_schema_metadata(value.features.arrow_schema.metadata)
    if hasattr(value, "collect") and hasattr(value, "lazy"):  # polars' LazyFrame
        value = value.collect()
    if hasattr(value, "to_arrow"):
        return value.to_arrow()
    if hasattr(value, "iloc") and hasattr(value, "columns"):
        return _of_pandas(value)
    if isinstance(value, Mapping):
        return pa.table({str(name): _array(column) for name, column in value.items()})
    if isinstance(value, tuple) and len(value) == 2:
        return pa.table({"text": _array(value[0]), "label": _array(value[1])})
    if isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        names = dict.fromkeys(str(name) for row in value for name in row)
        return pa.table({name: _array([row.get(name) for row in value]) for name in names})
    if isinstance(value, list) and value and all(isinstance(row, (tuple, list)) and len(row) == 2 for row in value):
        return pa.table({name: _array([row[place] for row in value]) for place, name in enumerate(("text", "label"))})
    raise UserError(f"data.{role}: a {type(value).__name__} is no table: {_EXPECTED}")


def _of_pandas(value: Any) -> Any:
    """A frame's columns, and its index where that has a name; what Arrow has no type for is no column of ours."""
    import pyarrow as pa

    frame = value.rename(columns=str)
    if frame.index.name is not None and str(frame.index.name) not in frame.columns:
        frame = frame.reset_index(names=str(frame.index.name))
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except pa.ArrowException:
        if not frame.columns.is_unique:
            raise
    arrays = {}
    for name in frame.columns:
        with contextlib.suppress(pa.ArrowException):
            arrays[name] = _array(frame[name])
    return pa.table(arrays)


def _array(column: Any) -> Any:
    """One column; numbers beside strings are strings, as a file would hold them."""
    import pyarrow as pa

    cells = _cells(column)
    try:
        return pa.array(cells)
    except pa.ArrowException:
        if not all(cell is None or isinstance(cell, (str, int, float)) for cell in cells):
            raise
        return pa.array([None if cell is None or cell != cell else str(cell) for cell in cells])


def _cells(column: Any) -> Any:
    """One column, its halves of characters mended: Arrow holds none."""
    from rankwise.data.text import mended

    plain = column.tolist() if hasattr(column, "tolist") else list(column)
    return [mended(cell) if isinstance(cell, str) else cell for cell in plain]
