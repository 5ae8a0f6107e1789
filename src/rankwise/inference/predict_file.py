"""Predicting a file: read, labelled and written a window at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.data.streams import stream
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference.predictor import predictor_of
from rankwise.scoring import writers

# Texts read before any is scored: enough that sorting by length inside the window leaves little padding.
WINDOW_ROWS = 4096


def predict_file(
    run: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    format: str | None = None,
    text: Sequence[str] | None = None,
    kaggle_header: str | None = None,
    calibrated: bool = False,
    base: str | Path | None = None,
) -> dict[str, Any]:
    """Label every text of a file and write the predictions in the same order.

    format
        csv, jsonl, parquet or kaggle; by default the output's ending decides.
    text
        Text columns; by default those the run was trained on.
    kaggle_header
        The first line of the kaggle format, ID,Label by default: competitions differ in it.
    calibrated
        Probabilities at the temperature kept with the adapter.
    base
        As in `rankwise.load`.

    Returns: rows, output, seconds, texts_per_s, notes.
    Raises: UserError for a missing file or column, an ending that names no format, or a header that the format does not
    have; no output is left then.
    """
    target = Path(output)
    chosen = writers.format_of(target, format)
    if kaggle_header is not None and chosen != "kaggle":
        raise UserError(f"a kaggle header cannot apply to {chosen}: add --format kaggle, or leave the header out")
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise UserError(f"{output} is the file of texts itself: name another file to write")
    saved = saving.read(run, base=base)
    batches = stream(source, text or saved.text, WINDOW_ROWS)
    predictor = predictor_of(saved, calibrated=calibrated)
    started = time.perf_counter()
    rows = 0
    with writers.open_writer(
        target,
        chosen,
        predictor.label_names,
        multi_label=predictor.multi_label,
        kaggle_header=kaggle_header or writers.KAGGLE_HEADERS[0],
    ) as file:
        for batch in batches:
            file.add(batch.ids, predictor.predict_proba(batch.texts))
            rows += len(batch.texts)
    seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "output": str(target),
        "seconds": round(seconds, 3),
        "texts_per_s": round(rows / seconds, 1),
        "notes": list(saved.notes),
    }
