"""A classifier the loop can train and the predictor can ask, whichever path runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.config import Config
from rankwise.errors import UserError

if TYPE_CHECKING:
    from rankwise.planning import Plan

STEPS_THAT_REPAY_COMPILING = 10_000
"""Fusing saves at most 4 to 10 ms of an eager step in bf16 (LOG.md) and costs about 40 s, once a machine."""

Batch = Any
"""What `collate` makes and `forward` takes; the loop only passes it on."""


class Classifier(Protocol):
    """Token ids in, logits out. Both paths are `nn.Module`s whose trainable parameters are PEFT's own."""

    def collate(self, texts: Sequence[np.ndarray]) -> Batch:
        """A batch of texts, each an int array of token ids with the special tokens."""

    def set_step(self, step: int) -> None:
        """Make dropout a function of the run's seed and this number, so that a resumed run repeats it."""

    def __call__(self, batch: Batch) -> Tensor:
        """The logits, fp32. Shape: (texts, classes)"""


class ReferenceClassifier(nn.Module):
    """`transformers` and `peft` on batches padded to their longest text.

    precision
        fp32, or bf16/fp16 for autocast.
    """

    def __init__(self, model: nn.Module, *, pad_token_id: int, precision: str, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.pad_token_id = pad_token_id
        self.autocast_dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.seed = seed

    def collate(self, texts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """input_ids and attention_mask. Shape: (texts, longest_tokens)"""
        longest = max(len(text) for text in texts)
        ids = np.full((len(texts), longest), self.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def set_step(self, step: int) -> None:
        """Seed torch's generators from (seed, step); torch mixes the bits of neighbouring seeds well."""
        torch.manual_seed((self.seed << 32) + step)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Shape: (texts, classes)"""
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(
            device.type, self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        ):
            logits = self.model(**inputs).logits
        return cast("Tensor", logits.float())


def logits_of(classifier: Classifier, tokens: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    """The logits of every text, in the order given, without dropout.

    Texts of similar length share a batch, so little or nothing is padded.

    Returns: float32 array. Shape: (texts, classes)
    """
    module = cast("nn.Module", classifier)
    was_training = module.training
    module.eval()
    order = np.argsort([-len(text) for text in tokens], kind="stable")
    pieces: list[Tensor] = []
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                batch = classifier.collate([tokens[row] for row in order[start : start + batch_size]])
                pieces.append(classifier(batch).float().cpu())
    finally:
        module.train(was_training)
    by_length = torch.cat(pieces).numpy()
    result = np.empty_like(by_length)
    result[order] = by_length
    return result


def classifier_of(model: nn.Module, plan: Plan, config: Config, *, pad_token_id: int, steps: int = 0) -> Any:
    """The PEFT model on the path the plan chose: the fast engine, or transformers and peft as they are.

    The fast engine takes the frozen weights out of `model` and shares its trainable parameters, which PEFT can
    still save.

    steps
        Optimizer steps it is for: `train.compile: auto` compiles for long runs alone.
    """
    precision = precision_of(config.model.precision, plan.engine)
    if plan.engine == "fast":
        from rankwise.engine import FastClassifier

        fused = compiles(config.train.compile, plan.engine, steps)
        return FastClassifier.from_peft(model, precision=precision, compile=fused, seed=config.train.seed)
    return ReferenceClassifier(model, pad_token_id=pad_token_id, precision=precision, seed=config.train.seed)


def compiles(wanted: str, engine: str, steps: int) -> bool:
    """Whether a run of so many steps fuses the engine's elementwise work with `torch.compile`.

    Raises: UserError when it is asked for and there is no compiler, or no fast engine.
    """
    from rankwise.engine.precision import fastest, has_compiler

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
        from rankwise.engine.precision import fastest

        return fastest()
    return "fp32"


def prediction_classifier(folder: Path, config: Config, *, pad_token_id: int) -> Any:
    """A classifier that only predicts, from an adapter's folder.

    The fast engine reads the files itself, where it can: peft alone takes seconds to import.

    config
        The run's configuration; its `engine` and `model.precision` choose the path.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.engine != "reference" and _fast_can_read(folder, config):
        from rankwise.engine import FastClassifier
        from rankwise.models.sources import locate

        precision = precision_of(config.model.precision, "fast")
        return FastClassifier.from_files(locate(config.model), folder, precision=precision).to(device)
    from rankwise.models import adapter_file

    precision = precision_of(config.model.precision, "reference")
    model = adapter_file.load(folder)
    return ReferenceClassifier(model, pad_token_id=pad_token_id, precision=precision).to(device)


def _fast_can_read(folder: Path, config: Config) -> bool:
    from rankwise.engine.families import FAMILIES
    from rankwise.engine.support import why_not
    from rankwise.engine.weights import unreadable
    from rankwise.models.sources import ensure_config
    from rankwise.planning import encoder_of

    if config.model.random_weights:
        return False  # there is no file to read: the reference path makes the weights again from their seed
    ensure_config(config.model)
    encoder = encoder_of(config.model)
    reason = why_not(encoder.model_type, encoder.hf_config, config)
    return reason is None and unreadable(folder, FAMILIES[encoder.model_type]) is None
