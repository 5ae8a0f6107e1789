"""The arithmetic of a run: what `model.precision` and `train.compile` stand for on this machine."""

from __future__ import annotations

import platform
import shutil

import torch

from rankwise.errors import UserError
from rankwise.machine.device import has_cuda

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
    if has_cuda():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "fp32"
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN says yes to any AVX-512, with or without the bf16 instructions.
        return "bf16" if any(_has(feature) for feature in ("avx512_bf16", "amx_tile")) else "fp32"
    return "bf16"


def has_compiler() -> bool:
    """Whether `torch.compile` finds a compiler: Inductor writes C++ for a processor, and for a GPU it brings Triton."""
    return has_cuda() or any(shutil.which(name) for name in ("g++", "clang++", "cl"))


def _has(feature: str) -> bool:
    """Whether the processor has a feature, by torch's own test; older versions of torch lack some tests."""
    test = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(test and test())


STEPS_THAT_REPAY_COMPILING = 10_000
"""Fusing saves at most 4 to 10 ms of an eager step in bf16 (LOG.md) and costs about 40 s, once a machine."""


def compiles(wanted: str, engine: str, steps: int) -> bool:
    """Whether a run of so many steps fuses the engine's elementwise work with `torch.compile`. (Where the processor has
    AMX the engine's own kernels, which take seconds to compile, stand in for it.)

    Raises: UserError when it is asked for and there is no compiler, or no fast engine.
    """
    if wanted == "off" or (wanted == "auto" and (engine != "fast" or steps < STEPS_THAT_REPAY_COMPILING)):
        return False
    if wanted == "auto" and fastest() == "fp32":  # fused steps were slower there (benchmarks/results)
        return False
    if engine != "fast":
        raise UserError("train.compile: on is for the fast engine, and this run takes the reference path: use auto")
    if wanted == "on" and not has_compiler():
        raise UserError(
            "train.compile: on needs a C++ compiler, and there is no g++ or clang++: install one, or use off"
        )
    return has_compiler()


def precision_of(wanted: str, engine: str) -> str:
    """The arithmetic `auto` stands for: bf16 where it is both fast and checked, else fp32.

    On a CPU the reference path stays in fp32, where it is exact; the fast engine's bf16 is held to the accuracy
    of autocast by its own tests, and taken where the processor has instructions for it.

    Raises: UserError for fp16 without a GPU.
    """
    if wanted == "fp16" and not has_cuda():
        raise UserError("model.precision: fp16 needs a GPU: use bf16, or auto")
    if wanted != "auto":
        return wanted
    if engine == "fast" or has_cuda():
        return fastest()
    return "fp32"
