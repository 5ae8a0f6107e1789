"""Which tokens `auto` keeps of texts that are too long: the first, or half of them the last where that says more.

Letters and reviews often close with what decides, and news open with it. A head is fitted on frozen features of a sample of
the training rows, cut either way, and scored on those rows of other folds of the sample that are cut. Where few texts are, or
the clock has no time to ask, the first tokens are kept.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import Config
from rankwise.data import Roles, Rows
from rankwise.data.folds import splits
from rankwise.errors import UserError
from rankwise.machine.segments import HEAD, HEAD_AND_TAIL
from rankwise.models import tokenizer_of
from rankwise.records import Scores
from rankwise.scoring import metrics
from rankwise.search.clock.clock import Clock
from rankwise.search.designs.bases import says_more
from rankwise.search.designs.contenders import configured
from rankwise.search.floors.floor import probe_tree
from rankwise.training.examples import tokenised
from rankwise.training.held_out import logits_of_heads

_MATTERS = 0.1
"""of the training texts are cut, or it is not asked: other ends of fewer move fewer answers than a sample tells apart"""
_FEWEST_ROWS, _SURE_ROWS, _MOST_ROWS = 50, 300, 2_000
"""of a sample: fewer say nothing, so many tell ends apart of which one says nothing, and more hardly say anything else"""
_FOLDS = 3


def chosen(
    config: Config, roles: Roles, fixed: set[str], clock: Clock, score_s: float | None = None
) -> tuple[str, list[str]]:
    """The `data.truncation` to take, and a line that says why; no line where it is not asked.

    config
        With the length that texts are cut at; None where all but the longest hundredth fit, or the model takes no more.
    fixed
        The keys that the user has set.
    score_s
        In which a text is scored; None where rows are few and it was not measured.
    """
    given = config.data.truncation
    assert roles.train is not None
    if "data.truncation" in fixed:
        return given, []
    length, cut = _cut(config, roles.train, len(roles.label_names))
    if cut.mean() < _MATTERS:
        return given, []
    config = configuration.replaced(config, "data", max_length=length)
    order = np.random.default_rng(0).permutation(len(roles.train))
    try:
        count = _rows_in_time(config, roles, order, clock, score_s)
        if count < _FEWEST_ROWS:
            return given, [
                f"ends      {_of_texts(cut, length)}: the clock has no time to ask whether their ends say more"
            ]
        rows = roles.train.take(order[:count])
        head, both = (
            _scores(config, rows, cut[order[:count]], roles.label_names, truncation)
            for truncation in (HEAD, HEAD_AND_TAIL)
        )
    except UserError:  # no class has two rows in the sample, or it has no row that is cut
        return given, []
    taken = HEAD_AND_TAIL if says_more(both, head, config.train.select.metric) else HEAD
    return taken, [_line(_of_texts(cut, length), both, head, taken)]


def _cut(config: Config, rows: Rows, classes: int) -> tuple[int, NDArray[np.bool_]]:
    """The length that texts are cut at, and which of them are. Shape: (rows,)"""
    tokens = tokenised(rows, tokenizer_of(config.model), config.data.max_length, planning.plan(config, classes))
    return tokens.max_length, tokens.full_lengths > tokens.max_length


def _rows_in_time(config: Config, roles: Roles, order: NDArray[np.int64], clock: Clock, score_s: float | None) -> int:
    """How many of the rows the clock has the time for; where a text was not timed, the fewest are."""
    assert roles.train is not None
    if score_s is not None:
        room = max(clock.cuts_s / (2 * score_s), min(_SURE_ROWS, clock.most_cuts_s / (2 * score_s)))
    else:
        least, started = order[:_FEWEST_ROWS], time.perf_counter()
        _scores(config, roles.train.take(least), np.ones(len(least), bool), roles.label_names, HEAD)
        room = clock.most_cuts_s * len(least) / (time.perf_counter() - started)
    return min(len(order), _MOST_ROWS, int(room))


def _scores(config: Config, rows: Rows, cut: NDArray[np.bool_], names: list[str], truncation: str) -> Scores:
    """What heads on frozen features, each fitted on the other folds, answer to the rows that are cut. Shape of cut: (rows,)"""
    tree = {**probe_tree(config), "budget": {}}
    design = {"adapter.method": "probe", "data.truncation": truncation}
    # The penalty of so many rows: to choose one by folds again takes longer than the features.
    once = configuration.from_dict(configured(tree, design, rows.labels))
    parts = splits(rows.labels, _FOLDS, config.data.split_seed)
    logits = logits_of_heads(once, rows, parts, names)
    scored = np.isin(np.arange(len(rows)), np.concatenate([out for _, out in parts])) & cut
    if not scored.any():
        raise UserError("the sample holds no text that is cut")
    return metrics.evaluate(logits[scored], rows.labels[scored], names)


def _of_texts(cut: NDArray[np.bool_], length: int) -> str:
    return f"{100 * cut.mean():.0f}% of the texts are longer than {length:,} tokens"


def _line(longer: str, both: Scores, head: Scores, taken: str) -> str:
    read = "first and last are read" if taken == HEAD_AND_TAIL else "the first are read"
    other = HEAD if taken == HEAD_AND_TAIL else HEAD_AND_TAIL
    return (
        f"ends      {longer}; frozen features of {head.examples:,} of them: {both.accuracy:.4f} by first and last tokens "
        f"(loss {both.loss:.3f}), {head.accuracy:.4f} by the first (loss {head.loss:.3f}); {read}, "
        f"data.truncation={other} keeps the others"
    )
