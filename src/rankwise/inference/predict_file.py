"""Predicting a file: read, labelled and written a window at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise.data.sources import reading_of
from rankwise.data.streams import Stream, sample_submission, stream
from rankwise.data.table import Reading
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference import words
from rankwise.inference.predictor import predictor_of, words_predictor
from rankwise.inference.progress import WINDOW_ROWS, Progress, check_not_source
from rankwise.inference.saved import SavedClassifier
from rankwise.records.record import Tree
from rankwise.scoring import writers

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
    saved = words.read(run) or saving.read(run, base=base)
    columns = text or saved.text
    batches = stream(
        source, columns, WINDOW_ROWS, reading=reading_of_options(options, columns), empty=empty, pair=saved.pair
    )
    layout, notes = _layout(batches, saved, chosen, kaggle_header, like)
    if isinstance(saved, words.SavedWords):
        predictor = words_predictor(saved.folder, calibrated=calibrated)
    else:
        predictor = predictor_of(saved, calibrated=calibrated, engine=engine)
    folder = saved.folder if isinstance(saved, words.SavedWords) else saved.adapter.folder
    how = (folder, base, engine, calibrated, predictor.computes_with)
    progress = Progress(target, batches.rows, how, resume=resume)
    started = time.perf_counter()
    rows = 0
    with writers.open_writer(
        target, chosen, predictor.label_names, multi_label=predictor.multi_label, separator=saved.separator, **layout
    ) as file:
        for batch in batches:
            (found,) = progress.answers(batch.texts, lambda texts=batch.texts: [predictor.predict_proba(texts)])  # type: ignore[misc]
            file.add(batch.ids, found, predicted=predictor.decide(found))
            rows += len(batch.texts)
    progress.forget()
    seconds = time.perf_counter() - started
    return progress.outcome(batches, target, rows, seconds, [*notes, *saved.notes])


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


def _layout(
    batches: Stream, saved: SavedClassifier | words.SavedWords, format: str, header: str | None, like: str | Path | None
) -> tuple[dict[str, Any], list[str]]:
    """What the kaggle format writes, and a note where labels are written as numbers."""
    if format != "kaggle":
        return {}, []
    if like is not None:
        return {"sample": writers.Sample(Path(like), *sample_submission(like))}, []
    own_ids = batches.id_column is not None
    label = saved.label if isinstance(saved.label, str) else "label"
    own_header = f"{batches.id_column},{label}" if own_ids else writers.KAGGLE_HEADERS[0]
    names = saved.label_names
    is_papers = not own_ids and (header or own_header) in writers.KAGGLE_HEADERS
    spelled = not is_papers or all(name.lstrip("-").isdecimal() for name in names)
    layout = {"kaggle_header": header or own_header, "own_ids": own_ids, "spelled": spelled}
    if spelled:
        return layout, []
    shown = ", ".join(f"{place} is {name}" for place, name in enumerate(names[:10]))
    return layout, [f"labels are written as numbers: {shown}{', ...' if len(names) > 10 else ''}"]
