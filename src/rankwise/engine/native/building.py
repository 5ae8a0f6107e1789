"""Build the kernels: at first use, or when a wheel is made, whose users then need no compiler.

The standard library alone: `hatch_build.py` runs this where neither rankwise nor torch is installed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
UNITS = (HERE / "kernels.cpp", HERE / "layer.cpp")
SOURCES = (HERE / "kernels.h", *UNITS)
BUILT = HERE / "kernels.so"
"""where a wheel has them"""
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


def is_known_system() -> bool:
    """Whether this is a system whose way of asking for tiles is known."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def compiler() -> str | None:
    """The C++ compiler to call, if there is one."""
    named = os.environ.get("CXX")
    return next((name for name in (named, "g++", "clang++") if name and shutil.which(name)), None)


def build(compiler: str, target: Path) -> None:
    """Compile the kernels into a shared library, which appears whole or not at all.

    Raises: subprocess.CalledProcessError when the compiler does not know the processor's instructions.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        unlinked = [str(Path(made) / f"{unit.stem}.o") for unit in UNITS]
        linked = Path(made) / "kernels.so"
        for unit, target_of_unit in zip(UNITS, unlinked, strict=True):
            command = [compiler, *FLAGS, "-c", str(unit), "-o", target_of_unit]
            subprocess.run(command, capture_output=True, check=True)
        # Linked without OpenMP: its functions are found in the library that torch has loaded, so that both share one
        # pool of threads. Its own functions are its own, whoever else has one of that name (-Bsymbolic).
        subprocess.run(
            [compiler, "-shared", "-Wl,-Bsymbolic", *unlinked, "-o", str(linked)], capture_output=True, check=True
        )
        linked.replace(target)
