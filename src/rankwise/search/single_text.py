"""`auto` within milliseconds a text: how long texts may be, which floors are quick enough, and what the winner takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import config as configuration
from rankwise import planning
from rankwise.data import Rows
from rankwise.inference.latency import at_percentile, in_words, of_texts, over
from rankwise.inference.predictor import load
from rankwise.records import Latency, Winner
from rankwise.records.record import Tree
from rankwise.runs.folder import Run
from rankwise.training import latency

_HEADROOM = 0.9
"""of the limit, for a design: it is measured once more when it is shipped, and two measurements differ"""


@dataclass(frozen=True)
class SingleText:
    """What a user allows one text to take.

    limit_ms
        None: anything.
    percentile
        Of the training texts' lengths.
    """

    limit_ms: float | None
    percentile: int
    rows: Rows

    def settled(self, tree: Tree, roles: Any) -> Tree:
        """The tree of `auto` with texts cut so that its largest design keeps the limit. Trials are measured no more: each is
        at most as slow.

        Raises: BudgetError when no length keeps it.
        """
        if self.limit_ms is None:
            return tree
        from rankwise.models import tokenizer_of

        config = configuration.from_dict(tree)
        held = configuration.replaced(config, "budget", max_ms=_HEADROOM * self.limit_ms)
        planned = planning.plan(held, len(roles.label_names))
        planning.require_fit(planned)
        fitting, _ = latency.within(planned, self.rows, roles.label_names, tokenizer_of(config.model))
        free = {"budget.max_ms": None, "data.max_length": fitting.config.data.max_length}
        return configuration.with_keys(tree, free)

    def is_quick(self, folder: Path) -> bool:
        """Whether what a run's folder holds keeps the limit."""
        return self.limit_ms is None or self.of_run(folder).p50_ms <= self.limit_ms

    def of_run(self, folder: Path) -> Latency:
        """What a run's folder takes for one text as it is served."""
        predictor = load(folder)
        lengths = np.array([len(text) for text in self.rows.texts], dtype=np.int64)
        texts = at_percentile(self.rows.texts, lengths, self.percentile)
        tokens = None
        if predictor.tokenizer is not None:
            tokens = int(np.median([len(ids) for ids in predictor.tokens_of(texts)]))
        return of_texts(predictor.logits_of_cleaned, texts, tokens=tokens, percentile=self.percentile)

    def line(self, winner: Winner, folder: Path) -> list[str]:
        """What `auto` says of the winner's, once it is measured and kept in its result.json; nothing without a limit."""
        if self.limit_ms is None:
            return []
        measured = self.of_run(folder / winner.run)
        late = over(measured, self.limit_ms)
        with Run(folder / winner.run).changing() as result:
            result.latency = measured
            result.notes += [late] if late else []
        return [
            f"one text  {in_words(measured, self.limit_ms).removeprefix('one text ')}{' (over it)' if late else ''}"
        ]
