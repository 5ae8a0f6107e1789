"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library (glibc) would keep it: a third of a base's weights."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_freed_memory() -> None:
    """Let the allocator keep what a step frees for the next one: given back and asked for again, every page of it is
    made anew by the system, 15% of a small model's step. For glibc; elsewhere nothing happens.

    For good, so it is for processes of our own: the command line's and a search's workers, never a host's.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        trim_threshold, mmap_max = -1, -4
        adjust(trim_threshold, 2**31 - 1)
        adjust(mmap_max, 0)  # no block of its own for what is large, which would go back when it is freed
