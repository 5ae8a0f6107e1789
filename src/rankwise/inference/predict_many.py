"""Predicting a file with several classifiers at once, or with the likeliest labels of each: columns for every one."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from rankwise.data.streams import stream
from rankwise.errors import UserError
from rankwise.files import replacing, writing
from rankwise.inference.many import Loaded, load_many
from rankwise.inference.predict_file import reading_of_options
from rankwise.inference.progress import WINDOW_ROWS, Progress, check_not_source
from rankwise.records.record import Tree
from rankwise.scoring import writers
from rankwise.scoring.writer import joined_labels

_FORMATS = ("csv", "jsonl", "parquet")


def predict_many(
    runs: Sequence[str | Path] | Mapping[str, str | Path],
    source: Any,
    output: str | Path,
    *,
    top: int | None = None,
    format: str | None = None,
    text: Sequence[str] | None = None,
    empty: str = "answer",
    options: Sequence[str] = (),
    calibrated: bool = False,
    base: str | Path | None = None,
    engine: str | None = None,
    resume: bool = False,
) -> Tree:
    """Label every text of a file by every classifier, a row for every row.

    A classifier NAME has the columns NAME and NAME_p, its most probable label and that one's probability; with `top`
    NAME_1, NAME_1_p, NAME_2, ..., most probable first. Where a text may carry several labels, NAME joins those that it
    carries and NAME_p is the probability of the least certain decision.

    runs
        As `load_many` takes them.
    top
        Labels of each text, at most as many as there are.
    source, format, text, empty, options, calibrated, base, engine, resume
        As `predict_file` has them; the formats are csv, jsonl and parquet.

    Returns: rows, output, source (how it was read), seconds, texts_per_s, resumed_rows, notes, columns.
    Raises: UserError as `predict_file`, and where the runs read other columns.
    """
    if top is not None and top < 1:
        raise UserError(f"--top is {top}, expected 1 or more")
    target = Path(output)
    chosen = writers.format_of(target, format)
    if chosen not in _FORMATS:
        raise UserError(f"{chosen} holds one answer a row: several are written as one of {', '.join(_FORMATS)}")
    check_not_source(source, target)
    many = load_many(runs, base=base, engine=engine, calibrated=calibrated)
    classifiers = list(many.loaded.values())
    columns, pair = _columns_read(classifiers, text)
    reading = reading_of_options(options, columns)
    batches = stream(source, columns, WINDOW_ROWS, reading=reading, empty=empty, pair=pair)
    names = ["id", *(name for one in classifiers for name in _columns_of(one, top))]
    how = [one for loaded in classifiers for one in (loaded.name, loaded.saved.adapter.folder, loaded.computes_with)]
    progress = Progress(target, batches.rows, [*how, base, engine, calibrated], resume=resume)
    started, rows = time.perf_counter(), 0
    with replacing(target) as handle:
        write, end = _writer(chosen, handle, names)
        for batch in batches:
            found = progress.answers(batch.texts, lambda texts=batch.texts: list(many.predict_proba(texts).values()))  # type: ignore[misc]
            shares = zip(classifiers, found, strict=True)
            cells = [batch.ids, *(cell for one, p in shares for cell in _cells(one, p, top))]
            with writing(target):
                write(cells)
            rows += len(batch.texts)
        with writing(target):
            end()
    progress.forget()
    seconds = time.perf_counter() - started
    notes = [note for one in classifiers for note in one.saved.notes]
    return progress.outcome(batches, target, rows, seconds, notes) | {"columns": names}


def _columns_read(classifiers: Sequence[Loaded], text: Sequence[str] | None) -> tuple[list[str], bool]:
    """The text columns, and whether two are a pair."""
    first = classifiers[0].saved
    for other in classifiers[1:]:
        saved = other.saved
        if saved.pair != first.pair or (text is None and saved.text != first.text):
            raise UserError(
                f"{classifiers[0].name} was trained on {' + '.join(first.text)}, {other.name} on {' + '.join(saved.text)}: "
                "name the text column for all of them with --text"
            )
    return list(text or first.text), first.pair


def _columns_of(loaded: Loaded, top: int | None) -> list[str]:
    if top is None:
        return [loaded.name, f"{loaded.name}_p"]
    places = range(1, min(top, len(loaded.label_names)) + 1)
    return [name for place in places for name in (f"{loaded.name}_{place}", f"{loaded.name}_{place}_p")]


def _cells(loaded: Loaded, p: np.ndarray, top: int | None) -> list[list[Any]]:
    """The cells of `_columns_of`, a list a column. Shape: p (rows, classes)"""
    if top is None and loaded.saved.multi_label:
        labels = [joined_labels(names, loaded.saved.separator) for names in loaded.names_of(p)]
        return [labels, _rounded(np.maximum(p, 1 - p).min(1))]
    order = np.argsort(-p, axis=1, kind="stable")
    if top is None:  # the answer, which a goal's decision may take from a less probable label
        order = loaded.decide(p)[:, None]
    cells: list[list[Any]] = []
    for place in range(1 if top is None else min(top, p.shape[1])):
        chosen = order[:, place]
        shares = np.take_along_axis(p, chosen[:, None], 1)[:, 0]
        cells += [[loaded.label_names[label] for label in chosen], _rounded(shares)]
    return cells


def _rounded(shares: np.ndarray) -> list[float]:
    rounded: list[float] = np.round(shares.astype(np.float64), 6).tolist()
    return rounded


def _writer(
    format: str, handle: IO[bytes], names: Sequence[str]
) -> tuple[Callable[[Sequence[Any]], None], Callable[[], None]]:
    """What takes columns of cells, and what ends the file."""
    if format == "parquet":
        return _parquet(handle, names)
    if format == "csv":
        handle.write(_csv([names]))
        return lambda cells: _written(handle, _csv(zip(*cells, strict=True))), lambda: None
    return lambda cells: _written(handle, _jsonl(names, cells)), lambda: None


def _written(handle: IO[bytes], content: bytes) -> None:
    handle.write(content)


def _csv(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _jsonl(names: Sequence[str], cells: Sequence[Any]) -> bytes:
    rows = (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode()


def _parquet(handle: IO[bytes], names: Sequence[str]) -> tuple[Callable[[Sequence[Any]], None], Callable[[], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened: list[Any] = []

    def write(cells: Sequence[Any]) -> None:
        ids = [str(one) for one in cells[0]]
        table = pa.table(dict(zip(names, [ids, *cells[1:]], strict=True)))
        if not opened:
            opened.append(pq.ParquetWriter(handle, table.schema))
        opened[0].write_table(table)

    def end() -> None:
        for writer in opened:
            writer.close()

    return write, end
