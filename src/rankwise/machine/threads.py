"""How many threads torch and kernels compute with, changed for a while and then as the host had it."""

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
_mine = threading.local()


def _open_lock() -> None:
    """Its holder may be a thread that the forked process does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_lock)


def check(threads: object, called: str = "threads") -> None:
    """Refuse what is no number of threads; None is the host's.

    Raises: UserError.
    """
    most = _A_PROCESSOR * (os.cpu_count() or 1)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= most):
        raise UserError(f"{called} is {threads!r}, expected a whole number from 1 to {most}")


def of_process(threads: int | None, process: int) -> int | None:
    """The threads that what a process loaded may have in this one: its own there, and one in a process forked from it, since
    pools of threads do not survive a fork.

    Raises: UserError in a forked process where it was loaded on a GPU, which does not survive one either.
    """
    if os.getpid() == process:
        return threads
    from rankwise.machine.device import device

    if device().type != "cpu":
        raise UserError("this predictor was loaded on a GPU before the process forked: load it in each process")
    return 1


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Compute with so many threads in this block; None leaves them as they are.

    torch's number is the process's own: where blocks of several threads overlap, each computes with its own and the host's
    number comes back after each; one block in another leaves the outer one's.
    """
    global _inside, _of_host
    if threads is None:
        yield
        return
    outer = getattr(_mine, "torch", None)
    with _lock:
        if _inside == 0:
            _of_host = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(threads)
    _mine.torch = threads
    try:
        yield
    finally:
        _mine.torch = outer
        with _lock:
            _inside -= 1
            torch.set_num_threads(_of_host if outer is None else outer)


def of_kernels() -> int:
    """Threads that kernels may compute with, called by this thread."""
    return getattr(_mine, "kernels", None) or torch.get_num_threads()


@contextmanager
def beside_kernels(are_there: bool) -> Iterator[None]:
    """In this block torch computes with one thread, if there are kernels, and these with as many as it had.

    Little is left to torch beside kernels, and after each bit of it OpenMP's threads wait for the next in a loop, on the
    cores that the kernels' own threads would have.
    """
    count = of_kernels()
    if not are_there or count == 1:
        yield
        return
    outer = getattr(_mine, "kernels", None)
    _mine.kernels = count
    try:
        with limited_to(1):
            yield
    finally:
        _mine.kernels = outer
