"""Instruction sets that the engine has a backend for, and which of them this processor has, by its own word."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rankwise.errors import UserError

OVERRIDE = "RANKWISE_ISA"
"""the variable that names the one to take, for tests and benchmarks"""

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"})


@dataclass(frozen=True)
class Isa:
    """An instruction set."""

    name: str
    precision: str
    """of its products: bf16, fp32, or int8, which is bf16 but for frozen matrices"""
    machine: str | None
    """the architecture, as the system names it; None for any"""
    features: frozenset[str]
    """what the processor must have, by the names of Linux' /proc/cpuinfo"""

    def missing(self) -> str | None:
        """Why it cannot be taken on this machine, if so."""
        if platform.system() != "Linux":
            return f"kernels are made on Linux only, and this is {platform.system()}"
        if self.machine not in (None, platform.machine()):
            return f"the processor is {platform.machine()}, not {self.machine}"
        absent = sorted(self.features - features())
        return f"the processor has no {', '.join(absent)}" if absent else None


ISAS = {
    isa.name: isa
    for isa in (
        Isa("amx", "bf16", "x86_64", _AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"}),
        Isa("avx512bf16", "bf16", "x86_64", _AVX512 | {"avx512_bf16"}),
        Isa("avx512vnni", "int8", "x86_64", _AVX512 | {"avx512_bf16", "avx512_vnni"}),
        Isa("avx512", "fp32", "x86_64", _AVX512),
        Isa("avx2", "fp32", "x86_64", frozenset({"avx2", "fma"})),
        Isa("neonbf16", "bf16", "aarch64", frozenset({"asimd", "bf16"})),
        Isa("neon", "fp32", "aarch64", frozenset({"asimd"})),
        Isa("scalar", "fp32", None, frozenset()),
    )
}
"""by name, of each precision the fastest first"""


def wanted() -> Isa | None:
    """The one that RANKWISE_ISA names, if it is set.

    Raises: UserError for a name that is none, or one that this processor lacks.
    """
    name = os.environ.get(OVERRIDE)
    if not name:
        return None
    if name not in ISAS:
        raise UserError(f"{OVERRIDE} is '{name}': expected one of {', '.join(ISAS)}")
    reason = ISAS[name].missing()
    if reason is not None:
        raise UserError(f"{OVERRIDE} is '{name}', but {reason}")
    return ISAS[name]


def candidates(precision: str) -> list[Isa]:
    """Those for products in a precision that this processor has, the fastest first, or the one that is wanted.

    The one for any processor is slower than torch and comes only when it is wanted.
    """
    named = wanted()
    if named is not None:
        return [named] if named.precision == precision else []
    return [isa for isa in ISAS.values() if isa.precision == precision and isa.features and isa.missing() is None]


@cache
def features() -> frozenset[str]:
    """The processor's features, by the names of Linux' /proc/cpuinfo; none elsewhere."""
    return frozenset((of_processor("flags") or of_processor("Features") or "").split())


def of_processor(name: str) -> str | None:
    """What Linux' /proc/cpuinfo says of the first processor under a name; None where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    said = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in said if key.strip() == name), None)
