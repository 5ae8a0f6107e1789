"""A training step: the peer's, ours, and the bare products of the linear layers."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.bench.command import Setting
from rankwise.bench.material import Material, assembly, peft_model, prepare, trainable
from rankwise.bench.turns import End, Turns
from rankwise.engine import FastClassifier
from rankwise.engine.linear import Sites
from rankwise.machine.compiler import eager, without_compiler
from rankwise.machine.processes import this_process
from rankwise.machine.transfer import sent
from rankwise.models.assembly import Assembly
from rankwise.models.classifier import computing
from rankwise.training.update import Update

LEARNING_RATE = 5e-5


def run(variant: str, setting: Setting, turns: Turns) -> None:
    """Train as the variant does, turn by turn."""
    material = prepare(setting)
    if variant == "papers-all-layers":
        setting = replace(setting, layers=None)
    classes = int(material.labels.max()) + 1
    ours = variant.startswith("engine")
    made: Any = assembly(setting, classes) if ours else peft_model(setting, classes)
    count = made.plan.trainable if ours else trainable(made)
    try:
        if variant.startswith(("papers", "grouped", "bf16", "fp16")):
            _peer(variant, made, material, setting, turns)
        elif variant.startswith("products"):
            _products(variant, made, material, setting, turns)
        else:
            _engine(variant, made, material, setting, turns)
    except End:
        pass
    turns.report(tokens=material.tokens, trainable=count)


def _peer(variant: str, model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """peft + Trainer with its defaults, dynamic padding, on the same rows."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            turns.step_done()

    class InOrder(Trainer):  # type: ignore[misc]
        """Takes the rows in their order, which is shuffled already, unless it groups them."""

        def _get_train_sampler(self, *args: Any) -> Any:
            if variant.endswith("grouped"):
                return super()._get_train_sampler(*args)
            return SequentialSampler(self.train_dataset)

    rows = Dataset.from_dict(
        {"input_ids": [text.tolist() for text in material.texts], "labels": material.labels.tolist()}
    )
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=setting.batch_size,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        use_cpu=this_process().device.type == "cpu",
        bf16=variant.startswith("bf16"),
        fp16=variant.startswith("fp16"),
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=setting.seed,
        **(_tuned(on_gpu=this_process().device.type != "cpu") if variant.endswith("grouped") else {}),
    )
    collator = DataCollatorWithPadding(getattr(material.tokenizer, "whole", material.tokenizer))
    InOrder(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Steps()]).train()


def _tuned(*, on_gpu: bool) -> dict[str, Any]:
    """What a Trainer can be told that costs nothing; its attention is fused already."""
    if not on_gpu:
        return _grouping()
    return {
        **_grouping(),
        "optim": "adamw_torch_fused",
        "dataloader_pin_memory": True,
        "dataloader_num_workers": 2,  # make the next batches meanwhile
        "logging_nan_inf_filter": False,  # would wait for the GPU in every step
    }


def _grouping() -> dict[str, Any]:
    """The Trainer's option of length grouping, by the name this version has for it."""
    from transformers import TrainingArguments

    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def _engine(variant: str, made: Assembly, material: Material, setting: Setting, turns: Turns) -> None:
    """Our step with the same optimizer and gradient clipping as the Trainer's defaults."""
    device = this_process().device  # where the Trainer puts the peer's model
    encoder = made.plan.encoder
    classifier = FastClassifier(
        made.weights(),
        encoder.model_type,
        dict(encoder.hf_config),
        backend="torch" if variant == "engine-torch" else "auto",
        seed=setting.seed,
    )
    classifier.to(device).train()
    trained = list(classifier.parameters())
    with without_compiler():
        optimizer = eager(torch.optim.AdamW)(trained, lr=LEARNING_RATE, fused=True)
    update = Update(optimizer, trained, max_grad_norm=1.0, scaled=classifier.precision == torch.float16)
    if variant == "engine-cached":
        classifier.cache_prefix()
        for start in range(0, len(material.texts), setting.batch_size):  # as the first epoch would
            classifier.collate(material.texts[start : start + setting.batch_size])

    def step(number: int) -> None:
        rows = range(number * setting.batch_size, (number + 1) * setting.batch_size)
        batch = classifier.collate([material.texts[row] for row in rows])
        classifier.set_step(number)
        labels = sent(material.labels[rows.start : rows.stop], device)
        update.backward(F.cross_entropy(classifier(batch), labels))
        update.apply()
        update.clear()

    with without_compiler(), computing(classifier):
        turns.drive(step)


def _products(variant: str, model: nn.Module, material: Material, setting: Setting, turns: Turns) -> None:
    """The frozen linear layers' products alone, forward and backward, on the engine's batches and weights.

    The engine makes just these: no input gradient below the lowest adapter, and first tokens alone in the last layer.
    """
    classifier = (
        FastClassifier.from_peft(model, backend="auto" if variant == "products" else "torch")
        .to(this_process().device)
        .train()
    )
    layers = [[module for module in layer.modules() if isinstance(module, Sites)] for layer in classifier.layers]
    lowest = min(setting.layers) if setting.layers else 0
    inputs: dict[tuple[int, int], Tensor] = {}

    def random(rows: int, columns: int) -> Tensor:
        if (rows, columns) not in inputs:
            drawn = torch.randn(rows, columns, device=this_process().device)
            inputs[rows, columns] = drawn.to(classifier.precision)
        return inputs[rows, columns]

    def step(number: int) -> None:
        rows = material.texts[number * setting.batch_size : (number + 1) * setting.batch_size]
        tokens = sum(len(row) for row in rows)
        for index, sites in enumerate(layers):
            last = index == len(layers) - 1
            reads_all = {id(sites[1])} if last else {id(one) for one in sites}
            for one in sites:
                count = tokens if id(one) in reads_all else len(rows)
                bias = one.bias()
                d_out, d_in = one.frozen.width, one.d_in
                with torch.no_grad():
                    one.frozen(random(count, d_in), bias)
                    if index > lowest or (index == lowest and one not in sites[:1]):
                        one.frozen.backward(random(count, d_out))

    with computing(classifier):
        for number in range(setting.warmup + setting.steps * setting.rounds):
            step(number)  # makes the inputs, and the library's kernel for every shape, outside the measured time
        turns.drive(step)
