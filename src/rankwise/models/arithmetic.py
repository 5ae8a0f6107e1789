"""What `model.precision` and `train.compile` stand for on this machine."""

from __future__ import annotations

import torch

from rankwise.engine.precision import fastest, has_compiler
from rankwise.errors import UserError

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
    if wanted == "fp16" and not torch.cuda.is_available():
        raise UserError("model.precision: fp16 needs a GPU: use bf16, or auto")
    if wanted != "auto":
        return wanted
    if engine == "fast" or torch.cuda.is_available():
        return fastest()
    return "fp32"
