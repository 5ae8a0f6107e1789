"""The texts behind a run's predictions, which a run's folder does not keep: read again from where they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rankwise.errors import UserError
from rankwise.runs.folder import Run
from rankwise.scoring.predictions import Predictions, draw_order

if TYPE_CHECKING:
    from rankwise.data import Rows

# What can keep texts from being read again, beside a source that is gone.
_UNREADABLE = (UserError, OSError, ImportError)


def rows_again(run: Run | None, role: str) -> Rows | None:
    """The rows of a run's role, read again; None when they cannot be read any more or are others now, and of no run."""
    from rankwise import data

    if run is None:
        return None
    config, known = run.config, run.record
    # Where a run was evaluated, its validation rows are no training rows.
    roles = ("train", "validation") if role == "train" and config.train.evaluate else (role,)
    try:
        rows = data.load(config.data, roles=roles, label_names=known.labels, audit=False).named().get(role)
    except _UNREADABLE:
        return None
    recorded = known.data.get(role)
    return rows if rows is not None and recorded is not None and rows.sha256 == recorded.sha256 else None


def scored_texts(run: Run, read: Predictions) -> tuple[Sequence[str] | None, str]:
    """The texts of the predicted rows, in their order, or None and the reason that they cannot be had.

    They are compared with what was scored by their hash: a source that changed gives no texts.
    """
    from rankwise import data

    if read.role == "test" and run.config.data.test is None and run.config.data.test_size is None:
        return None, "the test rows were named at evaluation and are not part of the run's configuration"
    try:
        roles = data.load(run.config.data, roles=(read.role,), label_names=read.label_names, audit=False)
    except _UNREADABLE as error:
        return None, str(error)
    rows = roles.named().get(read.role)
    if rows is not None and len(read.ids) < len(rows):  # drawn by chance where a clock had no time for all
        rows = rows.take(np.sort(draw_order(len(rows))[: len(read.ids)]))  # names may stand twice
    if rows is None or rows.sha256 != read.rows_sha256:
        return None, "the source no longer holds the rows that were scored"
    return rows.texts, ""
