"""How much of a core other programs leave, now."""

from __future__ import annotations

import time

_PROBE_S = 0.1
"""several turns of a scheduler, whose slices are milliseconds"""
_MOST = 5.0


def crowding() -> float:
    """How many times as long as alone a thread takes, from 1 to 5.

    What could not be timed before, reading files and loading what was written, takes as many times its usual seconds; a machine
    where this process gets a seventh of a core imported for 18 seconds what takes two.
    """
    started, own = time.perf_counter(), time.thread_time()
    while (passed := time.perf_counter() - started) < _PROBE_S:
        pass
    return min(_MOST, max(1.0, passed / max(time.thread_time() - own, 1e-3)))
