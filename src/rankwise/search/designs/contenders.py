"""What competes where folds choose: designs that need steps, and what is solved at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import Config, Keys
from rankwise.data.names import are_words
from rankwise.errors import UserError
from rankwise.records.record import Tree
from rankwise.search.designs.design import ALL, FITTED, usual_rate

_EPOCHS, _FEWEST_STEPS, _MOST_STEPS, BATCH = 10, 40, 200, 32
LENGTHS, _SURE_LENGTH = (16, 24, 32, 48, 72, 108, 160), 72
"""of contrastive runs, in steps, of which the folds choose: pairs are learnt by heart, on some data after a third of the steps
that others need, whatever the number of rows (LOG.md). Beyond the second number only where it is within the epochs."""
_WARMUP = 8
"""steps, after which weights are averaged: the mean of too many steps costs little where the last of them have learnt pairs by
heart, and of enough it is as good as the best single step (LOG.md)"""
_RATE, _RATE_RANK = 3e-4, 24
"""of contrastive steps, at that rank"""
_MOST_TIMES = 2.0
"""that, or its inverse: beyond it nothing was tried"""
_CONTRASTIVE: Keys = {
    "train.objective": "contrastive",
    "train.schedule": "constant",  # so that a shorter run is the beginning of a longer one
    "train.batch_size": BATCH,
    "train.average_from": _WARMUP,
    "head.directions": True,  # which is what the loss compares
}
_ROWS_OF_C_1 = 64
"""at which a fitted head has the penalty of logistic regression with C = 1 on texts' directions; C grows with the rows. The
cross-validated loss of so few prefers weak penalties, which are confident; strong ones have more rows right (LOG.md)"""
PAIRS = "contrastive steps, then logistic regression"
DIRECTIONS = "directions of frozen features and logistic regression"
WITH_NAMES = "directions of frozen features, names of classes as texts, and logistic regression"
NAMES: Keys = {"data.name_texts": True}
_LORA = "LoRA from a fitted head"
AT_ONCE: dict[str, Keys | None] = {
    "frozen features and logistic regression": {"adapter.method": "probe"},
    "frozen features (first token and mean) and logistic regression": {
        "adapter.method": "probe",
        "head.pooling": "both",
    },
    "TF-IDF and logistic regression": None,
}


@dataclass(frozen=True)
class Contender:
    """What may be shipped.

    design
        Its configuration keys; None for TF-IDF.
    lengths
        In steps, ascending: the beginnings of its run that cross-validation chooses among.
    """

    title: str
    design: Keys | None
    lengths: tuple[int, ...] = ()

    @property
    def steps(self) -> int | None:
        """Of its run."""
        return None if self.design is None else self.design.get("train.steps")

    @property
    def longest(self) -> int | None:
        """Steps of its run that has all of its lengths."""
        return self.lengths[-1] if self.lengths else self.steps

    def of_length(self, steps: int) -> Contender:
        """The same, for so many steps."""
        return replace(self, design={**(self.design or {}), "train.steps": steps})

    @property
    def is_quick(self) -> bool:
        """Whether it is solved at once, in no steps."""
        return self.design is None or "adapter.method" in self.design


def contenders(
    config: Config,
    fixed: set[str],
    rows: int,
    names: Sequence[str] = (),
    others: Sequence[str] = (),
    length: int | None = None,
) -> list[Contender]:
    """The likeliest first, without what the user has fixed.

    names
        Of the classes, which are texts too where they are words.
    others
        Bases beside the configuration's own.
    length
        Tokens of a text that those read which need steps; None for as many as the others.
    """
    cut: Keys = {} if length is None else {"data.max_length": length}
    steps = config.train.steps or min(max(_EPOCHS * rows // BATCH, _FEWEST_STEPS), _MOST_STEPS)
    lengths = _lengths(config, rows)
    pairs: Keys = {**ALL, **_CONTRASTIVE, **cut, "train.steps": lengths[-1]}
    if not fixed & {"train.warmup_steps", "train.warmup_ratio"}:
        pairs |= {"train.warmup_steps": min(_WARMUP, lengths[0] - 1), "train.warmup_ratio": None}
    designs: dict[str, Keys | None] = {
        PAIRS: _at_its_rate(pairs, config, len(names)),
        DIRECTIONS: {"adapter.method": "probe", "head.directions": True},
        WITH_NAMES: {"adapter.method": "probe", "head.directions": True, **NAMES},
        **AT_ONCE,
        **{f"{PAIRS}, on {name}": _at_its_rate({**pairs, "model.name": name}, config, len(names)) for name in others},
        _LORA: {**_lora(steps), **cut, "train.batch_size": BATCH},
    }
    if not names or config.data.pair or not are_words(names):
        del designs[WITH_NAMES]
    return _without_fixed(designs, fixed, lengths)


def of_more_rows(fixed: set[str], steps: int) -> list[Contender]:
    """The likeliest first, where rows are more than a few: pairs say nothing then that cross-entropy does not, nor do directions
    (LOG.md)."""
    return _without_fixed({_LORA: _lora(steps), **AT_ONCE}, fixed)


def _at_its_rate(design: Keys, config: Config, labels: int) -> Keys:
    """The design with a learning rate by the rank that its budget leaves its base.

    With alpha in proportion to the rank, a step of Adam moves B A by the root of the rank: a low rank is only slower, and of
    so few steps there is no time for more (LOG.md; Kalajdzievski 2023 has the root from the other side).
    """
    tree = configuration.with_keys(configuration.to_dict(config), design)
    try:
        rank = planning.plan(configuration.from_dict(tree), max(labels, 2)).rank
    except UserError:  # its folds say so
        rank = None
    times = math.sqrt(_RATE_RANK / rank) if isinstance(rank, int) else 1.0
    rate = _RATE * min(max(times, 1 / _MOST_TIMES), _MOST_TIMES)
    return {**design, "train.learning_rate": float(f"{rate:.1e}")}


def _lora(steps: int) -> Keys:
    """What hardly ever loses where rows are some hundred or more."""
    return {**ALL, **FITTED, "train.learning_rate": usual_rate(steps), "train.steps": steps}


def _without_fixed(
    designs: Mapping[str, Keys | None], fixed: set[str], lengths: tuple[int, ...] = ()
) -> list[Contender]:
    """Contenders of designs, without the keys that the user has fixed and what then comes to the same."""
    kept: list[Contender] = []
    for title, design in designs.items():
        own = design if design is None else {key: value for key, value in design.items() if key not in fixed}
        if own is None or all(own != other.design for other in kept):
            contrastive = own is not None and own.get("train.objective") == "contrastive"
            kept.append(Contender(title, own, lengths if contrastive else ()))
    return kept


def _lengths(config: Config, rows: int) -> tuple[int, ...]:
    """Of contrastive runs, in steps, ascending; one where the user has fixed it."""
    if config.train.steps is not None:
        return (config.train.steps,)
    longest = max(_EPOCHS * rows // BATCH, _SURE_LENGTH)
    return tuple(steps for steps in LENGTHS if steps <= longest)


def configured(tree: Tree, design: Keys, labels: NDArray[Any]) -> Tree:
    """The configuration of a design. Shape of labels: (rows,), or (rows, classes) where each class is a regression of its own,
    of which the loss is the mean.
    """
    own = configuration.to_dict(configuration.from_dict(tree))
    own["train"] |= {"steps": own["train"]["steps"] or 1, "epochs": None}
    if "adapter.method" in design:
        own["adapter"] = {}
    own = configuration.with_keys(own, design)
    if own["head"]["penalty"] == "auto":  # features of deviation 1 are as long as the root of their number
        width = planning.encoder_of(configuration.from_dict(own).model).pooled_width
        own["head"]["penalty"] = width * _ROWS_OF_C_1 / labels.size
    return own
