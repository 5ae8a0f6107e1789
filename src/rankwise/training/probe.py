"""The head's projection fitted on frozen features: a convex problem, solved at once instead of step by step.

Used as a method of its own (`adapter.method: probe`) and as the start of another (`head.probe_first`): a head
that fits when the adapters begin to train distorts the features less (Kumar et al. 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankwise.deadline import NEVER, Deadline
from rankwise.machine.compiler import without_compiler
from rankwise.machine.threads import limited_to
from rankwise.models.assembly import Assembly
from rankwise.models.classifier import Classifier, logits_of
from rankwise.training import frozen_features
from rankwise.training.examples import Examples
from rankwise.training.objective import Objective

MAX_ITERATIONS = 200
_CLOSELY = 1e-9
ROUGHLY = 1e-5
"""change of the mean loss, or of any number, at which the solver stops: for a head that is kept, and for one that is only compared,
where half a decade of penalty changes the loss by a hundred times as much"""
_PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
"""tried by cross-validation, strongest first: half a decade apart, the optimum is flat"""
_FOLDS, _FOLD_ROWS = 3, 3_000
"""A penalty is a prior of the weights and does not depend on the number of rows, so a sample of them tells it."""


@dataclass(frozen=True)
class Fitted:
    """A projection's fit.

    rows, logits
        The training rows that it was fitted on, and what it says of them. Shapes: (rows,), (rows, classes)
    """

    iterations: int
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]


def fit_projection(
    classifier: Any,
    assembly: Assembly,
    examples: Examples,
    objective: Objective,
    batch_size: int,
    seed: int,
    rows: int | None,
    *,
    weights: str | None,
    way: str | None = None,
    deadline: Deadline = NEVER,
) -> Fitted:
    """Put the best projection on frozen features into the classifier.

    assembly
        Whose trainable parameters the classifier shares.
    rows
        How many training rows to use at most, drawn by the seed; None uses all.
    weights
        `weights_identity` of the base, whose features other runs may share; None where adapters have changed them.
    way
        See `frozen_features.shared`.
    deadline
        After which no more features are computed: of fewer rows then.
    """
    weight, bias = projection_of(assembly)
    chosen = rows_of_head(len(examples), rows, seed)

    def compute(texts: Sequence[np.ndarray]) -> Tensor:
        return features(classifier, weight, texts, batch_size)

    texts = examples.tokens.take(chosen)
    if weights is None:
        found = compute(texts)
    else:
        found = frozen_features.shared(compute, texts, batch_size, weights, way, deadline)
        chosen = chosen[: len(found)]
    order = np.argsort(chosen)  # of all rows as they lie, whose sums those of other heads then repeat to the bit
    chosen, found = chosen[order], found[order]
    found, labels = found[:, -weight.shape[1] :], examples.labels[chosen]  # of first and mean, the mean stands last
    head = assembly.plan.config.head
    found_weight, offset, iterations = solved(
        found, labels, len(bias), objective, head.penalty, seed, directions=head.directions
    )
    with torch.no_grad():
        weight.copy_(found_weight.reshape(weight.shape))
        bias.copy_(offset)
    return Fitted(iterations, chosen, (found @ found_weight.T + offset).numpy())


def rows_of_head(count: int, rows: int | None, seed: int) -> NDArray[np.int64]:
    """The training rows that a head is fitted on, in the order in which the seed draws them: fewer are the first of more. Shape: (rows,)"""
    return np.random.default_rng(seed).permutation(count)[:rows]


_solutions: dict[str, tuple[Tensor, Tensor, int]] = {}
_chosen_penalties: dict[str, float] = {}
_KEPT = 4
"""solutions that one process keeps: the designs of a search start from the same head"""


def solved(
    found: Tensor,
    labels: np.ndarray,
    classes: int,
    objective: Objective,
    penalty: float | Literal["auto"],
    seed: int,
    *,
    directions: bool,
) -> tuple[Tensor, Tensor, int]:
    """`solve`, with the penalty chosen where that is asked for; what this process has solved is not solved again."""
    digest = f"{penalty} {directions} {_digest(found, labels, classes, objective, seed)}"
    if digest not in _solutions:
        if penalty == "auto":
            penalty = chosen_penalty(found, labels, classes, objective, seed, directions=directions)
        while len(_solutions) >= _KEPT:
            _solutions.pop(next(iter(_solutions)))
        _solutions[digest] = solve(found, labels, classes, objective, penalty, directions=directions)
    return _solutions[digest]


def chosen_penalty(
    found: Tensor, labels: np.ndarray, classes: int, objective: Objective, seed: int, *, directions: bool = False
) -> float:
    """`best_penalty`, remembered in this process."""
    digest = f"{directions} {_digest(found, labels, classes, objective, seed)}"
    if digest not in _chosen_penalties:
        _chosen_penalties[digest] = best_penalty(found, labels, classes, objective, seed, directions=directions)
    return _chosen_penalties[digest]


def _digest(found: Tensor, labels: np.ndarray, classes: int, objective: Objective, seed: int) -> str:
    weights = None if objective.class_weights is None else objective.class_weights.tolist()
    told = f"{found.shape} {classes} {objective.smoothing} {weights} {objective.multi_label} {seed}"
    return hashlib.sha256(told.encode() + found.contiguous().numpy().tobytes() + labels.tobytes()).hexdigest()


def projection_of(assembly: Assembly) -> tuple[nn.Parameter, nn.Parameter]:
    """The projection's trained weight (classes, features) and bias (classes,)."""
    name, trainable = assembly.plan.encoder.family.projection, assembly.trainable
    return trainable[f"{name}.weight"], trainable[f"{name}.bias"]


def features(
    classifier: Classifier | Any, weight: nn.Parameter, tokens: Sequence[np.ndarray], batch_size: int
) -> Tensor:
    """What the projection of this weight receives for every text, without dropout; first token and mean side by side where
    tokens are pooled, so that one pass serves both. Shape: (texts, features)"""
    with passing_through(classifier, weight), _both_poolings(classifier, weight):
        return torch.from_numpy(logits_of(classifier, tokens, batch_size))


@contextmanager
def passing_through(classifier: Any, weight: nn.Parameter) -> Iterator[None]:
    """Let the layer that holds a weight return its input, so that either path's logits are the features."""
    layer = next(module for module in classifier.modules() if getattr(module, "weight", None) is weight)
    layer.forward = lambda inputs, *rest: inputs
    try:
        yield
    finally:
        del layer.forward


@contextmanager
def _both_poolings(classifier: Any, weight: nn.Parameter) -> Iterator[None]:
    """Let a head of pooled tokens read the first token and the mean of all, whatever it is made for."""
    pooling = [
        (module, module.pooling) for module in classifier.modules() if weight.ndim == 3 and hasattr(module, "pooling")
    ]
    for module, _ in pooling:
        module.pooling = "both"
    try:
        yield
    finally:
        for module, own in pooling:
            module.pooling = own


def best_penalty(
    found: Tensor, labels: np.ndarray, classes: int, objective: Objective, seed: int, *, directions: bool = False
) -> float:
    """The penalty whose held-out loss is least, over folds of a sample of the rows.

    From the strongest on, until the loss rises: it has one minimum, and the weakest take the solver longest.
    """
    order = np.random.default_rng(seed).permutation(len(labels))[:_FOLD_ROWS]
    parts = [(order[fold::_FOLDS], np.delete(order, np.s_[fold::_FOLDS])) for fold in range(_FOLDS)]
    parts = [(held, kept) for held, kept in parts if len(held) and len(kept)]
    starts: list[tuple[Tensor, Tensor, int] | None] = [None] * len(parts)
    losses: dict[float, float] = {}
    for penalty in _PENALTIES:
        loss = 0.0
        for fold, (held, kept) in enumerate(parts):  # each starts from the stronger one before
            weight, bias, _ = starts[fold] = solve(
                found[kept],
                labels[kept],
                classes,
                objective,
                penalty,
                starts[fold],
                directions=directions,
                tolerance=ROUGHLY,
            )
            with torch.no_grad():
                loss += float(objective.total(found[held] @ weight.T + bias, torch.from_numpy(labels[held])))
        if losses and loss > min(losses.values()):
            break
        losses[penalty] = loss
    return min(losses, key=losses.__getitem__)


# On one thread: its bits of work are so small that a second one, where another program holds it up, costs ten times the solver.
@limited_to(1)
@without_compiler()
def solve(
    found: Tensor,
    labels: np.ndarray,
    classes: int,
    objective: Objective,
    penalty: float = 1.0,
    start: tuple[Tensor, Tensor, int] | None = None,
    *,
    directions: bool = False,
    tolerance: float = _CLOSELY,
) -> tuple[Tensor, Tensor, int]:
    """Logistic regression by L-BFGS under the run's objective, by default with scikit-learn's penalty on the weight.

    The features are brought to mean 0 and deviation 1 first, so the penalty does not depend on their scale; the
    result is for the features as they came.

    found
        Shape: (texts, features)
    start
        An earlier result to go on from.
    directions
        Fit on texts brought to one length, the mean of theirs, and on deviations brought half way to a common one: of few
        rows lengths and the deviation of every feature are mostly noise (LOG.md). The result answers features as they are.
    tolerance
        Change at which it stops.

    Returns: weight (classes, features), bias (classes,), iterations.
    """
    centre, spread = found.mean(0), found.std(0, correction=0).clamp(min=1e-6)
    if directions:
        spread = (spread * spread.square().mean().sqrt()).sqrt()
    inputs = (found - centre) / spread
    if directions:
        length = found.shape[1] ** 0.5  # as long as features of deviation 1 are, so that a penalty means the same
        spread = spread * (inputs.norm(dim=1).mean() / length).clamp(min=1e-6)  # zero where all texts are the same
        inputs = nn.functional.normalize(inputs) * length
    targets = torch.from_numpy(labels)
    weight, bias = torch.zeros(classes, found.shape[1]), torch.zeros(classes)
    if start is not None:
        weight, bias = start[0] * spread, start[1] + start[0] @ centre
    weight.requires_grad_()
    bias.requires_grad_()
    normaliser = objective.normaliser(labels)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, tolerance_change=tolerance, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        total = objective.total(inputs @ weight.T + bias, targets) + 0.5 * penalty * weight.square().sum()
        value: Tensor = total / normaliser
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    iterations = int(solver.state[weight]["n_iter"])
    with torch.no_grad():
        scaled = weight / spread
        return scaled, bias - scaled @ centre, iterations
