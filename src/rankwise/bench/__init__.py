"""`rankwise bench`: our training step or prediction beside its peers', measured alternately in one call.

Every variant lives in a process of its own, so that its peak memory is its own. The processes take turns: one runs
a few steps while the others wait, round after round, so that a machine that grows slower or faster over the minutes
does so for all of them.
"""

from __future__ import annotations

from rankwise.bench.command import add_arguments, run

__all__ = ["add_arguments", "run"]
