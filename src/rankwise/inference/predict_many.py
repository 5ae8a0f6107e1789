"""Predicting a file with several classifiers at once, or with the likeliest labels of each: columns for every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.data.streams import stream
from rankwise.errors import UserError
from rankwise.inference.many import Loaded, load_many
from rankwise.inference.predict_file import reading_of_options, write_answers
from rankwise.inference.progress import WINDOW_ROWS, Arrays, Progress, check_not_source
from rankwise.records.record import Tree
from rankwise.scoring import writers
from rankwise.scoring.decisions import names_of
from rankwise.scoring.writers import Cells, Column, joined_labels

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
    layout = _Several(classifiers, top, chosen)
    names = [column.name for column in layout.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two columns would be called '{twice}': rename a run's folder, or from Python give names")
    how = [one for loaded in classifiers for one in (loaded.name, loaded.saved.folder, loaded.computes_with)]
    progress = Progress(target, batches.rows, [*how, base, engine, calibrated], resume=resume)
    notes = [note for one in classifiers for note in one.saved.notes]
    outcome = write_answers(
        batches, progress, target, layout, lambda texts: list(many.predict_proba(texts).values()), notes
    )
    return outcome | {"columns": names}


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


@dataclass(frozen=True)
class _Several:
    """Columns of every classifier."""

    classifiers: Sequence[Loaded]
    top: int | None
    format: str

    @property
    def columns(self) -> Sequence[Column]:
        """Of the file."""
        names = [name for one in self.classifiers for name in self._names(one)]
        both = (column for name in names for column in (Column(name, "label"), Column(f"{name}_p", "share")))
        return [Column("id", "id"), *both]

    def _names(self, loaded: Loaded) -> list[str]:
        if self.top is None:
            return [loaded.name]
        return [f"{loaded.name}_{place}" for place in range(1, min(self.top, len(loaded.label_names)) + 1)]

    def cells(self, ids: Sequence[Any], found: Arrays) -> Cells:
        """Of a window."""
        return [ids, *(cell for one, p in zip(self.classifiers, found, strict=True) for cell in self._cells(one, p))]

    def _cells(self, loaded: Loaded, p: np.ndarray) -> Cells:
        """Labels and their probabilities. Shape: p (rows, classes)"""
        if self.top is None and loaded.multi_label:
            labels = [joined_labels(names, loaded.saved.separator) for names in loaded.names_of(p)]
            return [labels, np.maximum(p, 1 - p).min(1)]
        # The answer, which a goal's decision may take from a less probable label; or the most probable ones.
        order = loaded.decide(p)[:, None] if self.top is None else np.argsort(-p, axis=1, kind="stable")[:, : self.top]
        shares = np.take_along_axis(p, order, 1)
        pairs = zip(order.T, shares.T, strict=True)
        return [cell for chosen, share in pairs for cell in (names_of(chosen, loaded.label_names), share)]

    def rest(self) -> None:
        """Nothing was held back."""
