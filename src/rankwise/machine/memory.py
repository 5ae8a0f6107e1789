"""Memory that is done with: what the C library keeps of it, and mapped files' pages."""

from __future__ import annotations

import array
import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ ([0-9]+)")
_DONTNEED = 4
_THERE, _OF_FILE = 1 << 63 | 1 << 62, 1 << 61
"""bits of a page in /proc/PID/pagemap: in memory or swapped out; no copy of the process's own (Linux, pagemap.rst)"""


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
    for start, stop in _mapped_files():
        if any(start <= address < stop for address in wanted) and not _written(start, stop):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DONTNEED)


def _mapped_files() -> Iterator[tuple[int, int]]:
    """Where each file is mapped."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        mapping = _MAPPING.match(line)
        if mapping is not None and int(mapping[3]):
            yield int(mapping[1], 16), int(mapping[2], 16)


def _written(start: int, stop: int) -> bool:
    """Whether the process has pages of its own in a file's mapping, copies of those that it wrote to; also where that is not told.

    The system looks through all of a process's memory for what it says in `smaps`; here it is asked of these pages alone.
    """
    pages = array.array("Q")
    try:
        with Path("/proc/self/pagemap").open("rb") as file:
            file.seek(start // mmap.PAGESIZE * pages.itemsize)
            pages.fromfile(file, (stop - start) // mmap.PAGESIZE)
    except (OSError, EOFError):
        return True
    return any(page & _THERE and not page & _OF_FILE for page in pages)


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
