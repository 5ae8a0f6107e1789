"""What a configuration trained on some rows answers for others: a fold of a cross-validation, of which nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from rankwise.config import Config
from rankwise.data import Roles, Rows
from rankwise.data.report import Report
from rankwise.data.tokens import tokenise
from rankwise.machine import caches
from rankwise.runs.folder import Run
from rankwise.training.execution import Execution
from rankwise.training.prepare import prepare


def logits_of_held_out(
    config: Config,
    kept: Rows,
    out: Rows,
    label_names: Sequence[str],
    *,
    after: Sequence[int] = (),
    deadline: float | None = None,
) -> list[np.ndarray]:
    """Logits of rows that were held out, from a run on the others after some of its steps and after the last one; those that
    it came to by the deadline (`Execution.answers`). Shape of each: (rows, classes)

    Raises: UserError, BudgetError for what `train` refuses.
    """
    config = msgspec.structs.replace(
        config, train=msgspec.structs.replace(config.train, evaluate=False, eval_every=None, evaluate_at=[])
    )
    report = Report({}, list(label_names))
    roles = Roles(kept, None, None, list(label_names), report, config.data)
    with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
        job = prepare(config, Run(Path(folder)), Console(quiet=True), lambda *_, **__: roles)
        tokens = tokenise(
            out.texts,
            job.tokenizer,
            job.training.tokens.max_length,
            caches.cache("tokens"),
            positions=job.plan.positions,
        )
        return Execution(job).answers(tokens, after=after, deadline=deadline)
