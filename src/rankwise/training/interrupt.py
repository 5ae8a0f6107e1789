"""Ctrl-C and a polite kill, turned into a request to end with what there is; a second one ends at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from types import FrameType


@dataclass
class StopRequest:
    """Whether the user asked to stop, and whether twice."""

    requested: bool = False
    at_once: bool = False


_active: list[StopRequest] = []
"""the request that a search or a run of this process listens for; those that run inside share it"""


def requested() -> bool:
    """Whether what runs here was asked to stop."""
    return bool(_active) and _active[-1].requested


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch the first SIGINT or SIGTERM as a request; a second one interrupts at once.

    Inside another such block it is the other's request, so that a search and its running trial stop together. Outside
    the main thread Python cannot install handlers, and the request stays unset.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    if _active:
        yield _active[-1]
        return
    request = StopRequest()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: FrameType | None) -> None:
        if request.requested:
            request.at_once = True
            raise KeyboardInterrupt
        request.requested = True
        if parent_process() is None:  # a search speaks for its workers
            print("rankwise: ending with the best so far; once more ends at once", file=sys.stderr, flush=True)

    for number in signals:
        signal.signal(number, handle)
    _active.append(request)
    try:
        yield request
    finally:
        _active.remove(request)
        for number, handler in before.items():
            signal.signal(number, handler)
