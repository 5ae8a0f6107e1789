"""When something must be over, so that what follows it is over in time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Deadline:
    """The end of a clock, and what is kept of it for what follows: the more, the slower optimizer steps have become by then.

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
    def of(cls, when: Deadline | float | None) -> Deadline:
        """A time after which nothing follows, unless something is said of it; None: there is no end."""
        return when if isinstance(when, Deadline) else NEVER if when is None else cls(when)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(time.time() + seconds)

    def keeping(self, seconds: float) -> Deadline:
        """The same, with so many seconds more for what follows."""
        return replace(self, kept_s=self.kept_s + seconds)

    def part(self, share: float) -> Deadline:
        """The end of a share of what is left by now."""
        return Deadline.after(share * self.left_s())

    def at(self, step_s: float = 0.0) -> float:
        """`time.time()` at which it must be over, where an optimizer step takes so many seconds."""
        return self.ends - self.kept_s * max(1.0, step_s / self.step_s)

    def left_s(self, step_s: float = 0.0) -> float:
        """Seconds until then; none or fewer where it has passed."""
        return self.at(step_s) - time.time()

    @property
    def has_passed(self) -> bool:
        """Whether nothing is left."""
        return self.left_s() <= 0


NEVER = Deadline(math.inf)
