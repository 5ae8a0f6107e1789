"""Memory that is done with: what the C library keeps of it, and mapped files' pages."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ ([0-9]+)")
_DONTNEED = 4


def return_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library (glibc) would keep it: a third of a base's weights."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def unload_mapped_files(addresses: Iterable[int]) -> None:
    """Take what was read of mapped files off the process's memory; what is read again comes from the system's cache.

    A model's file is mapped, and of an encoder's weights that have been laid out anew nothing is read any more, but their
    pages would count for as long as anything else of the file is used. On Linux; elsewhere nothing happens.

    addresses
        Of numbers in the mappings. A mapping in which anything was written is left as it is.
    """
    wanted = sorted(addresses)
    for start, stop, written in _mapped_files():
        if not written and any(start <= address < stop for address in wanted):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DONTNEED)


def _mapped_files() -> Iterator[tuple[int, int, bool]]:
    """Where each file is mapped, and whether the process has pages of its own there."""
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    start = stop = file = 0
    for line in lines:
        if (heading := _MAPPING.match(line)) is not None:
            start, stop, file = int(heading[1], 16), int(heading[2], 16), int(heading[3])
        elif file and line.startswith("Anonymous:"):  # copies of pages that were written to
            yield start, stop, line.split()[1] != "0"


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
