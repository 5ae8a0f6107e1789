"""Parquet and Arrow files, and the folders that `datasets` saves with `save_to_disk`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankwise import files
from rankwise.data.formats.json_shapes import SPLITS
from rankwise.data.opening import Opener
from rankwise.data.table import Reading, Table
from rankwise.errors import UserError, nearest, reason_of

SUFFIXES = (".parquet", ".pq")
ARROW_MAGIC = b"ARROW1"
_BATCH_ROWS = 1024
_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def cells_of(column: Any) -> list[Any]:
    """Python's values of a column; numbers that are no double as they are written: 4.7 and not 4.699999809265137."""
    if pa.types.is_decimal(column.type) or (pa.types.is_floating(column.type) and column.type.bit_width < 64):
        return [None if cell is None else float(cell) for cell in column.cast(pa.string()).to_pylist()]
    return list(column.to_pylist())


class Batches(Table):
    """Rows that come in record batches."""

    def _batches(self, names: list[str]) -> Iterator[Any]:
        raise NotImplementedError

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        distinct = list(dict.fromkeys(names))
        try:
            for whole in self._batches(distinct):
                for start in range(0, whole.num_rows, _BATCH_ROWS):
                    batch = whole.slice(start, _BATCH_ROWS)
                    cells = {name: cells_of(batch.column(name)) for name in distinct}
                    for row in zip(*(cells[name] for name in names), strict=True):
                        self.row += 1
                        yield row
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _take_schema(self, schema: Any) -> None:
        self.columns = tuple(schema.names)
        self.class_names = class_names((schema.metadata or {}).get(b"huggingface"))

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.name} is not a whole {self.facts[0]} file ({reason_of(error)}): write or download it again"
        )


class Parquet(Batches):
    """Parquet, decoded a thousand rows at a time; class names are taken from `datasets`' metadata."""

    def __init__(self, file: Opener, reading: Reading) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.facts = ["Parquet"]
        try:
            with file.whole() as content:
                self._take_schema(pq.read_schema(content))
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _batches(self, names: list[str]) -> Iterator[Any]:
        with self._file.whole() as content, pq.ParquetFile(content) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)


class Arrow(Batches):
    """One or more Arrow files, in the file or the stream format."""

    def __init__(self, parts: Sequence[Opener], name: str, features: Mapping[str, Any] | None = None) -> None:
        super().__init__(name)
        self._parts = list(parts)
        self.facts = ["Arrow"]
        try:
            with self._parts[0].whole() as content:
                self._take_schema(_reader(content).schema)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        self.class_names |= _of_features(features or {})

    def _batches(self, names: list[str]) -> Iterator[Any]:
        for file in self._parts:
            with file.whole() as content:
                reader = _reader(content)
                if hasattr(reader, "num_record_batches"):
                    yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
                else:
                    yield from reader


def open_arrow(file: Opener, reading: Reading) -> Table:
    """One Arrow file."""
    return Arrow([file], str(file.path))


def _reader(content: Any) -> Any:
    start = content.read(len(ARROW_MAGIC))
    content.seek(0)
    return pa.ipc.open_file(content) if start == ARROW_MAGIC else pa.ipc.open_stream(content)


# --- datasets.save_to_disk ----------------------------------------------------------------------------


def open_saved_dataset(folder: Path, part: str | None, reading: Reading) -> Table:
    """The data set of a folder, or of the split that the role needs."""
    if not (folder / _STATE).is_file():
        splits = _json(folder / _DICT).get("splits", [])
        split = part or next((name for name in SPLITS[reading.role] if name in splits), None)
        if split is None or split not in splits:
            asked = f"no split '{part}'{nearest(str(part), splits)}" if part else f"no split for {reading.role}"
            raise UserError(f"{folder} has {asked}: its splits are {', '.join(splits)}")
        folder = folder / split
    names = [entry["filename"] for entry in _json(folder / _STATE).get("_data_files", [])]
    if not names:
        raise UserError(f"{folder} names no data files in its {_STATE}: save it again with save_to_disk")
    features = _json(folder / _INFO).get("features") or {}
    table = Arrow([Opener(folder / name, None, name) for name in names], str(folder), features)
    table.facts = ["a saved data set"]
    return table


def _json(path: Path) -> Mapping[str, Any]:
    value = files.read_json(path)
    return value if isinstance(value, dict) else {}


# --- names of classes ---------------------------------------------------------------------------------


def class_names(metadata: bytes | None) -> dict[str, tuple[str, ...]]:
    """Names of the classes of each column that `datasets` wrote as a ClassLabel, or as a list of them."""
    try:
        return _of_features(json.loads(metadata or b"")["info"]["features"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _of_features(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    inner = {
        column: feature.get("feature") or feature for column, feature in features.items() if isinstance(feature, dict)
    }
    return {
        column: tuple(feature["names"])
        for column, feature in inner.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
    }
