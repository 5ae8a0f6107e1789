"""The arithmetic of the frozen products, which one this machine is fast in, and whether it can compile."""

from __future__ import annotations

import platform
import shutil

import torch

from rankwise.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def as_precision(name: str) -> torch.dtype:
    """The dtype a precision's name stands for; `auto` is the one this machine is fast in.

    Raises: UserError for a name the engine does not compute in.
    """
    try:
        return DTYPES[fastest() if name == "auto" else name]
    except KeyError:
        raise UserError(f"the fast engine computes in fp32 or bf16, not {name}") from None


def fastest() -> str:
    """bf16 where this machine multiplies it with instructions of its own, else fp32.

    A processor without such instructions converts every number: four times slower than fp32 on a Zen 3. Asked, not
    timed, so that the same machine always answers the same.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "fp32"
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN says yes to any AVX-512, with or without the bf16 instructions.
        return "bf16" if any(_has(feature) for feature in ("avx512_bf16", "amx_tile")) else "fp32"
    return "bf16"


def has_compiler() -> bool:
    """Whether `torch.compile` finds a compiler: Inductor writes C++ for a processor, and for a GPU it brings Triton."""
    return torch.cuda.is_available() or any(shutil.which(name) for name in ("g++", "clang++", "cl"))


def _has(feature: str) -> bool:
    """Whether the processor has a feature, by torch's own test; older versions of torch lack some tests."""
    test = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(test and test())
