"""Ctrl-C and a polite kill, turned into a request that the loop honours at the end of its step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether the user asked to stop."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch the first SIGINT or SIGTERM as a request; a second one interrupts at once.

    Outside the main thread Python cannot install handlers, and the request stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: FrameType | None) -> None:
        if request.requested:
            raise KeyboardInterrupt
        request.requested = True

    for number in signals:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
