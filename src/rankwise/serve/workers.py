"""Several processes on one socket. They are forked from the one that loaded the classifiers and share its memory.

Each computes with one thread, since torch's pool of threads does not survive a fork. A change that one of them is asked for goes to
the first process, which carries it out itself and in all of them before it is answered: whichever process a client meets
next knows it, and so does one that takes the place of a process that died.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol

from rankwise.errors import UserError

_ANSWER_S = 120.0
"""for a worker to load a classifier"""
_DEATHS = 5
"""of workers in a row, after which something is wrong with all"""
_ENDING = (signal.SIGTERM, signal.SIGINT)

Change = tuple[str, ...]
"""what is to be done and its arguments: ("add", NAME), ("remove", NAME), ("metrics",)"""
Apply = Callable[[Change], Any]
"""carries out a change in this process; Raises: UserError"""


class Worker(Protocol):
    """What runs in a worker's process."""

    def apply(self, change: Change) -> Any:
        """Carry out a change. Raises: UserError."""

    def stop(self) -> None:
        """Answer what was accepted, and end."""

    def run(self, sockets: list[socket.socket]) -> None:
        """Serve until stopped."""


@dataclass
class Link:
    """A worker's line to the first process."""

    pipe: Connection
    lock: threading.Lock

    def everywhere(self, change: Change) -> list[Any]:
        """Have a change carried out in every process. Returns: what each worker says. Raises: UserError."""
        with self.lock:
            self.pipe.send(change)
            failed, said = self.pipe.recv()
        if failed:
            raise UserError(said)
        answers: list[Any] = said
        return answers


@dataclass
class _Child:
    process: int
    asks: Connection
    orders: Connection
    ended: int
    """a file descriptor that closes with the process"""


class Workers:
    """The first process: it listens to no client, it watches over those that do.

    make
        Builds a worker in its process, given its line to this one.
    apply
        Carries out a change in this process.
    """

    def __init__(self, listening: socket.socket, count: int, make: Callable[[Link], Worker], apply: Apply) -> None:
        if not hasattr(os, "fork"):
            raise UserError("--workers needs a system that forks processes (Linux): leave it out")
        self.listening, self.count, self.make, self.apply = listening, count, make, apply
        self._children: list[_Child] = []
        self._stopping = False

    def run(self) -> None:
        """Start the workers and watch over them until a signal ends it.

        Raises: UserError when they die as soon as they start.
        """
        read, write = os.pipe()

        def stop(number: int, frame: Any) -> None:
            self._stopping = True
            os.write(write, b"x")

        before = {one: signal.signal(one, stop) for one in _ENDING}
        gc.collect()
        gc.freeze()  # a collection would touch, and so copy, what is shared
        deaths = 0
        try:
            for _ in range(self.count):
                self._start()
            while not self._stopping:
                ready = wait([read, *(end for child in self._children for end in (child.asks, child.ended))])
                for child in list(self._children):
                    if child.asks in ready:
                        self._carry_out(child)
                        deaths = 0
                    if child.ended in ready and not self._stopping:
                        deaths += 1
                        self._replace(child)
                if deaths > _DEATHS * self.count:
                    raise UserError("the workers die as soon as they start: serve with one process to see why")
        finally:
            for child in self._children:
                _signal(child, signal.SIGTERM)
            for child in self._children:
                os.waitpid(child.process, 0)
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(read)
            os.close(write)

    def _start(self) -> None:
        (asks, our_asks), (orders, our_orders), (ended, their_end) = Pipe(), Pipe(), os.pipe()
        # One that comes before the new process has its own way of ending would meet the first one's, and be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)  # Ctrl-C is for the first process, which ends the others in order
            os.close(ended)
            for other in self._children:
                other.asks.close()
                other.orders.close()
                os.close(other.ended)
            our_asks.close()
            our_orders.close()
            os._exit(_work(self.make, Link(asks, threading.Lock()), orders, self.listening))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        asks.close()
        orders.close()
        os.close(their_end)
        self._children.append(_Child(process, our_asks, our_orders, ended))

    def _replace(self, child: _Child) -> None:
        os.waitpid(child.process, 0)
        self._children.remove(child)
        child.asks.close()
        child.orders.close()
        os.close(child.ended)
        self._start()

    def _carry_out(self, child: _Child) -> None:
        try:
            change: Change = child.asks.recv()
            try:
                self.apply(change)
                answer: tuple[bool, Any] = (False, [self._order(one, change) for one in self._children])
            except UserError as error:
                answer = (True, str(error))
            child.asks.send(answer)
        except (EOFError, OSError):
            return  # it died; its end is seen by itself

    def _order(self, child: _Child, change: Change) -> Any:
        try:
            child.orders.send(change)
            if not child.orders.poll(_ANSWER_S):
                _signal(child, signal.SIGKILL)  # what it says later would be taken for the answer to something else
                return None
            failed, said = child.orders.recv()
        except (EOFError, OSError):
            return None  # it died: another, forked from this process, will know of the change
        if failed:
            raise UserError(said)
        return said


def _signal(child: _Child, number: int) -> None:
    try:
        os.kill(child.process, number)
    except ProcessLookupError:
        return


def _work(make: Callable[[Link], Worker], link: Link, orders: Connection, listening: socket.socket) -> int:
    """A worker's whole life. Returns: its exit status."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        worker = make(link)
        threading.Thread(target=_obey, args=(worker, orders), name="rankwise-orders", daemon=True).start()
        worker.run([listening])
    except BaseException as error:
        print(f"rankwise: a worker ended: {type(error).__name__}: {error}", flush=True)
        return 1
    return 0


def _obey(worker: Worker, orders: Connection) -> None:
    """Carry out what the first process sends; end when it is gone."""
    while True:
        try:
            change: Change = orders.recv()
        except (EOFError, OSError):
            worker.stop()
            return
        try:
            answer: tuple[bool, Any] = (False, worker.apply(change))
        except UserError as error:
            answer = (True, str(error))
        except Exception as error:
            answer = (True, f"{type(error).__name__}: {error}")
        orders.send(answer)


def summed(texts: Sequence[str | None]) -> str:
    """Prometheus' text of several processes as that of one: numbers of a name and its labels are added.

    The first process's lines give the order; what only others have follows.
    """
    totals: dict[str, float] = {}
    about: dict[str, list[str]] = {}
    for text in texts:
        comments: list[str] = []
        for line in (text or "").splitlines():
            if line.startswith("#"):
                comments.append(line)
                continue
            name, _, value = line.rpartition(" ")
            about.setdefault(name, comments)
            comments = []
            if name.startswith("rankwise_models") or name.partition("{")[0].endswith("_created"):
                totals[name] = max(totals.get(name, 0.0), float(value))
            else:
                totals[name] = totals.get(name, 0.0) + float(value)
    return "".join(
        "".join(f"{comment}\n" for comment in about[name]) + f"{name} {value}\n" for name, value in totals.items()
    )
