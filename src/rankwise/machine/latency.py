"""How long one call takes on this machine: called again and again, alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

_WARMUP = 3
_FEWEST, _SECONDS = 20, 0.3
"""calls at least, and seconds that quick ones are repeated for"""


def call_seconds(call: Callable[[int], object]) -> list[float]:
    """Seconds of each of some calls, after a few that only warm up.

    call
        takes its number
    """
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < _WARMUP + _FEWEST or time.perf_counter() - started < _SECONDS:
        before = time.perf_counter()
        call(len(taken))
        taken.append(time.perf_counter() - before)
    return taken[_WARMUP:]


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """The least milliseconds that this share of the calls keeps within."""
    return 1000 * sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
