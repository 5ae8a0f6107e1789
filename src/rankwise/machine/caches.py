"""The user's caches: what can be made again, kept so that it need not be.

Folders are the owner's alone. All of them together keep within a tenth of the disk's room, those used longest ago going
first. Where none can be written, in a read-only home or on a full disk, a folder of this process's own stands in for the
time it runs: nothing fails for want of a cache.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankwise import files
from rankwise.errors import UserError

KEPT = ("packaged", "native", "looks", "objects")
"""kinds that are never cleared by size: fetched from an index, compiled once, named by runs, or no cache at all"""
SHARE = 0.1
"""of the disk's free room, the caches' own counted as free: they never are what fills a disk"""


def cache(kind: str) -> Path:
    """The folder of this user's caches of a kind (`tokens`, `packaged`), made at first use.

    RANKWISE_CACHE names another place for all of them.
    """
    try:
        folder = root() / kind
        _make_private(root())
        _make_private(folder)
        files.make_writable_folder(folder)
    except (UserError, OSError):
        folder = _stand_in() / kind
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
    _trim_once(root())
    return folder


def root() -> Path:
    """The folder of all caches."""
    named, common = os.environ.get("RANKWISE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named)
    return (Path(common) if common else Path.home() / ".cache") / "rankwise"


def used(path: Path) -> None:
    """Note that an entry was read: those used longest ago are the first to go."""
    with contextlib.suppress(OSError):
        os.utime(path)


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """Around storing what can be made again: a disk that takes no more ends nothing."""
    with contextlib.suppress(UserError, OSError):
        yield


def trim(folder: Path, limit: int) -> None:
    """Remove entries below a folder of caches, those used longest ago first, until the rest has at most `limit` bytes.

    An entry is what lies in a kind's folder, a file or a folder with all within. A process that reads a removed one keeps
    what it has opened.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.used_at)
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
            total -= entry.size


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used_at: float


def _entries(folder: Path) -> Iterator[_Entry]:
    for kind in folder.iterdir():
        if kind.name in KEPT or kind.name.startswith(".") or not kind.is_dir():
            continue
        for path in kind.iterdir():
            if path.suffix == ".lock" or path.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                facts = [one.stat() for one in (path, *(path.rglob("*") if path.is_dir() else ()))]
                # Blocks, not lengths: a file that is filled bit by bit is mostly holes.
                size = sum(getattr(fact, "st_blocks", -(-fact.st_size // 512)) * 512 for fact in facts)
                yield _Entry(path, size, max(fact.st_mtime for fact in facts))


@functools.cache
def _trim_once(folder: Path) -> None:
    """Once a process: looking through thousands of entries takes a moment."""
    with contextlib.suppress(OSError):
        own = sum(entry.size for entry in _entries(folder))
        trim(folder, int(SHARE * (shutil.disk_usage(folder).free + own)))


def _make_private(folder: Path) -> None:
    """Make a folder that its owner alone may enter; one that others may write to is closed to them.

    What is loaded from here must not be another user's work.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


@functools.cache
def _stand_in() -> Path:
    """An empty folder for the time of this process."""
    folder = Path(tempfile.mkdtemp(prefix="rankwise-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
