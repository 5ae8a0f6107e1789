"""The dialogue of a variant's process with the one that measures: steps, turns, and what it cost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rankwise.bench.command import Setting
from rankwise.machine import description


class Turns:
    """The dialogue with the parent: which steps are measured, and when to wait."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._seconds: list[float] = []
        self._steps = 0
        self._started = 0.0

    def step_done(self) -> None:
        """Call after every step: records its time, and at the end of a turn waits for the next."""
        now = time.perf_counter()
        self._steps += 1
        if self._steps > self.setting.warmup:
            self._seconds.append(now - self._started)
        if self._steps == self.setting.warmup or len(self._seconds) == self.setting.steps:
            answer(seconds=self._seconds)
            self._seconds = []
            self.wait()
        self._started = time.perf_counter()

    def wait(self) -> None:
        """Wait to be told to go on."""
        line = sys.stdin.readline().strip()
        if line == "end":
            raise End
        if line != "go":
            sys.exit(1)

    def drive(self, step: Callable[[int], None]) -> None:
        """Run a step for every batch there is."""
        for number in range(self.setting.warmup + self.setting.steps * self.setting.rounds):
            step(number)
            self.step_done()


class End(Exception):
    """The parent has heard enough."""


def report(*, tokens: int, trainable: int) -> None:
    """The last answer."""
    answer(peak_mb=round(description.peak_mb()), tokens=tokens, trainable=trainable)


def answer(**values: Any) -> None:
    """Tell the parent something."""
    print(json.dumps({"bench": True, **values}), flush=True)
