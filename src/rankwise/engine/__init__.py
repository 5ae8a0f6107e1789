"""The fast engine: an exact LoRA step of encoders on packed tokens.

Reading order, one idea a file: `packing` (texts without padding), `dropout` (masks that are recomputed), `frozen` (weights
that never train, and products with them), `linear` (the adapters on them), `attention`, `layer`, `model` (the classifier).
Two kinds of layers are unlike BERT's: `prenorm` (ModernBERT's) and `disentangled` (DeBERTa's). `fused` holds the elementwise
arithmetic, `native` all of it in C++ for one instruction set after the other, `weights` where tensors
come from, `support` what the engine can run. Several classifiers on one base: `changes` (what each changes of it), `mixed` (whose
rows are whose, in torch), `many` (a pass of all).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankwise.engine.model import FastClassifier

__all__ = ["FastClassifier"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who compute: `support` is asked by the planner, which needs none."""
    if name == "FastClassifier":
        from rankwise.engine.model import FastClassifier

        return FastClassifier
    raise AttributeError(f"module 'rankwise.engine' has no attribute '{name}'")
