"""How many optimizer steps a run has, and when it is evaluated."""

from __future__ import annotations

from rankwise.config import Train


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
