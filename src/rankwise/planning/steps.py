"""How many optimizer steps a run has, when it is evaluated, and how many rows its head and its last scores take."""

from __future__ import annotations

from rankwise.config import Head, Train

PROBE_FIRST_ROWS = 2_048
"""Where a head starts from, not where it ends: more rows would cost a forward pass each."""
TRAIN_SAMPLE_ROWS = 1_000
PROVEN_ROWS = 64
"""that the live model and the saved one both answer in the proof, at most"""


def head_rows(head: Head) -> int | None:
    """The most training rows that a head is fitted on before the first step; None for all."""
    return head.probe_rows or (None if head.penalty == "auto" else PROBE_FIRST_ROWS)


def train_sample_rows(train: int, validation: int | None) -> int:
    """How many training rows are scored without dropout at the end, beside validation: how far apart the two are is
    overfitting. As many as validation has, 1,000 at most: more would not bring the two any closer.

    train, validation
        Rows of each.
    """
    return min(TRAIN_SAMPLE_ROWS, train, validation or train)


def eval_every(train: Train, total_steps: int, steps_per_epoch: int) -> int:
    """Steps between evaluations; twelve over the run when nothing is said, as the papers have."""
    if train.eval_every == "epoch":
        return steps_per_epoch
    return train.eval_every or max(1, -(-total_steps // 12))


def steps_per_epoch(rows: int, train: Train) -> int:
    """Optimizer steps that see every row once; the last may be short."""
    return max(1, -(-rows // (train.batch_size * train.accumulate)))


def total_steps(rows: int, train: Train) -> int:
    """Optimizer steps of the whole run."""
    if train.steps is not None:
        return train.steps
    epochs = train.epochs if train.epochs is not None else 3
    return max(1, round(epochs * steps_per_epoch(rows, train)))
