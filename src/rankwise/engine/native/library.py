"""Compile kernels.cpp once a user, and load it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from rankwise import files
from rankwise.errors import UserError

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-Wno-maybe-uninitialized",
    "-mfma",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mavx512bf16",
    "-mamx-tile",
    "-mamx-bf16",
]
NEEDED = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl", "avx512dq"}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where this machine has no use for them or cannot make them. The first call compiles,
    which takes a few seconds, and the result is kept in the user's cache."""
    compiler = _compiler()
    if compiler is None or not _has_tiles():
        return None
    try:
        path = _compiled(compiler)
        loaded = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    except (OSError, UserError, subprocess.SubprocessError):
        return None
    return loaded if loaded.start() == 0 else None


def _has_tiles() -> bool:
    """Whether the processor has AMX and this is a system whose way of asking for it is known."""
    if platform.system() != "Linux" or platform.machine() != "x86_64" or torch.cuda.is_available():
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split()) >= NEEDED


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next((name for name in (named, "g++", "clang++") if name and shutil.which(name)), None)


def _compiled(compiler: str) -> Path:
    """The shared library's file, by what it was made of."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    content = b"\0".join([SOURCE.read_bytes(), version, " ".join(FLAGS).encode()])
    folder = files.cache("native")
    path = folder / f"kernels-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder) as made:
        unlinked, linked = Path(made) / "kernels.o", Path(made) / "kernels.so"
        subprocess.run([compiler, *FLAGS, "-c", str(SOURCE), "-o", str(unlinked)], capture_output=True, check=True)
        # Linked without OpenMP: its functions are found in the library that torch has loaded, so that both share one
        # pool of threads.
        subprocess.run([compiler, "-shared", str(unlinked), "-o", str(linked)], capture_output=True, check=True)
        linked.replace(path)
    return path
