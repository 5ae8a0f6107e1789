"""How fast this machine trains a configuration: a few real steps on real rows, timed."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.config import Config
from rankwise.deadline import Deadline

_WARM_STEPS = 1
_FEWEST_STEPS = 2
_MOST_BATCHES = 10_000
_NOTICED = 1.1
"""times as long, below which other programs are not told from chance"""
_SCORED, _SCORED_AT_ONCE = 256, 64
"""texts at most, and between two looks at the clock"""


@dataclass(frozen=True)
class Speed:
    """Seconds of one optimizer step, of scoring one text, of setting a run up, and of the tokens before it; and how many times as
    long as alone a thread took."""

    step_s: float
    score_s: float
    setup_s: float
    tokens_s: float = 0.0
    crowding: float = 1.0

    def once_s(self, rows: float) -> float:
        """Seconds of setting up once and scoring so many texts."""
        return self.setup_s + rows * self.score_s

    def at(self, share: float) -> Speed:
        """About how fast it would be with a share of the arithmetic, such as that of fewer tokens."""
        return replace(self, step_s=share * self.step_s, score_s=share * self.score_s)

    def now(self) -> Speed:
        """About how fast it is by now: slower, where other programs have come since.

        Where those that it was measured beside are gone it stays as it was: a plan that is too short is followed by a longer run,
        one that is too long by nothing.
        """
        from rankwise.machine.crowding import crowding

        slower = crowding() / self.crowding
        if slower >= _NOTICED:  # another look tells a program that stays from one that passed by
            slower = min(slower, crowding() / self.crowding)
        if slower < _NOTICED:
            return self
        return Speed(*(slower * value for value in astuple(self)))


def measure(config: Config, roles: Any, seconds: float, *, steps: int | None = None) -> Speed:
    """Train and score for about `seconds` with nothing kept, on rows drawn from train.

    config
        Its scope should be the largest that will be tried: smaller ones are faster.
    steps
        Of a run that the process shall be as large as afterwards: it takes the heaviest of so many batches, and scores the
        longest of as many texts as validation has. By default the longest texts of all come first.
    """
    from rankwise.machine.compiler import without_compiler
    from rankwise.machine.seeds import own_generators

    with own_generators(config.train.seed), without_compiler():
        return _measured(config, roles, seconds, steps)


def _measured(config: Config, roles: Any, seconds: float, steps: int | None) -> Speed:
    import torch

    from rankwise import planning
    from rankwise.machine.crowding import crowding
    from rankwise.machine.device import wait
    from rankwise.machine.processes import this_process
    from rankwise.machine.transfer import sent
    from rankwise.models import tokenizer_of
    from rankwise.models.classifier import computing, logits_of
    from rankwise.training.examples import tokenised
    from rankwise.training.latency import untrained
    from rankwise.training.objective import objective
    from rankwise.training.optimizers import optimizer

    started = time.perf_counter()
    planned = planning.plan(config, len(roles.label_names))
    tokenizer = tokenizer_of(config.model)
    tokens = tokenised(roles.train, tokenizer, config.data.max_length, planned)
    read = time.perf_counter()
    classifier = untrained(planned, roles.label_names, tokenizer)
    device = this_process().device  # where a run would train
    # Once more for the tokens' own lookup, which every run repeats.
    setup_s = 2 * (time.perf_counter() - read) + 0.2 * (read - started)
    named = [(name, value) for name, value in classifier.named_parameters() if value.requires_grad]
    optimizing = optimizer(named, config.train)
    loss = objective(config.train, roles.train.labels, len(roles.label_names), multi_label=config.data.multi_label)
    generator = np.random.default_rng(0)
    times: list[float] = []
    deadline = Deadline.after(0.75 * seconds)
    classifier.train()
    batch_size = min(config.train.batch_size, len(tokens))
    # The longest texts first: memory that a step touches for the first time costs several times what it does later.
    rows = np.argsort(-tokens.lengths, kind="stable")[:batch_size]
    if steps is not None:
        rows = _heaviest(tokens.lengths, batch_size, steps, generator)
    counts: list[int] = []
    while len(times) < _WARM_STEPS + _FEWEST_STEPS or not deadline.has_passed:
        step_started = time.perf_counter()
        with computing(classifier):
            classifier.set_step(len(times))
            labels = sent(torch.from_numpy(roles.train.labels[rows]), device)
            total = loss.total(classifier(classifier.collate(tokens.take(rows))), labels)
            torch.autograd.backward(total / loss.normaliser(roles.train.labels[rows]))
            optimizing.step()
            optimizing.zero_grad()
        wait()
        times.append(time.perf_counter() - step_started)
        counts.append(int(tokens.lengths[rows].sum()))
        rows = generator.choice(len(tokens), size=batch_size, replace=False)
    if steps is not None and roles.validation is not None:
        scored_rows = generator.choice(len(tokens), size=min(len(tokens), len(roles.validation)), replace=False)
        most = scored_rows[np.argsort(-tokens.lengths[scored_rows])][: config.train.eval_batch_size]
        logits_of(classifier, tokens.take(most), config.train.eval_batch_size)
    count = min(len(tokens), _SCORED)
    sample = tokens.take(generator.choice(len(tokens), size=count, replace=False))
    scoring, scored = time.perf_counter(), 0
    while scored < count and (scored == 0 or time.perf_counter() - scoring < 0.25 * seconds):
        batch = sample[scored : scored + _SCORED_AT_ONCE]
        logits_of(classifier, batch, config.train.eval_batch_size)
        scored += len(batch)
    score_s = (time.perf_counter() - scoring) / scored
    # By the token, since a few batches may be longer or shorter than most.
    a_token = sum(times[_WARM_STEPS:]) / sum(counts[_WARM_STEPS:])
    step_s = float(a_token * tokens.lengths.mean() * batch_size)
    return Speed(step_s, score_s, setup_s, read - started, crowding())


def _heaviest(
    lengths: NDArray[np.int64], batch_size: int, steps: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The rows of the batch with most tokens, of as many batches as a run has. Shape: (rows,)"""
    most: NDArray[np.int64] = np.arange(min(batch_size, len(lengths)))
    whole = max(1, len(lengths) // batch_size)
    for _ in range(-(-min(steps, _MOST_BATCHES) // whole)):
        order = generator.permutation(len(lengths))[: whole * batch_size]
        batches = order.reshape(whole, -1)[: min(steps, whole)]
        heaviest = batches[lengths[batches].sum(1).argmax()]
        most = heaviest if lengths[heaviest].sum() > lengths[most].sum() else most
    return most
