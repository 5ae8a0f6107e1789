"""The head's projection fitted on frozen features: a convex problem, solved at once instead of step by step.

Used as a method of its own (`adapter.method: probe`) and as the start of another (`head.probe_first`): a head
that fits when the adapters begin to train distorts the features less (Kumar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.models.classifier import Classifier, logits_of
from rankwise.training import frozen_features
from rankwise.training.examples import Examples
from rankwise.training.objective import Objective

# Where the head starts from, not where it ends: more rows would cost a forward pass each.
PROBE_FIRST_ROWS = 2_048
MAX_ITERATIONS = 200


def fit_projection(
    classifier: Any,
    model: Any,
    examples: Examples,
    objective: Objective,
    batch_size: int,
    seed: int,
    rows: int | None,
    *,
    weights: str,
) -> int:
    """Put the best projection on frozen features into the classifier.

    model
        The PEFT model whose trainable parameters the classifier shares.
    rows
        How many training rows to use at most, drawn by the seed; None uses all.
    weights
        `weights_identity` of the base, whose features other runs may share.

    Returns: the solver's iterations.
    """
    weight, bias = projection_of(model)
    chosen = np.arange(len(examples))
    if rows is not None and rows < len(chosen):
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), rows, replace=False))
    found = frozen_features.shared(
        lambda texts: features(classifier, weight, texts, batch_size),
        examples.tokens.take(chosen),
        f"by {batch_size}",
        weights,
    )
    solved, offset, iterations = solve(found, examples.labels[chosen], len(bias), objective)
    with torch.no_grad():
        weight.copy_(solved.reshape(weight.shape))
        bias.copy_(offset)
    return iterations


def projection_of(model: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """The projection's trained weight (classes, features) and bias (classes,)."""
    name, trainable = model.assembly.plan.encoder.family.projection, model.assembly.trainable
    return trainable[f"{name}.weight"], trainable[f"{name}.bias"]


def features(
    classifier: Classifier | Any, weight: nn.Parameter, tokens: Sequence[np.ndarray], batch_size: int
) -> Tensor:
    """What the projection of this weight receives for every text, without dropout. Shape: (texts, features)"""
    with _passing_through(classifier, weight):
        return torch.from_numpy(logits_of(classifier, tokens, batch_size))


@contextmanager
def _passing_through(classifier: Any, weight: nn.Parameter) -> Iterator[None]:
    """Let the layer that holds a weight return its input, so that either path's logits are the features."""
    layer = next(module for module in classifier.modules() if getattr(module, "weight", None) is weight)
    handle = layer.register_forward_hook(lambda module, inputs, output: inputs[0])
    try:
        yield
    finally:
        handle.remove()


def solve(found: Tensor, labels: np.ndarray, classes: int, objective: Objective) -> tuple[Tensor, Tensor, int]:
    """Logistic regression by L-BFGS under the run's objective, with scikit-learn's default penalty on the weight.

    The features are brought to mean 0 and deviation 1 first, so the penalty does not depend on their scale; the
    result is for the features as they came.

    found
        Shape: (texts, features)

    Returns: weight (classes, features), bias (classes,), iterations.
    """
    centre, spread = found.mean(0), found.std(0, correction=0).clamp(min=1e-6)
    inputs = (found - centre) / spread
    targets = torch.from_numpy(labels)
    weight = torch.zeros(classes, found.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    normaliser = objective.normaliser(labels)
    solver = torch.optim.LBFGS([weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        total = objective.total(inputs @ weight.T + bias, targets) + 0.5 * weight.square().sum()
        value: Tensor = total / normaliser
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    iterations = int(solver.state[weight]["n_iter"])
    with torch.no_grad():
        scaled = weight / spread
        return scaled, bias - scaled @ centre, iterations
