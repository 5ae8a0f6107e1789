"""A configuration put together: seeded base, PEFT adapter, head by kind, and the proof of its count."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    VeraConfig,
    get_peft_model,
    initialize_lora_eva_weights,
    inject_adapter_in_model,
)
from torch import nn

from rankwise.config import Config, alpha_of
from rankwise.config.methods import MUTATING, PROMPTING
from rankwise.machine.seeds import seed_everything
from rankwise.models.base import base_model, quiet
from rankwise.planning import Plan, plan, require_fit
from rankwise.planning.ledger import LOW_RANK_HEAD_SCALE, head_kind, wrapped_modules
from rankwise.planning.places import sites_of

NO_SITES = "dummy-target-modules"
"""PEFT's own word for an adapter without adapted layers, of which `modules_to_save` is all"""


@dataclass(frozen=True)
class Assembly:
    """What must be known of an assembled model to save it, whatever happens to its modules afterwards.

    Names are those of the plan's entries.
    """

    plan: Plan
    label_names: tuple[str, ...]
    trainable: dict[str, nn.Parameter]
    frozen: dict[str, torch.Tensor]
    """copies of tensors that are saved though they do not train: a random dense layer, VeRA's projections"""
    initial: dict[str, torch.Tensor]
    """A and B as initialised, where the initialisation changed the frozen weight (PiSSA, OLoRA)"""


def build(
    config: Config,
    num_labels: int,
    label_names: Sequence[str],
    *,
    total_steps: int | None = None,
    batches: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
) -> Any:
    """The PEFT model of a configuration, seeded with `train.seed` before anything random is made.

    Its trainable parameters are exactly the plan's; `model.assembly` records them by their name in the plan.

    total_steps
        optimizer steps of the run; AdaLoRA allocates its ranks over them.
    batches
        makes an iterable of `{"input_ids", "attention_mask"}` batches, of which EVA takes the activations.

    Raises:
        BudgetError: more would train than the budget allows.
        UserError: the model's files are not usable.
    """
    planned = plan(config, num_labels)
    require_fit(planned)
    config = planned.config
    seed_everything(config.train.seed)
    base = base_model(config.model, planned.encoder, label_names, config.data.multi_label)
    with quiet():
        model = get_peft_model(base, _peft_config(planned, total_steps))
    if config.adapter.init == "eva":
        _initialise_from_activations(model, batches)
    if head_kind(config) == "low_rank":
        _adapt_dense(model, planned)
    named = by_plan_name(model, planned)
    _make_trainable(model, named, planned)
    peft_config(model).modules_to_save = list(wrapped_modules(config, planned.encoder))
    model.assembly = _record(named, planned, label_names)
    return model


def peft_config(model: Any) -> Any:
    """PEFT's configuration of the one adapter."""
    return model.peft_config["default"]


def _record(named: dict[str, torch.Tensor], planned: Plan, label_names: Sequence[str]) -> Assembly:
    trained = {entry.name for entry in planned.entries if entry.group}
    frozen = {entry.name for entry in planned.entries if entry.saved} - trained
    factors = {f"{place.site.module}.lora_{side}.weight" for place in planned.places for side in "AB"}
    mutated = factors if planned.config.adapter.init in MUTATING else set()
    return Assembly(
        plan=planned,
        label_names=tuple(label_names),
        trainable={name: value for name in sorted(trained) if isinstance(value := named[name], nn.Parameter)},
        frozen={name: named[name].detach().clone() for name in sorted(frozen)},
        initial={name: named[name].detach().clone() for name in sorted(mutated)},
    )


def _peft_config(planned: Plan, total_steps: int | None) -> Any:
    """PEFT's configuration of the planned adapter."""
    adapter = planned.config.adapter
    # PEFT adds `classifier` to the modules of a sequence classifier by itself.
    extra = [name for name in wrapped_modules(planned.config, planned.encoder) if name != "classifier"]
    common: dict[str, Any] = {"task_type": TaskType.SEQ_CLS, "modules_to_save": extra or None}
    # Full paths: a shorter one may match more than it says (`output.dense` does).
    targets = [site.module for site in sites_of(adapter, planned.encoder)]
    if adapter.method == "lora":
        with warnings.catch_warnings():
            # PEFT warns that it cannot convert PiSSA with rsLoRA and patterns: `adapter_file` can, and does.
            warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA")
            return LoraConfig(target_modules=targets, bias=adapter.bias, **_lora_options(planned), **common)
    if adapter.method == "adalora":
        return _adalora_config(planned, targets, total_steps, common)
    if adapter.method == "vera":
        return VeraConfig(
            r=planned.rank,
            target_modules=targets,
            vera_dropout=adapter.dropout,
            projection_prng_key=planned.config.train.seed,
            save_projection=True,
            **common,
        )
    if adapter.method == "ia3":
        inputs = [site.module for site in sites_of(adapter, planned.encoder) if "ffn_out" in site.words]
        return IA3Config(target_modules=targets, feedforward_modules=inputs, **common)
    if adapter.method in PROMPTING:
        return _prompt_config(planned, common)
    return LoraConfig(target_modules=NO_SITES, bias="all" if adapter.method == "bitfit" else "none", **common)


def _lora_options(planned: Plan) -> dict[str, Any]:
    """Ranks, alphas and the rest of LoRA; what differs from the base is a pattern by full module path."""
    adapter, rank = planned.config.adapter, planned.rank
    alpha = _whole(alpha_of(adapter.alpha, rank or 1))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {p.site.module: p.rank for p in planned.places if p.rank != rank},
        "alpha_pattern": {p.site.module: _whole(p.alpha) for p in planned.places if p.alpha != alpha},
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.rslora,
        "use_dora": adapter.dora,
        "init_lora_weights": True if adapter.init == "default" else adapter.init,
        "eva_config": EvaConfig(rho=1.0) if adapter.init == "eva" else None,  # 1: every layer keeps its rank
    }


def _whole(value: float) -> float | int:
    """An int where the number is whole, as PEFT writes it."""
    return int(value) if float(value).is_integer() else value


def _adalora_config(planned: Plan, targets: list[str], total_steps: int | None, common: dict[str, Any]) -> Any:
    """AdaLoRA (Zhang et al. 2023): ends at two thirds of its rank; a tenth warms up, a third is the final phase."""
    adapter, rank = planned.config.adapter, planned.rank or 1
    steps = total_steps or planned.config.train.steps or 1000
    return AdaLoraConfig(
        init_r=rank,
        target_r=max(1, round(rank / 1.5)),
        total_step=steps,
        tinit=steps // 10,
        tfinal=steps // 3,
        lora_alpha=_whole(alpha_of(adapter.alpha, rank)),
        lora_dropout=adapter.dropout,
        target_modules=targets,
        bias=adapter.bias,
        **common,
    )


def _prompt_config(planned: Plan, common: dict[str, Any]) -> Any:
    dims, tokens = planned.encoder.dims, planned.config.adapter.virtual_tokens
    kind = PromptTuningConfig if planned.config.adapter.method == "prompt" else PrefixTuningConfig
    return kind(
        num_virtual_tokens=tokens,
        token_dim=dims.embedding if kind is PromptTuningConfig else dims.hidden,
        num_layers=int(planned.encoder.hf_config.get("num_hidden_layers", dims.layers)),
        num_attention_heads=dims.heads,
        **common,
    )


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
    prompt = planned.config.adapter.method in PROMPTING
    found = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if ".original_module." in key:
            continue
        if key.startswith("prompt_encoder."):
            found["prompt_embeddings"] = value
            continue
        name = key.removeprefix("base_model." if prompt or key.startswith("base_model.vera_") else "base_model.model.")
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


def _initialise_from_activations(model: Any, batches: Callable[[], Iterable[Mapping[str, Any]]] | None) -> None:
    """EVA (Paischer et al. 2024): A from the principal components of each layer's inputs, ranks left as planned."""
    if batches is None:
        raise RuntimeError("adapter.init: eva needs batches to take the activations of")
    with quiet():
        model.eval()
        initialize_lora_eva_weights(model, [dict(batch) for batch in batches()], show_progress_bar=False)
        model.train()
