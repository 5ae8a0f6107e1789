"""How long one text takes from string to answer, as it is served: tokens, encoder, head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.machine.latency import call_seconds, percentile_ms
from rankwise.records import Latency

_TEXTS = 8
"""of about the same length that are asked in turn"""


def of_texts(
    answer: Callable[[Sequence[str]], object], texts: Sequence[str], *, tokens: int | None = None, percentile: int = 50
) -> Latency:
    """What one text takes, asked alone.

    tokens, percentile
        What the texts are, for the record.
    """
    seconds = call_seconds(lambda number: answer([texts[number % len(texts)]]))
    p50, p99 = (round(percentile_ms(seconds, share), 3) for share in (0.5, 0.99))
    return Latency(p50_ms=p50, p99_ms=p99, tokens=tokens, percentile=percentile)


def at_percentile(texts: Sequence[str], lengths: NDArray[np.int64], percentile: int) -> list[str]:
    """Texts about as long as this percentile of all.

    lengths
        Of each text. Shape: (texts,)
    """
    wanted = np.percentile(lengths, percentile, method="higher")
    nearest = np.argsort(np.abs(lengths - wanted), kind="stable")[:_TEXTS]
    return [texts[int(row)] for row in nearest]


def in_words(measured: Latency, limit: float | None) -> str:
    """A measurement as a line says it."""
    which = "median" if measured.percentile == 50 else f"{measured.percentile}th percentile"
    long = f"of {measured.tokens} tokens, " if measured.tokens is not None else ""
    of_limit = "" if limit is None else f" of {limit:g}"
    return (
        f"one text {long}the {which} of lengths: {measured.p50_ms:.2f} ms{of_limit} by the median of calls, "
        f"{measured.p99_ms:.2f} by 99 in 100"
    )


def over(measured: Latency, limit: float | None) -> str | None:
    """What is said of a classifier that kept to its milliseconds before it was trained, and no longer does."""
    if limit is None or measured.p50_ms <= limit:
        return None
    return (
        f"one text takes {measured.p50_ms:.2f} ms as it is saved, over budget.max_ms of {limit:g}, within which it was "
        "before training: other work beside it slows it down, or measure again with  rankwise plan --measure"
    )
