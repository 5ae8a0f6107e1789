"""The thread that computes: what waits is taken together, as many tokens as one pass holds."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise.inference.many import BATCH_TOKENS, Loaded, ManyPredictors

_CHARACTERS_A_TOKEN = 4
"""of English; only for how much is taken together, the pass itself counts tokens"""


class Full(Exception):
    """More texts wait than may."""


@dataclass
class Job:
    """Texts for one classifier, or for several."""

    texts: Sequence[str]
    asked: Sequence[Loaded]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[np.ndarray]]
    """logits, one array (texts, classes) a classifier"""

    @property
    def weight(self) -> int:
        """Answers it asks for."""
        return len(self.texts) * len(self.asked)

    @property
    def tokens(self) -> int:
        """About as many as it has."""
        return sum(len(text) // _CHARACTERS_A_TOKEN + 3 for text in self.texts) * len(self.asked)


class Batcher:
    """Takes jobs from any number of requests and computes them in one thread, which uses the cores."""

    def __init__(self, many: ManyPredictors, most_waiting: int) -> None:
        self.many, self.most_waiting = many, most_waiting
        self.waiting = 0
        """answers that are asked for and not given"""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="rankwise-batcher", daemon=True)
        self._thread.start()

    async def logits(self, texts: Sequence[str], asked: Sequence[Loaded]) -> list[np.ndarray]:
        """Shape of each: (texts, classes), one a classifier.

        Raises: Full.
        """
        loop = asyncio.get_running_loop()
        job = Job(texts, asked, loop, loop.create_future())
        with self._lock:
            if self.waiting and self.waiting + job.weight > self.most_waiting:
                raise Full
            self.waiting += job.weight
        self._jobs.put(job)
        return await job.answer

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch, tokens, ended = [job], job.tokens, False
            while tokens < BATCH_TOKENS:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    ended = True
                    break
                batch.append(job)
                tokens += job.tokens
            self._compute(batch)
            if ended:
                return

    def _compute(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if not job.answer.cancelled()]
        single = [job for job in wanted if len(job.asked) == 1]
        try:
            texts = [text for job in single for text in job.texts]
            rows = iter(self.many.mixed_of(texts, [job.asked[0] for job in single for _ in job.texts]))
            for job in single:
                self._give(job, [np.stack([next(rows) for _ in job.texts])])
        except Exception as error:
            for job in single:
                self._fail(job, error)
        for job in wanted:
            if len(job.asked) != 1:
                try:
                    self._give(job, self.many.every_of(job.texts, job.asked))
                except Exception as error:
                    self._fail(job, error)
        with self._lock:
            self.waiting -= sum(job.weight for job in jobs)

    def _give(self, job: Job, logits: Any) -> None:
        job.loop.call_soon_threadsafe(_unless_done, job.answer.set_result, job.answer, logits)

    def _fail(self, job: Job, error: Exception) -> None:
        job.loop.call_soon_threadsafe(_unless_done, job.answer.set_exception, job.answer, error)


def _unless_done(settle: Any, answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():
        settle(value)
