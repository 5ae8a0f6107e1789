"""What a configuration trained on some rows answers for others: a fold of a cross-validation, of which nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from rankwise import config as configuration
from rankwise.config import Config
from rankwise.data import Roles, Rows
from rankwise.data.report import Report
from rankwise.data.tokens import tokenise
from rankwise.machine import caches
from rankwise.machine.compiler import without_compiler
from rankwise.machine.seeds import own_generators
from rankwise.methods import method_of
from rankwise.models.sources import weights_identity
from rankwise.runs.folder import Run
from rankwise.training import building, fitting, probe
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
    deadline: float | None = None,
) -> list[np.ndarray]:
    """Logits of rows that were held out, from a run on the others after some of its steps and after the last one; those that
    it came to by the deadline (`Execution.answers`). Shape of each: (rows, classes)

    Raises: UserError, BudgetError for what `train` refuses.
    """
    config = configuration.replaced(config, "train", evaluate=False, eval_every=None, evaluate_at=[])
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
            truncation=job.config.data.truncation,
        )
        if method_of(job.config).solved_at_once:
            return [_logits_of_head(job, tokens)]
        return Execution(job).answers(tokens, after=after, deadline=deadline)


def _logits_of_head(job: Job, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of texts by a head solved on the frozen features of a job's rows. Shape: (texts, classes)"""
    training, head, seed = job.training, job.config.head, job.config.train.seed
    rows = probe.rows_of_head(len(training), head.probe_rows, seed)
    features = _frozen_features(job, [*training.tokens.take(rows), *texts])[:, -job.plan.encoder.pooled_width :]
    with without_compiler():
        weight, bias, _ = probe.solved(
            features[: len(rows)],
            training.labels[rows],
            len(job.label_names),
            job.objective,
            head.penalty,
            seed,
            directions=head.directions,
        )
    return (features[len(rows) :] @ weight.T + bias).numpy()


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
