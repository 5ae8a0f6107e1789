"""Build the kernels: at first use, or when a wheel is made, whose users then need no compiler.

A library for each instruction set, so that nothing compiled for one is ever run on a processor that lacks it. The standard
library alone: `hatch_build.py` runs this where neither rankwise nor torch is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-shared", "-pthread"),
    # Products and sums in one rounding where the processor has it; panels are read as words.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-strict-aliasing"),
    *("-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    # Its own functions and variables are its own, whoever else has one of that name.
    *("-Wl,-Bsymbolic", "-fvisibility=hidden"),
)
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma")
UNITS: dict[str, tuple[str, ...]] = {
    "amx": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    "avx512bf16": (*_AVX512, "-mavx512bf16"),
    "avx512vnni": (*_AVX512, "-mavx512bf16", "-mavx512vnni"),
    "avx512": _AVX512,
    "avx2": ("-mavx2", "-mfma"),
    "neonbf16": ("-march=armv8.2-a+bf16",),
    "neon": (),
    "scalar": (),
}
"""what the compiler is told for each instruction set (`machine.isa`), whose source has its name"""
MACHINES = {"x86_64": ("amx", "avx512bf16", "avx512vnni", "avx512", "avx2"), "aarch64": ("neonbf16", "neon")}
"""those of a wheel, by the architecture it is for"""


def built(unit: str) -> Path:
    """Where a wheel has a unit's library."""
    return HERE / f"kernels-{unit}.so"


def is_known_system() -> bool:
    """Whether kernels are made for this system."""
    return platform.system() == "Linux" and platform.machine() in MACHINES


def oldest_libc(library: Path) -> tuple[int, int]:
    """The oldest GNU C library that a compiled unit runs with: the youngest of those whose symbols it names."""
    named = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library.read_bytes())
    return max((int(major), int(minor)) for major, minor in named)


def compiler() -> str | None:
    """The C++ compiler to call, if there is one."""
    named = os.environ.get("CXX")
    return next((name for name in (named, "g++", "clang++") if name and shutil.which(name)), None)


def kept(compiler: str, unit: str, folder: Path, flags: Sequence[str] = ()) -> Path:
    """A unit's library in a folder, called by all that it is made of, and compiled where it is not there yet.

    Raises: as `build`.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    asked = " ".join((*FLAGS, *UNITS[unit], *flags)).encode()
    sources = (HERE / f"{unit}.cpp", *sorted(HERE.glob("*.h")))
    content = [*(source.read_bytes() for source in sources), version, asked]
    path = folder / f"kernels-{unit}-{hashlib.sha256(bytes(1).join(content)).hexdigest()[:16]}.so"
    if not path.exists():
        build(compiler, unit, path, flags)
    return path


def build(compiler: str, unit: str, target: Path, flags: Sequence[str] = ()) -> None:
    """Compile a unit into a shared library, which appears whole or not at all.

    Raises: subprocess.CalledProcessError when the compiler does not know the processor's instructions.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        linked = Path(made) / target.name
        command = [compiler, *FLAGS, *UNITS[unit], *flags, str(HERE / f"{unit}.cpp"), "-o", str(linked)]
        subprocess.run(command, capture_output=True, check=True, text=True)
        linked.chmod(0o755)  # whatever the umask: what others may write is not loaded
        linked.replace(target)
