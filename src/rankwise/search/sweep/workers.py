"""Who runs the tasks: this process, or several beside it.

`run(tasks)` yields outcomes as they come; tasks whose worker died are given to another, which goes on from the
trial's checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Protocol

from rankwise.machine import description
from rankwise.machine.memory import keep_freed_memory
from rankwise.search.sweep.trial import Outcome, Task, carry_out
from rankwise.training.interrupt import requested

RETRIES = 3
"""Times that a trial is given to another worker when its own died."""
_TOGETHER = 2
"""Deaths of workers after which the trials that were running then run alone: one of them may be what kills."""
_LOOK_S = 1.0
"""between two looks at whether the user asked to stop"""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Workers(Protocol):
    """Something that runs tasks."""

    count: int

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes in the order they are reached."""

    def close(self) -> None:
        """Let the workers go."""


class InProcess:
    """One trial after another, here."""

    count = 1

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes in the order of the tasks."""
        for task in tasks:
            if not requested():
                yield carry_out(task)

    def close(self) -> None:
        """Nothing to let go."""


class Processes:
    """Several processes of this machine, the cores shared out among them."""

    def __init__(self, count: int, threads: int | None = None) -> None:
        self.count = count
        self.threads = threads or max(1, description.cores() // count)
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes as they come; a task whose worker died too often, the last times alone, has failed.

        Asked to stop, it passes that on to the workers, begins nothing more, and yields what they came to.
        """
        told = False
        waiting: dict[Future[Outcome], Task] = {}
        left, deaths = list(tasks), Counter[int]()

        def alone(task: Task) -> bool:
            return deaths[task.number] >= _TOGETHER

        while left or waiting:
            try:
                # No more than can run: what waits in the pool's own queue runs on after an interruption.
                while left and len(waiting) < self.count:
                    if waiting and any(alone(task) for task in (left[0], *waiting.values())):
                        break
                    future = self._started().submit(carry_out, left[0])
                    waiting[future] = left.pop(0)
                done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                if requested() and not told:
                    told, left = True, []
                    self._interrupt()
                for future in done:
                    outcome = future.result()
                    del waiting[future]
                    yield outcome
            except BrokenProcessPool:
                struck = list(waiting.values()) or left[:1]  # none yet, when a worker dies as it starts
                left = [*waiting.values(), *left]
                waiting.clear()
                self._abandon()
                deaths.update(task.number for task in struck)
                for task in [task for task in struck if deaths[task.number] > RETRIES]:
                    left.remove(task)
                    yield Outcome(
                        task.number,
                        "failed",
                        error=f"its worker died {deaths[task.number]} times, perhaps for want of memory, "
                        "of which fewer --workers leave each more",
                    )

    def _interrupt(self) -> None:
        """Ask every worker to stop; those that wait for a task take no notice."""
        for process in list((self._pool._processes or {}).values()) if self._pool is not None else ():
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)

    def _abandon(self) -> None:
        """Kill what is left of a pool that lost a worker: no survivor may run on beside the one that takes its trial over,
        or wait for a lock that the lost one held. Their trials go on from their checkpoints.
        """
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self.close()

    def close(self) -> None:
        """End the workers; they save a checkpoint first when they were interrupted."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: torch's threads do not survive a fork.
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=get_context("spawn"), initializer=_start, initargs=(self.threads,)
            )
        return self._pool


def _start(threads: int) -> None:
    """Set a new worker's threads before torch is imported, and make it end when the search does."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
    keep_freed_memory()
    # The terminal's Ctrl-C reaches the search alone, which passes it on: twice would be at once.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A search killed outright cannot tell its workers; a resumed one must not meet them in a trial's folder."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
