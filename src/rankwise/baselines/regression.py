"""Logistic regression of sparse vectors: scikit-learn's problem under its penalty and its rule to stop, in a fifth of its time.

Where classes are many its solver spends the time on its own numbers, in fp64 (77 classes of 13,000 n-grams: 11 s where this takes
2 on one thread, and 33 where this takes 4 with other programs beside; LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_GRADIENT = 1e-4
"""of the mean loss by any number, below which it has converged (scikit-learn's)"""
_PIECE = 10
"""iterations between two looks at the clock"""
_EVALUATIONS = 250
"""of the loss between them at most: a line search that finds no step looks for one as long as it may"""
_NEVER = 30.0
"""logit of what no row shows: a class without rows, a label that all or none carry"""


@dataclass(frozen=True)
class Solution:
    """A projection of sparse vectors.

    coefficients, offsets
        fp32. Shapes: (classes, features), (classes,)
    """

    coefficients: np.ndarray
    offsets: np.ndarray
    iterations: int

    def logits(self, vectors: Any) -> np.ndarray:
        """Shape: (rows, classes)"""
        found: np.ndarray = np.asarray(vectors @ self.coefficients.T + self.offsets)
        return found

    def accuracy(self, vectors: Any, labels: np.ndarray) -> float:
        """The share of rows that are answered as labelled, of several labels by all of them."""
        logits = self.logits(vectors)
        right = ((logits > 0) == (labels > 0)).all(1) if labels.ndim == 2 else logits.argmax(1) == labels
        return float(right.mean())


def solve(
    vectors: Any,
    labels: np.ndarray,
    classes: int,
    strength: float,
    *,
    start: Solution | None = None,
    iterations: int = 100,
    over: Callable[[], bool] | None = None,
) -> Solution:
    """Solve it from zeros, or from an earlier solution; two classes share their numbers, and each of several labels has a problem
    of its own.

    vectors
        A scipy matrix. Shape: (rows, features)
    labels
        Shape: (rows,), or (rows, classes) of zeros and ones
    strength
        C, the inverse of the penalty.
    iterations
        At most.
    over
        Whether to leave it at what there is; asked after every few iterations.

    Raises: ValueError where all rows are of one class, or vectors hold what is no finite number.
    """
    import torch
    from torch.nn import functional as F

    from rankwise.machine.compiler import without_compiler
    from rankwise.machine.settings import own_settings
    from rankwise.machine.threads import limited_to

    several, rows = labels.ndim == 2, len(labels)
    there = np.flatnonzero(labels.any(0) & ~labels.all(0)) if several else np.unique(labels)
    if not several and len(there) < 2:
        raise ValueError("all rows are of one class")
    if not np.isfinite(vectors.data).all():
        raise ValueError("vectors hold what is no finite number")
    two = not several and len(there) == 2
    targets = labels[:, there] if several else np.searchsorted(there, labels)
    if several or two:
        targets = targets.astype(np.float32).reshape(rows, -1)

    # On one thread: a product of so few numbers takes milliseconds, and a second thread that another program holds up costs more.
    with own_settings(), limited_to(1), without_compiler():
        wanted, product = torch.from_numpy(targets), _product(vectors)
        weight, offset = _started(start, there, vectors.shape[1], two=two)
        solver = torch.optim.LBFGS(
            [weight, offset],
            max_eval=_EVALUATIONS,
            tolerance_grad=_GRADIENT,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Any:
            solver.zero_grad()
            logits = product(weight) + offset
            if several or two:
                total = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            else:
                total = F.cross_entropy(logits, wanted, reduction="sum")
            value = (total + weight.square().sum() / (2 * strength)) / rows
            torch.autograd.backward(value)
            return value

        done = before = 0
        while len(there) and done < iterations:
            piece = solver.param_groups[0]["max_iter"] = min(_PIECE, iterations - done)
            solver.step(loss)  # type: ignore[no-untyped-call]
            before, done = done, int(solver.state[weight]["n_iter"])
            if done - before < piece or (over is not None and over()):
                break
    return _whole(weight.detach().numpy(), offset.detach().numpy(), there, labels, classes, done, two=two)


def _started(start: Solution | None, there: np.ndarray, width: int, *, two: bool) -> tuple[Any, Any]:
    """Shapes: (features, rows of numbers), (rows of numbers,)"""
    import torch

    count = 1 if two else len(there)
    weight, offset = np.zeros((width, count), np.float32), np.zeros(count, np.float32)
    if start is not None:
        weight, offset = start.coefficients[there].T, start.offsets[there]
        if two:
            weight, offset = weight[:, 1:] - weight[:, :1], offset[1:] - offset[:1]
    return torch.tensor(weight).contiguous().requires_grad_(), torch.tensor(offset).requires_grad_()


def _product(vectors: Any) -> Callable[[Any], Any]:
    """Sparse vectors times numbers, as sums of weighted rows; the gradient is the same of the vectors turned."""
    import torch
    from torch.nn import functional as F

    def parts(matrix: Any) -> tuple[Any, ...]:
        held = matrix.indices, matrix.indptr, matrix.data.astype(np.float32, copy=False)
        return tuple(torch.from_numpy(part) for part in held)

    def sums(by_rows: tuple[Any, ...], numbers: Any) -> Any:
        places, starts, values = by_rows
        return F.embedding_bag(places, numbers, starts, mode="sum", per_sample_weights=values, include_last_offset=True)

    ahead, back = parts(vectors.tocsr()), parts(vectors.T.tocsr())

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, numbers: Any) -> Any:
            return sums(ahead, numbers)

        @staticmethod
        def backward(_: Any, gradient: Any) -> Any:
            return sums(back, gradient.contiguous())

    return Product.apply


def _whole(
    weight: np.ndarray, offset: np.ndarray, there: np.ndarray, labels: np.ndarray, classes: int, done: int, *, two: bool
) -> Solution:
    """The numbers of all classes, also of those that no row shows."""
    coefficients = np.zeros((classes, len(weight)), np.float32)
    offsets = np.full(classes, -_NEVER, np.float32)
    if labels.ndim == 2:
        offsets[labels.all(0)] = _NEVER
    if two:
        weight, offset = np.hstack([-weight, weight]) / 2, np.concatenate([-offset, offset]) / 2
    coefficients[there], offsets[there] = weight.T, offset
    return Solution(coefficients, offsets, done)
