"""Parquet and Arrow files, and the folders that `datasets` saves with `save_to_disk`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankwise import files
from rankwise.data.opening import Opener
from rankwise.data.table import Reading, Table
from rankwise.errors import UserError, reason_of

_MAGIC = b"ARROW1"
_BATCH_ROWS = 1024
_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def cells_of(column: Any) -> list[Any]:
    """Python's values of a column; numbers that are no double as they are written: 4.7 and not 4.699999809265137."""
    if pa.types.is_decimal(column.type) or (pa.types.is_floating(column.type) and column.type.bit_width < 64):
        return [None if cell is None else float(cell) for cell in column.cast(pa.string()).to_pylist()]
    return list(column.to_pylist())


class Batches(Table):
    """Rows that come in record batches; class names are taken from `datasets`' metadata.

    kind
        What the file is called in messages.
    schema
        Reads it.
    batches
        Reads the columns of these names, as often as it is asked.
    """

    def __init__(
        self, name: str, kind: str, schema: Callable[[], Any], batches: Callable[[list[str]], Iterator[Any]]
    ) -> None:
        super().__init__(name)
        self.facts = [kind]
        self._kind = kind
        self._batches = batches
        with self._whole():
            found = schema()
        self.columns = tuple(found.names)
        self.class_names = _class_names((found.metadata or {}).get(b"huggingface"))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.name} is not a whole {self._kind} file ({reason_of(error)}): write or download it again"
            ) from error

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        distinct = list(dict.fromkeys(names))
        with self._whole():
            for whole in self._batches(distinct):
                for start in range(0, whole.num_rows, _BATCH_ROWS):
                    batch = whole.slice(start, _BATCH_ROWS)
                    cells = {name: cells_of(batch.column(name)) for name in distinct}
                    for row in zip(*(cells[name] for name in names), strict=True):
                        self.row += 1
                        yield row


def open_parquet(file: Opener) -> Batches:
    """A Parquet file, decoded a thousand rows at a time."""

    def schema() -> Any:
        with file.whole() as content:
            return pq.read_schema(content)

    def batches(names: list[str]) -> Iterator[Any]:
        with file.whole() as content, pq.ParquetFile(content) as parquet:
            yield from parquet.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)

    return Batches(str(file.path), "Parquet", schema, batches)


def open_arrow(parts: Sequence[Opener], name: str) -> Batches:
    """One or more Arrow files, in the file or the stream format."""

    def schema() -> Any:
        with parts[0].whole() as content:
            return _reader(content).schema

    def batches(names: list[str]) -> Iterator[Any]:
        for file in parts:
            with file.whole() as content:
                reader = _reader(content)
                if hasattr(reader, "num_record_batches"):
                    yield from map(reader.get_batch, range(reader.num_record_batches))
                else:
                    yield from reader

    return Batches(name, "Arrow", schema, batches)


def _reader(content: Any) -> Any:
    start = content.read(len(_MAGIC))
    content.seek(0)
    return pa.ipc.open_file(content) if start == _MAGIC else pa.ipc.open_stream(content)


# --- datasets.save_to_disk ----------------------------------------------------------------------------


def open_saved_dataset(folder: Path, part: str | None, reading: Reading) -> Table:
    """The data set of a folder, or of the split that the role needs."""
    if not (folder / _STATE).is_file():
        splits = _json(folder / _DICT).get("splits", [])
        split = part or reading.split_in(splits)
        if split is None or split not in splits:
            raise UserError(f"{folder} has {reading.no_split(part, splits)}: its splits are {', '.join(splits)}")
        folder = folder / split
    names = [entry["filename"] for entry in _json(folder / _STATE).get("_data_files", [])]
    if not names:
        raise UserError(f"{folder} names no data files in its {_STATE}: save it again with save_to_disk")
    table = open_arrow([Opener(folder / name, None, name) for name in names], str(folder))
    table.class_names |= _of_features(_json(folder / _INFO).get("features") or {})
    table.facts = ["a saved data set"]
    return table


def _json(path: Path) -> Mapping[str, Any]:
    value = files.read_json(path)
    return value if isinstance(value, dict) else {}


# --- names of classes ---------------------------------------------------------------------------------


def _class_names(metadata: bytes | None) -> dict[str, tuple[str, ...]]:
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
