"""A job's parts put together, and the network that computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rankwise.config import Config
from rankwise.machine.processes import this_process
from rankwise.models.assembly import Assembly
from rankwise.models.classifier import ReferenceClassifier, classifier_of
from rankwise.models.fresh import assembled
from rankwise.training.prepare import Job

# Texts whose activations EVA decomposes, and how many at a time.
EVA_ROWS, EVA_BATCH = 512, 32


def assembly_of(job: Job, config: Config | None = None) -> Assembly:
    """A job's configuration put together, or another of it."""
    return assembled(
        config or job.config,
        len(job.label_names),
        job.label_names,
        total_steps=job.total_steps,
        batches=lambda: _activation_batches(job),
    )


def network_of(job: Job, assembly: Assembly, config: Config | None = None) -> Any:
    """What computes an assembly, on this process's device."""
    network: Any = classifier_of(assembly, config or job.config, pad_token_id=job.tokenizer.pad_token_id)
    return network.to(this_process().device)


def _activation_batches(job: Job) -> list[dict[str, torch.Tensor]]:
    """Batches of training texts, drawn by the seed, for an initialisation that looks at activations."""
    rows = np.random.default_rng(job.config.train.seed).permutation(len(job.training))[:EVA_ROWS]
    collate = ReferenceClassifier(
        torch.nn.Identity(), pad_token_id=job.tokenizer.pad_token_id, precision="fp32"
    ).collate
    starts = range(0, len(rows), EVA_BATCH)
    return [collate(job.training.tokens.take(rows[start : start + EVA_BATCH])) for start in starts]
