"""Load the kernels: a wheel's, or those compiled once a user."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from rankwise.engine.native import building
from rankwise.errors import UserError
from rankwise.machine import caches
from rankwise.machine.device import has_cuda

NEEDED = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl", "avx512dq"}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where this machine has no use for them or cannot make them.

    Where no wheel brought them, the first call compiles, which takes a few seconds; the result is kept in the user's cache.
    """
    return (_loaded(lambda: building.BUILT) or _loaded(_compiled)) if _has_tiles() else None


def _loaded(place: Callable[[], Path | None]) -> ctypes.CDLL | None:
    """The library at a place, if it is there and runs here: a wheel's may be for another system's C library."""
    try:
        path = place()
        if path is None or not path.exists():
            return None
        found = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    except (OSError, UserError, subprocess.SubprocessError):
        return None
    return found if found.start() == 0 else None


def _has_tiles() -> bool:
    """Whether the processor has AMX and its way of asking for it is known."""
    if not building.is_known_system() or has_cuda():
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split()) >= NEEDED


def _compiled() -> Path | None:
    """The user's shared library, by what it was made of; None without a compiler."""
    compiler = building.compiler()
    if compiler is None:
        return None
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    sources = [source.read_bytes() for source in building.SOURCES]
    content = b"\0".join([*sources, version, " ".join(building.FLAGS).encode()])
    path = caches.cache("native") / f"kernels-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not path.exists():
        building.build(compiler, path)
    return path
