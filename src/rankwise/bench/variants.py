"""Who takes part in a measurement: every variant, what it is, and what a machine must have for it."""

from __future__ import annotations

from collections.abc import Sequence

from rankwise.errors import UserError
from rankwise.machine.isa import ISAS

TRAIN_VARIANTS = {
    "papers": "peft + Trainer in fp32, batches padded to their longest text: how the papers ran it",
    "papers-all-layers": "the same with adapters in every layer (where --layers limits the others)",
    "grouped": "peft + Trainer in fp32, texts of similar length together",
    "bf16": "peft + Trainer under bf16 autocast",
    "bf16-grouped": "peft + Trainer under bf16 autocast, texts of similar length together",
    "fp16": "peft + Trainer under fp16 autocast with its loss scaling (needs a GPU)",
    "fp16-grouped": "peft + Trainer under fp16 autocast, texts of similar length together (needs a GPU)",
    "engine": "rankwise",
    "engine-torch": "rankwise in plain torch, without its own kernels (needs these)",
    "engine-cached": "rankwise, the frozen layers below the adapters computed once (needs --layers)",
    "products": "the products of the linear layers alone, on the engine's batches",
    "products-torch": "the same products by the library torch has for them (needs the kernels, or a GPU)",
}
PREDICT_VARIANTS = {
    "papers": "transformers + peft in fp32, in the order given",
    "sorted": "transformers + peft in fp32, texts sorted by length",
    "bf16-sorted": "transformers + peft under bf16 autocast, sorted",
    "fp16-sorted": "transformers + peft under fp16 autocast, sorted (needs a GPU)",
    "merged-sorted": "transformers, the adapter merged and all of it in half precision, sorted (needs a GPU)",
    "engine": "rankwise",
}


def _for_every_isa(variants: dict[str, str]) -> dict[str, str]:
    """Variants, and those that an instruction set's kernels compute, each of them by that set's name too."""
    own = {name: about for name, about in variants.items() if name in ("engine", "products")}
    return variants | {f"{name}-{isa}": f"{about}, kernels for {isa}" for name, about in own.items() for isa in ISAS}


VARIANTS = {"train": _for_every_isa(TRAIN_VARIANTS), "predict": _for_every_isa(PREDICT_VARIANTS)}
BASELINE = "papers"
NEED_LAYERS = {"engine-cached", "papers-all-layers"}
NEED_KERNELS = {"engine-torch", "products-torch"}
NEED_GPU = {"fp16", "fp16-grouped", "fp16-sorted", "merged-sorted"}
NEED_BF16 = {"bf16", "bf16-grouped", "bf16-sorted"}
SAME_ON_GPU = {"engine-torch", "products"}
"""there the engine is torch's, whose products are those of `products-torch`"""


def isa_of(variant: str) -> str | None:
    """The instruction set that a variant is of, if it names one."""
    name = variant.rpartition("-")[2]
    return name if name in ISAS else None


def chosen(task: str, asked: str | None, *, with_layers: bool) -> list[str]:
    """The variants that take part: those asked for, or all that apply here.

    asked
        Their names with commas between, or None.
    with_layers
        Whether adapters are limited to some layers.

    Raises: UserError for what is unknown, or cannot be measured here.
    """
    from rankwise.machine.device import device

    known, on_gpu = VARIANTS[task], device().type != "cpu"
    if asked is None:
        left_out = _not_here(on_gpu) | (set() if with_layers else NEED_LAYERS)
        return [name for name in known if name not in left_out and isa_of(name) is None]
    wanted = asked.split(",")
    _check(task, wanted, on_gpu=on_gpu)
    if not with_layers and not NEED_LAYERS.isdisjoint(wanted):
        raise UserError(f"--variants: {' and '.join(sorted(NEED_LAYERS))} need --layers, such as 8-11")
    return wanted


def _not_here(on_gpu: bool) -> set[str]:
    """Those that this machine cannot compute, or that would measure others again."""
    if not on_gpu:
        return NEED_GPU | (set() if _has_own_kernels() else NEED_KERNELS)
    from rankwise.machine.device import has_cuda
    from rankwise.machine.precision import fastest

    return SAME_ON_GPU | (NEED_BF16 if has_cuda() and fastest() != "bf16" else set())


def _check(task: str, wanted: Sequence[str], *, on_gpu: bool) -> None:
    """Raises: UserError."""
    known = VARIANTS[task]
    for name in wanted:
        if name not in known:
            raise UserError(f"--variants: no variant '{name}' of {task}; there are {', '.join(known)}")
        if name in NEED_GPU and not on_gpu:
            raise UserError(f"--variants: {name} needs a GPU, and torch sees none here; leave it out")
        if on_gpu and isa_of(name) is not None:
            raise UserError(
                f"--variants: {name} is of a processor's kernels, and a GPU computes here: leave it out, or set "
                "CUDA_VISIBLE_DEVICES= to measure the processor"
            )


def _has_own_kernels() -> bool:
    """Without them the variants in plain torch would measure the others again."""
    from rankwise.engine.native.backend import choose
    from rankwise.machine.precision import fastest

    return choose(fastest()).backend is not None
