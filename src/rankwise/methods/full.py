"""Full fine-tuning: every parameter of the encoder trains, and the adapter's file holds them all."""

from __future__ import annotations

from rankwise.methods.method import Method


class Full(Method):
    """No adapter at all, for comparison."""

    summary = "everything; lift the budget with `budget.max_trainable=null`"
    head = "full"
    fast = False
    trains_encoder = True


METHOD = Full("full")
