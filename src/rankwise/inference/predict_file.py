"""Predicting a file: read, labelled and written a window at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rankwise import config as configuration
from rankwise.data.sources import reading_of
from rankwise.data.streams import Stream, sample_submission, stream
from rankwise.data.table import Reading
from rankwise.errors import UserError, listed
from rankwise.inference import saved as saving
from rankwise.inference.predictor import Predictor, predictor_of
from rankwise.inference.progress import WINDOW_ROWS, Arrays, Progress, check_not_source
from rankwise.inference.saved import Saved
from rankwise.records.record import Tree
from rankwise.scoring import writers
from rankwise.scoring.decisions import names_of
from rankwise.scoring.submissions import KAGGLE_HEADERS, Sample, Submission, names_in
from rankwise.scoring.writers import PROBABILITY_PREFIX, Cells, Column, joined_labels

_READING = ("data.encoding", "data.delimiter", "data.quotes", "data.header")


def predict_file(
    run: str | Path,
    source: Any,
    output: str | Path,
    *,
    format: str | None = None,
    text: Sequence[str] | None = None,
    kaggle_header: str | None = None,
    like: str | Path | None = None,
    empty: str = "answer",
    options: Sequence[str] = (),
    calibrated: bool = False,
    base: str | Path | None = None,
    engine: str | None = None,
    resume: bool = False,
) -> Tree:
    """Label every text of a file and write the predictions in the same order, a row for every row.

    source
        A file or folder of any kind that training reads, or a table from Python.
    format
        csv, jsonl, parquet or kaggle; by default the output's ending decides.
    text
        Text columns; by default those the run was trained on.
    kaggle_header
        The two names of the kaggle format's first line. By default the file's own id column and the label column of
        training; ID,Label, which is the papers' hidden test, where the file has no ids.
    like
        A sample submission, which decides columns, order and ids of the kaggle format.
    empty
        answer gives a row without text the answer of an empty text; refuse is strict.
    options
        How the file is written, where that is not to be found: data.encoding=..., data.delimiter, data.quotes,
        data.header.
    calibrated
        Probabilities at the temperature kept with the adapter.
    base, engine
        As in `rankwise.load`.
    resume
        Go on where a prediction into this output was killed.

    Returns: rows, output, source (how it was read), seconds, texts_per_s, resumed_rows, notes.
    Raises: UserError for a missing file or column, an ending that names no format, or a header that the format does not
    have; no output is left then.
    """
    target = Path(output)
    chosen = "kaggle" if like is not None and format is None else writers.format_of(target, format)
    if kaggle_header is not None and chosen != "kaggle":
        raise UserError(f"a kaggle header cannot apply to {chosen}: add --format kaggle, or leave the header out")
    if like is not None and (chosen != "kaggle" or kaggle_header is not None):
        raise UserError("a sample submission decides the format and the header: leave those out")
    check_not_source(source, target)
    saved = saving.read_any(run, base=base)
    columns = text or saved.text
    batches = stream(
        source, columns, WINDOW_ROWS, reading=reading_of_options(options, columns), empty=empty, pair=saved.pair
    )
    submission, notes = _submission(batches, saved, kaggle_header, like) if chosen == "kaggle" else (None, [])
    predictor = predictor_of(saved, calibrated=calibrated, engine=engine)
    if isinstance(submission, Submission) and predictor.multi_label:
        raise UserError(
            "the kaggle format holds one label a row: write several labels as csv, jsonl or parquet, or give a "
            "sample submission with --like"
        )
    how = (saved.folder, base, engine, calibrated, predictor.computes_with)
    progress = Progress(target, batches.rows, how, resume=resume)
    layout = _Single(predictor, saved.separator, "csv" if submission else chosen, submission)
    return write_answers(
        batches, progress, target, layout, lambda texts: [predictor.predict_proba(texts)], [*notes, *saved.notes]
    )


class Layout(Protocol):
    """What a file of answers looks like."""

    @property
    def format(self) -> str:
        """One of `writers.FORMATS`."""

    @property
    def columns(self) -> Sequence[Column]:
        """Of the file."""

    def cells(self, ids: Sequence[Any], found: Arrays) -> Cells:
        """Of a window, from its ids and what was computed of it."""

    def rest(self) -> Cells | None:
        """What was held back until the end."""


def write_answers(
    batches: Stream,
    progress: Progress,
    target: Path,
    layout: Layout,
    compute: Callable[[Sequence[str]], Arrays],
    notes: Sequence[str],
) -> Tree:
    """Answer every window, or take what was kept of it, and write the file; what `predict_file` returns."""
    started, rows = time.perf_counter(), 0
    with writers.open_writer(target, layout.format, layout.columns) as file:
        for batch in batches:
            found = progress.answers(batch.texts, partial(compute, batch.texts))
            file.add(layout.cells(batch.ids, found))
            rows += len(batch.texts)
        if (rest := layout.rest()) is not None:
            file.add(rest)
    progress.forget()
    return progress.outcome(batches, target, rows, time.perf_counter() - started, notes)


@dataclass(frozen=True)
class _Single:
    """One classifier's answer and its probabilities, or what a submission wants of them."""

    predictor: Predictor
    separator: str | None
    format: str
    submission: Submission | Sample | None

    @property
    def columns(self) -> Sequence[Column]:
        """Of the file."""
        if self.submission is not None:
            return self.submission.columns
        answer = Column("predicted", "label" if self._joins or not self.predictor.multi_label else "labels")
        if self.format == "jsonl":
            return [Column("id", "id"), answer, Column("probabilities", "shares")]
        names = self.predictor.label_names
        return [Column("id", "id"), answer, *(Column(f"{PROBABILITY_PREFIX}{name}", "share") for name in names)]

    @property
    def _joins(self) -> bool:
        """Whether several labels stand in one cell."""
        return self.predictor.multi_label and self.format == "csv"

    def cells(self, ids: Sequence[Any], found: Arrays) -> Cells:
        """Of a window."""
        (p,), names = found, self.predictor.label_names
        answers = self.predictor.decide(p)
        named = names_of(answers, names)
        if self._joins:
            named = [joined_labels(several, self.separator) for several in named]
        if self.submission is not None:
            return self.submission.cells(ids, p, answers, named)
        shares = [dict(zip(names, row, strict=True)) for row in p.tolist()] if self.format == "jsonl" else None
        return [ids, named, *([shares] if shares is not None else p.T)]

    def rest(self) -> Cells | None:
        """Of a sample submission, all."""
        return None if self.submission is None else self.submission.rest()


def reading_of_options(options: Sequence[str], columns: Sequence[str] | None) -> Reading:
    """How the file is written, as far as it was said."""
    for word in options:
        if word.partition("=")[0] not in _READING:
            raise UserError(f"'{word}' cannot change at prediction: only {', '.join(_READING)} may")
    data = configuration.load(None, list(options)).data
    found = reading_of(data, "test")
    return Reading(
        found.encoding, found.delimiter, found.quotes, found.header, wanted=tuple(columns or ()), labelled=False
    )


def _submission(
    batches: Stream, saved: Saved, header: str | None, like: str | Path | None
) -> tuple[Submission | Sample, list[str]]:
    """What the kaggle format writes, and a note where labels are written as numbers."""
    names = saved.label_names
    if like is not None:
        return Sample(Path(like), *sample_submission(like), names), []
    own_ids = batches.id_column
    label = saved.label if isinstance(saved.label, str) else "label"
    columns = names_in(header) if header else KAGGLE_HEADERS[0] if own_ids is None else (own_ids, label)
    is_papers = own_ids is None and columns in KAGGLE_HEADERS
    spelled = not is_papers or all(name.lstrip("-").isdecimal() for name in names)
    shown = listed([f"{place} is {name}" for place, name in enumerate(names)], 10)
    note = f"labels are written as numbers: {shown}"
    return Submission(columns, own_ids is not None, spelled), [] if spelled else [note]
