"""Whether one text is answered within `budget.max_ms`, measured on this machine before anything trains.

How long an answer takes depends on shapes alone, so an untrained adapter tells it. What can be solved is the length that
texts are cut at; a base that is too slow for its shortest text is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from rankwise import config as configuration
from rankwise.data import Rows
from rankwise.data.tokens import Tokens, special_tokens
from rankwise.errors import BudgetError
from rankwise.inference.latency import at_percentile, of_texts
from rankwise.inference.predictor import Predictor
from rankwise.models.classifier import classifier_of
from rankwise.models.fresh import assembled
from rankwise.planning import Plan, measured
from rankwise.records import Latency
from rankwise.training.examples import tokenised

_FEWEST_WORDS = 6
"""tokens beside the special ones: texts cut shorter than that say too little"""
_LENGTHS, _TEXTS = (8, 16, 32, 64, 128, 256, 512), 4
"""tokens of the texts, and texts, that a plan is measured by"""
_FRESH_S = 3600.0
"""for which a measurement of this machine stands in for another: the trials of a search are held to the same one"""


def within(plan: Plan, rows: Rows, label_names: Sequence[str], tokenizer: Any) -> tuple[Plan, Latency | None]:
    """The plan with the longest `data.max_length` that keeps the budget, where none is given, and what was measured.

    rows
        The training rows, whose lengths say what one text is.

    Raises: BudgetError, naming the nearest that fits, when the configuration is over it.
    """
    limit, percentile = plan.config.budget.max_ms, plan.config.budget.ms_percentile
    if limit is None:
        return plan, None
    given = plan.config.data.max_length
    tokens = tokenised(rows, tokenizer, given, plan)
    texts = at_percentile(rows.texts, tokens.full_lengths, percentile)
    length = int(np.percentile(tokens.lengths, percentile, method="higher"))
    ask = _Measuring(plan, label_names, tokenizer, texts, percentile)
    first = ask(length)
    if first.p50_ms <= limit:
        return plan, first
    fewest = sum(special_tokens(tokenizer)) + _FEWEST_WORDS
    fitting = longest_within(lambda cut: ask(cut).p50_ms <= limit, fewest, length - 1)
    if fitting is None:
        least = ask(min(fewest, length))
        raise BudgetError(
            f"one text takes {least.p50_ms:.2f} ms on this machine even when it is cut at {least.tokens} tokens, over "
            f"budget.max_ms of {limit:g}: raise it, or name a smaller base with model.name"
        )
    if given is not None:
        raise BudgetError(
            f"one text of {length} tokens takes {first.p50_ms:.2f} ms on this machine, over budget.max_ms of {limit:g}: "
            f"the longest data.max_length that fits is {fitting}"
        )
    return with_length(plan, fitting), ask(fitting)


def measure(plan: Plan, tokenizer: Any) -> measured.Measured:
    """What one text takes here at some lengths, up to the longest that the configuration keeps; kept for later plans."""
    names = [str(label) for label in range(plan.num_labels)]
    longest = min(plan.config.data.max_length or plan.positions, plan.positions)
    drawn = np.random.default_rng(0).integers(0, len(tokenizer), (_TEXTS, 2 * longest))
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn.tolist()]
    measured.write(plan, msgspec.structs.replace(measured.read(plan), single={}))
    ask = _Measuring(plan, names, tokenizer, texts, 50)
    for length in sorted({min(length, longest) for length in _LENGTHS}):
        ask(length)
    return measured.read(plan)


def of_network(network: Any, tokenizer: Any, rows: Rows, tokens: Tokens, percentile: int) -> Latency:
    """What one of the rows takes.

    tokens
        Of the rows, cut as they are for the network.
    """
    asked = Predictor(network, tokenizer, [], tokens.max_length, tokens.truncation)
    texts = at_percentile(rows.texts, tokens.full_lengths, percentile)
    length = int(np.percentile(tokens.lengths, percentile, method="higher"))
    return of_texts(asked.logits_of_cleaned, texts, tokens=length, percentile=percentile)


def with_length(plan: Plan, length: int) -> Plan:
    """The plan of a configuration whose texts are cut there."""
    return replace(plan, config=configuration.replaced(plan.config, "data", max_length=length))


def longest_within(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number that fits, where all below it do; None when not even the lowest does."""
    if high < low or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


class _Measuring:
    """One text's time at a length, measured once; the network is made when it is first needed."""

    def __init__(
        self, plan: Plan, label_names: Sequence[str], tokenizer: Any, texts: Sequence[str], percentile: int
    ) -> None:
        self._plan, self._label_names, self._tokenizer = plan, list(label_names), tokenizer
        self._texts, self._percentile = texts, percentile
        self._classifier: Any = None

    def __call__(self, length: int) -> Latency:
        kept = measured.read(self._plan)
        known = kept.single.get(str(length))
        if known is None or time.time() - known.at > _FRESH_S:
            latency = self._measure(length)
            known = measured.Single(p50_ms=latency.p50_ms, p99_ms=latency.p99_ms, at=time.time())
            kept.single[str(length)] = known
            measured.write(self._plan, kept)
        return Latency(p50_ms=known.p50_ms, p99_ms=known.p99_ms, tokens=length, percentile=self._percentile)

    def _measure(self, length: int) -> Latency:
        if self._classifier is None:
            self._classifier = untrained(self._plan, self._label_names, self._tokenizer)
        asked = Predictor(self._classifier, self._tokenizer, self._label_names, length)
        return of_texts(asked.logits_of_cleaned, self._texts)


def untrained(plan: Plan, label_names: Sequence[str], tokenizer: Any) -> Any:
    """The network of a plan as it is before training, ready to answer on this machine's device."""
    from rankwise.machine.processes import this_process
    from rankwise.machine.seeds import own_generators

    # Any start is as fast as another, and EVA's would need activations first.
    config = configuration.replaced(plan.config, "adapter", init="default")
    with own_generators(config.train.seed):
        assembly = assembled(config, len(label_names), label_names, total_steps=1)
        network: Any = classifier_of(assembly, config, pad_token_id=tokenizer.pad_token_id)
    return network.to(this_process().device).eval()
