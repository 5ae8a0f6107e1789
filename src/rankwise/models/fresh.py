"""The way in: a configuration put together.

What the fast engine computes is read and drawn here, without transformers and peft. They make what they alone can: bases
of random weights, the forms of adapters that the engine does not know, and starts that decompose weights or activations.
A test holds what is drawn here to what they draw, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rankwise.config import Config
from rankwise.encoders import Encoder
from rankwise.engine.weights import SavedWeights
from rankwise.errors import UserError
from rankwise.machine.seeds import own_generators
from rankwise.methods import Entry, method_of
from rankwise.methods.lora import pair
from rankwise.models import sources
from rankwise.models.assembly import Assembly, Batches
from rankwise.planning import Plan, plan, require_fit
from rankwise.planning.ledger import head_kind


def assembled(
    config: Config,
    num_labels: int,
    label_names: Sequence[str],
    *,
    total_steps: int | None = None,
    batches: Batches | None = None,
) -> Assembly:
    """A configuration put together, seeded with `train.seed` before anything random is made.

    total_steps
        optimizer steps of the run; AdaLoRA allocates its ranks over them.

    Raises:
        BudgetError: more would train than the budget allows.
        UserError: the model's files are not usable.
    """
    planned = plan(config, num_labels)
    require_fit(planned)
    if planned.engine == "fast":
        made = _own(planned, label_names)
        if made is not None:
            return made
    from rankwise.models import assemble

    model = assemble.build(config, num_labels, label_names, total_steps=total_steps, batches=batches)
    made = model.assembly
    assert isinstance(made, Assembly)
    return made


def _own(planned: Plan, label_names: Sequence[str]) -> Assembly | None:
    """Read and drawn here; None where PEFT must draw the adapter."""
    config, encoder = planned.config, planned.encoder
    with own_generators(config.train.seed):
        base, base_name = _base(config, encoder, label_names)
        weights = SavedWeights(dict(base), {}, lambda module, rank: 1.0, encoder.family.prefix)
        drawn = method_of(config).draw(config, planned.places, lambda module: weights.tensor(f"{module}.weight"))
        if drawn is None:
            return None
        if head_kind(config) == "low_rank":
            dense = encoder.family.dense
            A, B = pair(encoder.hidden, encoder.hidden, config.head.rank)
            drawn |= {f"{dense}.lora_A.weight": A, f"{dense}.lora_B.weight": B}

    def start(entry: Entry) -> Tensor:
        value: Tensor | None = drawn.get(entry.name)
        if value is None:
            value = weights.tensor(entry.name.replace(".base_layer.", ".")).clone()
        if tuple(value.shape) != entry.shape:
            raise RuntimeError(f"the plan has {entry.name} of shape {entry.shape}, got {tuple(value.shape)}")
        return value

    trained = sorted((entry for entry in planned.entries if entry.group), key=lambda entry: entry.name)
    kept = sorted((entry for entry in planned.entries if entry.saved and not entry.group), key=lambda entry: entry.name)
    return Assembly(
        plan=planned,
        label_names=tuple(label_names),
        trainable={entry.name: nn.Parameter(start(entry)) for entry in trained},
        frozen={entry.name: start(entry) for entry in kept},
        initial={},
        base_name=base_name,
        base=base,
    )


def _base(config: Config, encoder: Encoder, label_names: Sequence[str]) -> tuple[dict[str, Tensor], str | None]:
    """The base's tensors with a whole head, and its name for the saved adapter, where it has one.

    Raises: UserError when the files are not usable, or the weights are not those of the config.json.
    """
    if config.model.random_weights:  # drawn module by module, as transformers alone knows how
        from rankwise.models.base import base_model

        model = base_model(config.model, encoder, label_names, config.data.multi_label)
        return dict(model.state_dict()), None
    folder = sources.locate(config.model)
    tensors = sources.tensors_of(folder)
    _check_shapes(tensors, encoder, folder)
    tensors |= _new_head(tensors, encoder, len(label_names))
    return tensors, sources.name_of(config.model, folder)


def _of(tensors: Mapping[str, Tensor], name: str, encoder: Encoder) -> Tensor | None:
    """A tensor of a classification model's name, which files of the encoder alone have without its prefix."""
    short = name.removeprefix(f"{encoder.family.prefix}.")
    return next((tensors[one] for one in (name, short) if one in tensors), None)


def _check_shapes(tensors: Mapping[str, Tensor], encoder: Encoder, folder: Path) -> None:
    """Refuse weights that leave any of the encoder random: only the head may be new."""
    head = set(encoder.family.head_modules)
    for tensor in sorted(encoder.tensors(2), key=lambda tensor: tensor.name):
        held = _of(tensors, tensor.name, encoder)
        if not head & set(tensor.name.split(".")[:-1]) and (held is None or tuple(held.shape) != tensor.shape):
            raise UserError(
                f"model.name: the weights in {folder} lack '{tensor.name}' in the shape its config.json gives: "
                "the folder's files do not belong together"
            )


def _new_head(tensors: Mapping[str, Tensor], encoder: Encoder, classes: int) -> dict[str, Tensor]:
    """What the files lack of the head, drawn as transformers draws it: in the precision of the files.

    A pooled head is drawn behind the model's own, which gives way to it.
    """
    family, plain = encoder.family, encoder.pooled("first")
    missing = {
        tensor.name: torch.empty(tensor.shape, dtype=_precision(tensors, encoder))
        for module in plain.head_modules
        for tensor in plain.head_tensors(module, classes)
        if (held := _of(tensors, tensor.name, encoder)) is None or tuple(held.shape) != tensor.shape
    }
    family.draw_head(missing, encoder.hf_config)
    if encoder.pooling == "first":
        return {name: value.float() for name, value in missing.items()}
    pooled = {
        tensor.name: torch.empty(tensor.shape) for tensor in encoder.head_tensors(family.head_modules[-1], classes)
    }
    for name, value in pooled.items():
        family.draw(name, value, encoder.hf_config)
    return pooled


def _precision(tensors: Mapping[str, Tensor], encoder: Encoder) -> torch.dtype:
    """What transformers loads a model in: as its configuration says, or as its first tensor is."""
    named = encoder.hf_config.get("dtype") or encoder.hf_config.get("torch_dtype")
    if named:
        precision = getattr(torch, str(named).removeprefix("torch."), None)
        if isinstance(precision, torch.dtype):
            return precision
    return next((value.dtype for value in tensors.values() if value.is_floating_point()), torch.float32)
