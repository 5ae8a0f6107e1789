"""What a configuration trained on some rows answers for others: a fold of a cross-validation, of which nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from rankwise import config as configuration
from rankwise.config import Config
from rankwise.data import Roles, Rows
from rankwise.data.report import Report
from rankwise.deadline import NEVER, Deadline
from rankwise.machine.compiler import without_compiler
from rankwise.machine.seeds import own_generators
from rankwise.methods import method_of
from rankwise.models.sources import weights_identity
from rankwise.runs.folder import Run
from rankwise.training import building, fitting, probe
from rankwise.training.examples import tokenised
from rankwise.training.execution import Execution
from rankwise.training.prepare import Job, prepare

_known: dict[str, dict[bytes, torch.Tensor]] = {}
"""frozen features of the last base by token ids: heads of every fold and pooling read those of the same texts"""


def logits_of_held_out(
    config: Config,
    kept: Rows,
    out: Rows,
    label_names: Sequence[str],
    *,
    after: Sequence[int] = (),
    deadline: Deadline = NEVER,
    longer: Deadline = NEVER,
) -> list[np.ndarray]:
    """Logits of rows that were held out, from a run on the others after some of its steps and after the last one; those that
    it came to by the deadlines (`Execution.answers`). Shape of each: (rows, classes)

    Raises: UserError, BudgetError for what `train` refuses.
    """
    with _prepared(config, kept, label_names) as job:
        tokens = tokenised(out, job.tokenizer, job.training.tokens.max_length, job.plan)
        if method_of(job.config).solved_at_once:
            return [_logits_of_head(job, tokens)]
        return Execution(job).answers(tokens, after=after, deadline=deadline, longer=longer)


def logits_of_heads(
    config: Config,
    rows: Rows,
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    label_names: Sequence[str],
) -> NDArray[np.float32]:
    """Logits of the rows that each part holds out, from a head that is solved on frozen features of those it keeps; the features of
    all rows are computed once. Rows that no part holds out have zeros. Shape: (rows, classes)

    parts
        Row numbers that are kept, and held out.

    Raises: UserError, BudgetError for what `train` refuses.
    """
    found = np.zeros((len(rows), len(label_names)), np.float32)
    with _prepared(config, rows, label_names) as job:
        features = _frozen_features(job, job.training.tokens)[:, -job.plan.encoder.pooled_width :]
        for kept, out in parts:
            weight, bias = _head(job, features[kept], rows.labels[kept])
            found[out] = (features[out] @ weight.T + bias).numpy()
    return found


@contextmanager
def _prepared(config: Config, rows: Rows, label_names: Sequence[str]) -> Iterator[Job]:
    """A run on the rows that scores nothing, in a folder that is gone afterwards."""
    config = configuration.replaced(config, "train", evaluate=False, eval_every=None, evaluate_at=[])
    roles = Roles(rows, None, None, list(label_names), Report({}, list(label_names)), config.data)
    with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
        yield prepare(config, Run(Path(folder)), Console(quiet=True), lambda *_, **__: roles)


def _logits_of_head(job: Job, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of texts by a head solved on the frozen features of a job's rows. Shape: (texts, classes)"""
    training = job.training
    rows = np.sort(probe.rows_of_head(len(training), job.config.head.probe_rows, job.config.train.seed))
    features = _frozen_features(job, [*training.tokens.take(rows), *texts])[:, -job.plan.encoder.pooled_width :]
    weight, bias = _head(job, features[: len(rows)], training.labels[rows])
    return (features[len(rows) :] @ weight.T + bias).numpy()


def _head(job: Job, features: torch.Tensor, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The head that is solved on features of labelled rows. Shapes: (rows, features), (rows,) or (rows, classes) -> (classes,
    features), (classes,)"""
    head, classes, seed = job.config.head, len(job.label_names), job.config.train.seed
    weight, bias, _ = probe.solved(
        features, labels, classes, job.objective, head.penalty, seed, directions=head.directions
    )
    return weight, bias


def _frozen_features(job: Job, texts: Sequence[np.ndarray]) -> torch.Tensor:
    """What the head may read of texts (`probe.features`): those that this process has met with the same base are not computed
    again. Shape: (texts, features)"""
    seed = job.config.train.seed
    base = f"{weights_identity(job.config.model, seed)} {fitting.way_of_features(job, None)}"
    if base not in _known:
        _known.clear()
    known, keys = _known.setdefault(base, {}), [text.tobytes() for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        with own_generators(seed), without_compiler():
            assembly = building.assembly_of(job)
            network, (weight, _) = building.network_of(job, assembly), probe.projection_of(assembly)
            features = probe.features(network, weight, list(missing.values()), job.config.train.eval_batch_size)
        known.update(zip(missing, features, strict=True))
    return torch.stack([known[key] for key in keys])
