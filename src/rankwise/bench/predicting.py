"""Predicting a batch of texts: the peer's way, and ours."""

from __future__ import annotations

import torch
from torch import nn

from rankwise.bench.command import Setting
from rankwise.bench.material import Material, peft_model, prepare, trainable
from rankwise.bench.turns import End, Turns, report
from rankwise.engine import FastClassifier


def run(variant: str, setting: Setting, turns: Turns) -> None:
    """Predict as the variant does, turn by turn; a step is a batch."""
    material = prepare(setting)
    model = peft_model(setting, int(material.labels.max()) + 1).eval()
    count = trainable(model)
    if variant != "papers":
        material.texts.sort(key=len)
    try:
        with torch.inference_mode():
            (_engine if variant.startswith("engine") else _peer)(variant, model, material, setting, turns)
    except End:
        pass
    report(tokens=material.tokens, trainable=count)


def _peer(variant: str, model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """transformers + peft on padded batches."""

    def step(number: int) -> None:
        rows = material.texts[number * setting.batch_size : (number + 1) * setting.batch_size]
        batch = material.tokenizer.pad({"input_ids": [row.tolist() for row in rows]}, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16-sorted"):
            model(**batch)

    turns.drive(step)


def _engine(variant: str, model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """Ours, the adapter beside the weights or merged into them."""
    if variant == "engine-merged":
        model = model.merge_and_unload()  # type: ignore[operator]
        model.requires_grad_(False)
    classifier = FastClassifier.from_peft(model).eval()

    def step(number: int) -> None:
        classifier(classifier.collate(material.texts[number * setting.batch_size : (number + 1) * setting.batch_size]))

    turns.drive(step)
