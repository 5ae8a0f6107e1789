"""Predicting a batch of texts: the peer's way, and ours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rankwise.bench.command import Setting
from rankwise.bench.material import Material, peft_model, prepare, trainable
from rankwise.bench.turns import End, Turns
from rankwise.inference import saved
from rankwise.inference.classifier import load_classifier
from rankwise.machine.device import device
from rankwise.machine.precision import fastest
from rankwise.models.classifier import computing


def run(variant: str, setting: Setting, turns: Turns) -> None:
    """Predict as the variant does, turn by turn; a step is a batch."""
    material = prepare(setting)
    model = peft_model(setting, int(material.labels.max()) + 1).eval()
    count = trainable(model)
    if variant != "papers":
        material.texts.sort(key=len)
    try:
        with torch.inference_mode():
            if variant == "engine":
                _engine(model, material, setting, turns)
            else:
                _peer(variant, model, material, setting, turns)
    except End:
        pass
    turns.report(tokens=material.tokens, trainable=count)


def _peer(variant: str, model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """transformers + peft on padded batches; a merged adapter is nobody's but the weights'."""
    here, half = device(), torch.bfloat16 if fastest() == "bf16" else torch.float16
    if variant == "merged-sorted":
        model = cast("Any", model).merge_and_unload().to(half)
    model.to(here)
    autocast = {"bf16-sorted": torch.bfloat16, "fp16-sorted": torch.float16}.get(variant)

    def step(number: int) -> None:
        rows = material.texts[number * setting.batch_size : (number + 1) * setting.batch_size]
        batch = material.tokenizer.pad({"input_ids": [row.tolist() for row in rows]}, return_tensors="pt").to(here)
        with torch.autocast(here.type, autocast, enabled=autocast is not None):
            _answered(model(**batch).logits, setting)

    turns.drive(step)


def _answered(logits: Tensor, setting: Setting) -> None:
    """Whoever asks texts alone waits for each answer; of many all answers are taken at the end."""
    if setting.answers_alone:
        logits.cpu()


def _engine(model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """Ours, as `rankwise.load` serves it."""
    with tempfile.TemporaryDirectory(prefix="rankwise-", ignore_cleanup_errors=True) as folder:
        classifier = _served(model, Path(folder))

        def step(number: int) -> None:
            rows = material.texts[number * setting.batch_size : (number + 1) * setting.batch_size]
            _answered(classifier(classifier.collate(rows)), setting)

        with computing(classifier):
            turns.drive(step)


def _served(model: Any, folder: Path) -> Any:
    """The classifier that is served of a PEFT model, once saved. It maps its base's file, which lies in the folder."""
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    model.unload().save_pretrained(folder / "base")
    return load_classifier(saved.read(folder / "adapter", base=folder / "base"), engine="fast")
