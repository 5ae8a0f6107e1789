"""The head alone: nothing is added to the encoder."""

from __future__ import annotations

from rankwise.methods.method import Method


class HeadAlone(Method):
    """A frozen encoder with a trained head."""

    summary = "nothing"
    adds = False


METHOD = HeadAlone("head")
