"""Programs that run beside what is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WITHOUT_A_PAUSE = ("while True: sum(range(10_000))",)


@contextmanager
def busy(programs: Sequence[Sequence[str]]) -> Iterator[None]:
    """Processes while the block runs, each given as Python's source and its arguments."""
    running = [subprocess.Popen([sys.executable, "-c", *program]) for program in programs]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
