"""The arithmetic of a run: what `model.precision` stands for on this machine."""

from __future__ import annotations

import platform

import torch

from rankwise.errors import UserError
from rankwise.machine.device import has_cuda
from rankwise.machine.isa import candidates, wanted

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
"""of products, by a precision's name; in int8 frozen matrices are rounded further, to eight bits"""


def as_precision(name: str) -> torch.dtype:
    """The dtype a precision's name stands for; `auto` is the one this machine is fast in.

    Raises: UserError for a name the engine does not compute in.
    """
    try:
        return DTYPES[fastest() if name == "auto" else name]
    except KeyError:
        raise UserError(f"the fast engine computes in {', '.join(DTYPES)}, not {name}") from None


def fastest() -> str:
    """bf16 where this machine multiplies it with instructions of its own; else fp16 on a GPU, and fp32 on a processor.

    A processor without such instructions converts every number: four times slower than fp32 on a Zen 3. Asked, not
    timed, so that the same machine always answers the same.
    """
    if has_cuda():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    isa = wanted()
    if isa is not None:
        return isa.precision
    if not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "fp32"
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN says yes to any AVX-512, with or without the bf16 instructions.
        return "bf16" if any(_has(feature) for feature in ("avx512_bf16", "amx_tile")) else "fp32"
    return "bf16"


def _has(feature: str) -> bool:
    """Whether the processor has a feature, by torch's own test; older versions of torch lack some tests."""
    test = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(test and test())


def is_here(name: str) -> bool:
    """Whether this machine computes in a precision that not every machine has."""
    if name == "fp16":
        return has_cuda()
    return name != "int8" or (not has_cuda() and bool(candidates("int8")))


def precision_of(asked: str, engine: str) -> str:
    """The arithmetic `auto` stands for: bf16 where it is both fast and checked, fp16 on a GPU that has no bf16, else fp32.

    On a CPU the reference path stays in fp32, where it is exact; the fast engine's bf16 is held to the accuracy
    of autocast by its own tests, and taken where the processor has instructions for it.

    Raises: UserError for fp16 without a GPU, and for int8 where nothing here computes in it.
    """
    if asked == "int8":
        if engine != "fast" or has_cuda():
            raise UserError("model.precision: int8 is the fast engine's, on a processor: use bf16, or auto")
        if not candidates("int8"):
            raise UserError(
                "model.precision: int8 needs a processor with avx512_vnni and avx512_bf16: use bf16 or fp32, or auto"
            )
    if asked == "fp16" and not has_cuda():
        raise UserError("model.precision: fp16 needs a GPU: use bf16, or auto")
    if asked != "auto":
        return asked
    if engine == "fast" or has_cuda():
        return fastest()
    return "fp32"
