"""The dialogue of a variant's process with the one that measures: steps, turns, and what it cost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rankwise.bench.command import Setting
from rankwise.machine import description, device


class Turns:
    """The dialogue with the parent: which steps are measured, and when to wait.

    An accelerator works behind the host, which would stand idle if it waited for every step. So there it is waited for
    where a turn begins and where it ends, and every step of a turn has an equal share of its time; but texts that are
    asked alone have their answers on the host when a step is done.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._shares = device.device().type != "cpu" and not setting.answers_alone
        self._seconds: list[float] = []
        self._steps = 0
        self._started = 0.0
        self._peak_bytes = 0
        """the most that the accelerator had allocated in any turn"""

    def step_done(self) -> None:
        """Call after every step: records its time, and at the end of a turn waits for the next."""
        self._steps += 1
        measured = self._steps - self.setting.warmup
        ends = measured == 0 or (measured > 0 and measured % self.setting.steps == 0)
        if ends:
            device.wait()
        now = time.perf_counter()
        if measured > 0:
            self._seconds.append(now - self._started)
        if ends:
            if measured > 0:
                self._peak_bytes = max(self._peak_bytes, device.peak_allocated() or 0)
            count = len(self._seconds)
            answer(seconds=[sum(self._seconds) / count] * count if self._shares and count else self._seconds)
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
        device.wait()
        device.forget_peak()

    def drive(self, step: Callable[[int], None]) -> None:
        """Run a step for every batch there is."""
        for number in range(self.setting.warmup + self.setting.steps * self.setting.rounds):
            step(number)
            self.step_done()

    def report(self, *, tokens: int, trainable: int) -> None:
        """The last answer: memory of the accelerator where it counts it, and then the process's beside it."""
        process_mb = round(description.process_peak_mb())
        counted = {"peak_mb": round(self._peak_bytes / 1e6), "process_peak_mb": process_mb}
        memory = counted if self._peak_bytes else {"peak_mb": process_mb}
        answer(**memory, tokens=tokens, trainable=trainable)


class End(Exception):
    """The parent has heard enough."""


def answer(**values: Any) -> None:
    """Tell the parent something."""
    print(json.dumps({"bench": True, **values}), flush=True)
