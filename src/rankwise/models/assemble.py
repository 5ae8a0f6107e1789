"""What transformers and peft make of a configuration: seeded base, PEFT adapter, head by kind, and the proof of its count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, inject_adapter_in_model
from torch import nn

from rankwise.config import Config
from rankwise.machine.seeds import own_generators
from rankwise.methods import method_of
from rankwise.models.assembly import Assembly, Batches
from rankwise.models.base import base_model, quiet
from rankwise.planning import Plan, plan, require_fit
from rankwise.planning.ledger import LOW_RANK_HEAD_SCALE, head_kind, wrapped_modules


def build(
    config: Config,
    num_labels: int,
    label_names: Sequence[str],
    *,
    total_steps: int | None = None,
    batches: Batches | None = None,
) -> Any:
    """The PEFT model of a configuration, seeded with `train.seed` before anything random is made.

    Its trainable parameters are exactly the plan's; `model.assembly` records them by their name in the plan.

    total_steps, batches
        As `fresh.assembled` has them.

    Raises:
        BudgetError: more would train than the budget allows.
        UserError: the model's files are not usable.
    """
    planned = plan(config, num_labels)
    require_fit(planned)
    config = planned.config
    method = method_of(config)
    with own_generators(config.train.seed):
        base = base_model(config.model, planned.encoder, label_names, config.data.multi_label)
        with quiet():
            model = get_peft_model(base, method.peft_config(config, planned.encoder, _common(planned), total_steps))
            method.initialise(model, config.adapter, batches)
        if head_kind(config) == "low_rank":
            _adapt_dense(model, planned)
    named = by_plan_name(model, planned)
    _make_trainable(model, named, planned)
    peft_config(model).modules_to_save = list(wrapped_modules(config, planned.encoder))
    model.assembly = _record(model, named, planned, label_names)
    return model


def peft_config(model: Any) -> Any:
    """PEFT's configuration of the one adapter."""
    return model.peft_config["default"]


def _record(model: Any, named: dict[str, torch.Tensor], planned: Plan, label_names: Sequence[str]) -> Assembly:
    trained = {entry.name for entry in planned.entries if entry.group}
    frozen = {entry.name for entry in planned.entries if entry.saved} - trained
    mutated = method_of(planned.config).mutated(planned.config.adapter, planned.places)
    return Assembly(
        plan=planned,
        label_names=tuple(label_names),
        trainable={name: value for name in sorted(trained) if isinstance(value := named[name], nn.Parameter)},
        frozen={name: named[name].detach().clone() for name in sorted(frozen)},
        initial={name: named[name].detach().clone() for name in sorted(mutated)},
        base_name=model.get_base_model().name_or_path or None,
        model=model,
    )


def _common(planned: Plan) -> dict[str, Any]:
    """What PEFT's configuration of any method takes."""
    # PEFT adds `classifier` to the modules of a sequence classifier by itself.
    extra = [name for name in wrapped_modules(planned.config, planned.encoder) if name != "classifier"]
    return {"task_type": TaskType.SEQ_CLS, "modules_to_save": extra or None}


def _adapt_dense(model: Any, planned: Plan) -> None:
    """Put LoRA on the head's dense layer, inside PEFT's trained copy of the head.

    PEFT never adapts a module it also saves whole, so this is a second injection into that copy; saving merges it.
    """
    dense, rank = planned.encoder.family.dense, planned.config.head.rank
    options = LoraConfig(r=rank, lora_alpha=LOW_RANK_HEAD_SCALE * rank, target_modules=["dense"])
    wrapper = next(m for n, m in model.named_modules() if n.endswith(planned.encoder.family.head_modules[0]))
    holder = wrapper.modules_to_save
    if isinstance(holder["default"], nn.Linear):
        options.target_modules = {"default"}
        inject_adapter_in_model(options, holder)
    else:
        inject_adapter_in_model(options, holder["default"])
    if not any(".lora_A." in name for name, _ in wrapper.named_parameters()):
        raise RuntimeError(f"the dense layer {dense} was not adapted")


def by_plan_name(model: Any, planned: Plan) -> dict[str, torch.Tensor]:
    """The model's tensors by the names the plan gives them: PEFT's wrappers and adapter name taken out."""
    names = {entry.name for entry in planned.entries}
    method = method_of(planned.config)
    found = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if ".original_module." in key:
            continue
        name = method.entry_name(key)
        name = name.replace(".modules_to_save.default.", ".")
        name = re.sub(r"\.lora_magnitude_vector\.default\.weight$", ".lora_magnitude_vector", name)
        name = re.sub(r"\.default(?=\.|$)", "", name)
        found[name if name in names else name.replace(".base_layer.", ".")] = value
    return found


def _make_trainable(model: Any, named: dict[str, torch.Tensor], planned: Plan) -> None:
    """Set exactly the planned parameters trainable, and prove that the live count is the planned one.

    PEFT's own choice is kept where it agrees; it differs for heads that train in part.
    """
    trained = {entry.name: entry.shape for entry in planned.entries if entry.group}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, shape in trained.items():
        parameter = named.get(name)
        if parameter is None or tuple(parameter.shape) != shape:
            got = "nothing" if parameter is None else tuple(parameter.shape)
            raise RuntimeError(
                f"the plan trains {name} of shape {shape}, the model has {got}: this is a fault of rankwise"
            )
        parameter.requires_grad_(True)
    live = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if live != planned.trainable:
        raise RuntimeError(
            f"the plan trains {planned.trainable:,} parameters, the model {live:,}: this is a fault of rankwise"
        )
