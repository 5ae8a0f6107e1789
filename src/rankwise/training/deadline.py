"""When training must end, so that what follows it is over in time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """The end of a clock, and what is kept of it for what follows training: the more, the slower steps have become by then.

    ends
        `time.time()` at which all is over.
    kept_s
        Seconds for what follows.
    step_s
        Of the slowest optimizer step at which they are enough.
    """

    ends: float
    kept_s: float = 0.0
    step_s: float = math.inf

    @classmethod
    def of(cls, when: Deadline | float | None) -> Deadline | None:
        """A time after which nothing follows, unless something is said of it."""
        return cls(when) if isinstance(when, int | float) else when

    def at(self, step_s: float = 0.0) -> float:
        """`time.time()` at which training must end, where a step takes so many seconds."""
        return self.ends - self.kept_s * max(1.0, step_s / self.step_s)

    def left_s(self, step_s: float = 0.0) -> float:
        """Seconds until then; none or fewer where it has passed."""
        return self.at(step_s) - time.time()
