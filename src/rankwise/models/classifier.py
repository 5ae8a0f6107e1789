"""A classifier the loop can train and the predictor can ask, whichever path runs it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.config import Config
from rankwise.engine.weights import check_all_train
from rankwise.machine import segments
from rankwise.machine.precision import precision_of

if TYPE_CHECKING:
    from rankwise.models.assembly import Assembly

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
        """input_ids, attention_mask and, for pairs where the encoder has them, token_type_ids.

        Shape of each: (texts, longest_tokens)
        """
        longest = max(len(text) for text in texts)
        ids = np.full((len(texts), longest), self.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        batch = {"input_ids": torch.from_numpy(segments.ids_of(ids)), "attention_mask": torch.from_numpy(mask)}
        types = segments.types_of(ids)
        if types.any() and getattr(self.model.config, "type_vocab_size", 0) > 1:
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch

    def set_step(self, step: int) -> None:
        """Seed torch's generators from (seed, step); torch mixes the bits of neighbouring seeds well."""
        seed = (self.seed << 32) + step
        # torch.manual_seed traces the stack for every kind of accelerator that is not there.
        if next(self.model.parameters()).device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Shape: (texts, classes)"""
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(
            device.type, self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        ):
            logits = self.model(**inputs).logits
        return cast("Tensor", logits.float())


def computing(classifier: Any) -> AbstractContextManager[None]:
    """A block in which torch leaves the cores to the classifier's kernels, if it has any."""
    from rankwise.machine.threads import beside_kernels

    return beside_kernels(getattr(classifier, "backend", None) is not None)


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
        with torch.inference_mode(), computing(classifier):
            for start in range(0, len(order), batch_size):
                batch = classifier.collate([tokens[row] for row in order[start : start + batch_size]])
                pieces.append(classifier(batch).float())
    finally:
        module.train(was_training)
    by_length = torch.cat(pieces).cpu().numpy()  # once, so that the device is not waited for after every batch
    result = np.empty_like(by_length)
    result[order] = by_length
    return result


def classifier_of(assembly: Assembly, config: Config, *, pad_token_id: int) -> Any:
    """What computes an assembly, on the path its plan chose: the fast engine, or transformers and peft as they are.

    The fast engine releases the assembly's frozen weights and shares its trainable parameters.
    """
    plan = assembly.plan
    precision = precision_of(config.model.precision, plan.engine)
    if plan.engine == "fast":
        from rankwise.engine import FastClassifier

        options: dict[str, Any] = {"precision": precision, "seed": config.train.seed}
        if assembly.model is not None:
            return FastClassifier.from_peft(assembly.model, **options)
        made = FastClassifier(assembly.weights(), plan.encoder.model_type, dict(plan.encoder.hf_config), **options)
        check_all_train(assembly.trainable, made)
        return made
    model = assembly.model
    assert isinstance(model, nn.Module)
    return ReferenceClassifier(model, pad_token_id=pad_token_id, precision=precision, seed=config.train.seed)
