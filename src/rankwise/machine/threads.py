"""How many threads torch computes with, changed for a while and then as the host had it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rankwise.errors import UserError

_A_PROCESSOR = 16
"""threads at most: more of them only wait for their turn, and a system that gives no more ends the process"""
_lock = threading.Lock()
_inside = 0
_of_host = 0


def check(threads: object, called: str = "threads") -> None:
    """Refuse what is no number of threads; None is the host's.

    Raises: UserError.
    """
    most = _A_PROCESSOR * (os.cpu_count() or 1)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= most):
        raise UserError(f"{called} is {threads!r}, expected a whole number from 1 to {most}")


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Compute with so many threads in this block; None leaves them as they are.

    torch's number is the process's own: where blocks overlap, each thread computes with its own and the host's number
    comes back after each.
    """
    global _inside, _of_host
    if threads is None:
        yield
        return
    with _lock:
        if _inside == 0:
            _of_host = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            torch.set_num_threads(_of_host)
