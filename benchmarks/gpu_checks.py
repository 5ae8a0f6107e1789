"""What must hold on a device: each check gives a number, what it may be at most, and whether it is kept.

Every check compares with something that is known otherwise: `transformers` and `peft` in fp32, autocast's own distance from
that, the processor, or a run that nobody interrupted.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gpu_material
import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file

import rankwise
from engine.models import CONFIGS, adapted, distance, engine, error, modules, reference, texts, tiny, worst
from rankwise.engine.dropout import Stream
from rankwise.machine.device import device, has_cuda
from rankwise.machine.precision import fastest
from rankwise.training import loop

FP32 = 1e-4
"""relative error allowed of a whole tensor"""
SCALE = {"bf16": 1.0, "fp16": 1024.0}
"""of losses in half precision, ours and autocast's alike"""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVERYTHING = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
NO_WAITS_FROM = 3
"""steps that may wait: kernels are loaded and memory is taken in the first ones"""


@dataclass
class Outcome:
    """What a check came to."""

    name: str
    told: str
    status: str
    """ok, FAILED, or skipped"""


@dataclass
class Checks:
    """Checks one after the other; none stops those behind it."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many did not hold."""
        return sum(one.status == "FAILED" for one in self.outcomes)

    def at_most(self, name: str, bound: float, measure: Callable[[], float | tuple[float, str]]) -> None:
        """A number that may be as large as the bound."""

        def check() -> tuple[bool, str]:
            found = measure()
            value, where = found if isinstance(found, tuple) else (found, "")
            return value <= bound, f"{value:.2e}, at most {bound:.0e}" + (
                f" ({where.removeprefix('base_model.model.')})" if where else ""
            )

        self.run(name, check)

    def run(self, name: str, check: Callable[[], tuple[bool, str]]) -> None:
        """Whether it holds, and what it says; an error is a check that does not hold."""
        try:
            holds, told = check()
        except Exception as failure:
            traceback.print_exc()
            holds, told = (
                False,
                f"{type(failure).__name__}: {str(failure).strip().splitlines()[0] if str(failure) else ''}",
            )
        self.tell(Outcome(name, told, "ok" if holds else "FAILED"))

    def tell(self, outcome: Outcome) -> None:
        """Print and keep it."""
        self.outcomes.append(outcome)
        print(f"{outcome.status:<8} {outcome.name:<58} {outcome.told}", flush=True)

    def tree(self) -> list[dict[str, str]]:
        """As a file keeps them."""
        return [asdict(one) for one in self.outcomes]


def run_all(folder: Path, rows: Path, base: Path, *, quick: bool) -> Checks:
    """Every check.

    folder
        Where runs are kept.
    rows, base
        What they train on, and from.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    checks = Checks()
    for family in CONFIGS:
        checks.at_most(f"fp32, {family}: logits, loss, every gradient", FP32, lambda family=family: _of_family(family))
    for shape in [one.smaller() if quick else one for one in (gpu_material.MINILM, gpu_material.ROBERTA)]:
        checks.at_most(f"fp32, the shape {shape.name}", FP32, lambda shape=shape: _of_shape(shape))
    for precision in precisions_here():
        for family in ["bert"] if quick else CONFIGS:
            checks.run(
                f"{precision}, {family}: no further from fp32 than autocast",
                lambda family=family, precision=precision: _beside_autocast(family, precision, seeds=3 if quick else 6),
            )
    checks.run("dropout: masks of a seed are the processor's", _masks)
    _of_runs(checks, folder, rows, base, steps=4 if quick else 16)
    _give_back()
    return checks


def _give_back() -> None:
    """Let those that are measured next have the memory that torch keeps on the device for what comes."""
    gc.collect()
    empty = getattr(torch.get_device_module(device()), "empty_cache", None) if device().type != "cpu" else None
    if empty is not None:
        empty()


def precisions_here() -> list[str]:
    """The halves that the device computes in."""
    if has_cuda():
        return ["bf16", "fp16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp16"]
    return ["bf16"]


def _of_family(family: str) -> tuple[float, str]:
    """The largest error of a small model with LoRA on query and value, and of one with DoRA and biases everywhere."""
    models = [
        adapted(tiny(family), modules(family, "query", "value")),
        adapted(tiny(family), modules(family, *EVERYTHING), use_dora=True, bias="all"),
    ]
    return max(
        worst(reference(peft, texts(), device=device()), engine(peft, texts(), device=device())) for peft in models
    )


def _of_shape(shape: gpu_material.Shape) -> tuple[float, str]:
    """The largest error at a real encoder's size, in a batch of 16 texts as long as AG News'."""
    model = tiny(shape.model_type, **{**shape.values, "initializer_range": 0.02})
    peft = adapted(model, modules(shape.model_type, "query", "value"), r=8, lora_alpha=16)
    rows = texts(gpu_material.lengths(16), shape.values["vocab_size"])
    return worst(reference(peft, rows, device=device()), engine(peft, rows, device=device()))


def _beside_autocast(family: str, precision: str, seeds: int) -> tuple[bool, str]:
    """The mean distance of logits and gradients from fp32, over models: ours and autocast's."""
    ours, theirs = [], []
    for seed in range(seeds):
        model = tiny(family, seed=seed, initializer_range=0.1, num_hidden_layers=4, n_layers=4)
        peft = adapted(model, modules(family, "query", "value"), use_dora=seed % 2 == 1)
        rows = texts((30, 25, 12, 30, 7, 19, 22, 8) * 4)
        exact, scale = reference(peft, rows, device=device()), SCALE[precision]
        ours.append(distance(engine(peft, rows, precision, device=device(), scale=scale), exact))
        autocast = reference(peft, rows, autocast=DTYPES[precision], device=device(), scale=scale)
        theirs.append(distance(autocast, exact))
    return bool(np.mean(ours) <= np.mean(theirs)), f"{np.mean(ours):.2e}, autocast's {np.mean(theirs):.2e}"


def _masks() -> tuple[bool, str]:
    """How many elements of three masks in two passes differ between device and processor."""
    different = 0
    streams = {here: Stream(7, 3072) for here in ("cpu", device())}
    for step in (0, 5):
        masks = {}
        for here, stream in streams.items():
            stream.set_step(step)
            stream.begin(torch.device(here))
            found = [stream.mask(rows, columns, 0.1) for rows, columns in ((900, 768), (900, 3072), (16, 768))]
            masks[here] = [mask.multiplier().cpu() for mask in found if mask is not None]
        one, other = masks.values()
        different += sum(int((first != second).sum()) for first, second in zip(one, other, strict=True))
    return different == 0, f"{different} elements differ"


# --- runs ---------------------------------------------------------------------------------------------


def _of_runs(checks: Checks, folder: Path, rows: Path, base: Path, *, steps: int) -> None:
    """A run, one that is watched, one that is interrupted and resumed, and the adapter of the first elsewhere."""
    config = {
        "model": {"name": str(base)},
        "adapter": {"scope": ["query", "value"], "rank": 8, "dropout": 0.1},
        "data": {"train": str(rows), "validation_size": 64, "max_length": 256},
        "train": {"batch_size": 16, "learning_rate": 1e-3, "steps": steps, "seed": 3},
        "engine": "fast",
    }
    quiet = Console(quiet=True)
    whole, resumed = folder / "whole", folder / "resumed"

    def trained() -> tuple[bool, str]:
        run = rankwise.train(config, out=whole, console=quiet)
        return run.record.status == "finished", f"{steps} steps in {fastest()}"

    def without_waits() -> tuple[bool, str]:
        with _watched() as waits:
            rankwise.train(config, out=folder / "watched", console=quiet)
        return not waits, waits[0] if waits else f"{steps - NO_WAITS_FROM} steps"

    def as_uninterrupted() -> tuple[bool, str]:
        rankwise.train(config, out=resumed, console=quiet, stop_at_step=steps // 2)
        rankwise.train(config, out=resumed, console=quiet, resume=True)
        return _same(whole, resumed)

    name = "a training step makes the host wait for nothing"
    checks.run("a run trains, is saved, and is proven", trained)
    if has_cuda():
        checks.run(name, without_waits)
        checks.run("a second run of one seed: the same weights", lambda: _same(whole, folder / "watched"))
    else:
        checks.tell(Outcome(name, "asked of CUDA alone", "skipped"))
    checks.run("resumed after an interruption: the uninterrupted run", as_uninterrupted)
    sample = gpu_material.texts(64, seed=9)[0]
    exact: list[np.ndarray] = []

    def reloaded() -> float:
        exact.append(_on_processor(whole, sample))
        return error(*(torch.from_numpy(one) for one in (_logits(whole, sample, precision="fp32"), exact[0])))

    def reloaded_in(precision: str) -> tuple[bool, str]:
        ours, theirs = (
            error(
                torch.from_numpy(_logits(whole, sample, precision=precision, engine=path)), torch.from_numpy(exact[0])
            )
            for path in ("fast", "reference")
        )
        return ours <= theirs, f"{ours:.2e}, autocast's {theirs:.2e}"

    checks.at_most("the adapter, loaded by a processor: fp32 logits", FP32, reloaded)
    for precision in precisions_here():
        checks.run(f"the same in {precision}: no further than autocast", lambda p=precision: reloaded_in(p))


def _same(run: Path, other: Path) -> tuple[bool, str]:
    """Whether two runs have the same weights."""
    ours, theirs = (load_file(one / "adapter" / "adapter_model.safetensors") for one in (run, other))
    same = ours.keys() == theirs.keys() and all(torch.equal(theirs[name], value) for name, value in ours.items())
    off = max(error(theirs[name], value) for name, value in ours.items() if name in theirs)
    return same, "bit for bit" if same else f"largest relative error {off:.2e}"


def _logits(run: Path, sample: list[str], **options: Any) -> np.ndarray:
    logits: np.ndarray = rankwise.load(run, **options).logits(sample)
    return logits


def _on_processor(run: Path, sample: list[str]) -> np.ndarray:
    """The fp32 logits of a process that sees no GPU; of this one where there is none."""
    if device().type == "cpu":
        return _logits(run, sample, precision="fp32")
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ZE_AFFINITY_MASK": ""}
    code = (
        "import json, sys, rankwise; "
        "print(json.dumps(rankwise.load(sys.argv[1], precision='fp32').logits(json.load(sys.stdin)).tolist()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(run)], input=json.dumps(sample), env=blind, text=True, capture_output=True
    )
    if said.returncode != 0:
        raise RuntimeError(f"the process without a GPU ended with {said.returncode}: {said.stderr.strip()[-500:]}")
    return np.array(json.loads(said.stdout.splitlines()[-1]), dtype=np.float32)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """A block whose training steps, all but the first ones, end with an error where the host would wait for the device.

    Gives: where it would have, once it has come to that.
    """
    train_step, found = loop.Loop._train_step, list[str]()
    own = Path(rankwise.__file__).parent

    def step(one: loop.Loop) -> None:
        if one.state.step < NO_WAITS_FROM:
            train_step(one)
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            train_step(one)
        except RuntimeError as failure:
            frames = [x for x in traceback.extract_tb(failure.__traceback__) if Path(x.filename).is_relative_to(own)]
            last = frames[-1]
            found.append(f"step {one.state.step + 1}, {Path(last.filename).name}:{last.lineno}: {last.line}")
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    loop.Loop._train_step = step
    try:
        yield found
    except RuntimeError:
        if not found:
            raise
    finally:
        loop.Loop._train_step = train_step
