"""Whether an adapter's file, its configuration and its base belong together: every tensor has its place, and nothing that
the classifier needs would be made at random. PEFT itself says nothing, or warns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.files import weight_files
from rankwise.inference import matching
from rankwise.inference.adapter import PROMPT, AdapterFiles, Shape
from rankwise.models.layout import CONFIG


def shapes_of(base: Path) -> dict[str, Shape]:
    """The tensors in a base's folder by name."""
    found: dict[str, Shape] = {}
    for path in weight_files(base):
        with safe_open(path, "numpy") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
    return found


def count_classes(adapter: AdapterFiles, encoder: Encoder, base: Mapping[str, Shape]) -> int:
    """The classes of the adapter's head, or of its base's where the file holds none.

    Raises: UserError when neither has one, or it is no classifier's.
    """
    name = f"{encoder.family.projection}.weight"
    shape = adapter.shapes.get(name) or adapter.shapes.get(_wrapped(name)) or base.get(name)
    if shape is None:
        raise UserError(
            f"{adapter.path} holds no '{encoder.family.projection}': its head was not saved, so it cannot classify"
        )
    if shape[0] == 1:
        raise UserError(f"{adapter.path} gives one number a text, as a regression does, so it has no classes")
    return shape[0]


def check_fit(adapter: AdapterFiles, encoder: Encoder, classes: int, base: Mapping[str, Shape] | None) -> None:
    """Refuse an adapter that does not fit its base or its own configuration.

    base
        The base's tensors; None where it is made anew, whole.

    Raises: UserError naming the first tensor that is astray or absent.
    """
    tensors = {tensor.name: tensor.shape for tensor in encoder.tensors(classes)}
    _check_places(adapter, encoder, tensors)
    _check_saved_whole(adapter, tensors)
    if adapter.kind == "LORA" and not adapter.config.get("layer_replication"):
        _check_lora(adapter, tensors)
    if base is not None:
        _check_head(adapter, encoder, classes, base)


def embedding_rows(adapter: AdapterFiles, encoder: Encoder) -> int:
    """Rows of the word embedding: the file's, where the tokenizer had grown, else the base's."""
    name = _embedding_of(encoder)
    shape = adapter.shapes.get(name) or adapter.shapes.get(_wrapped(name))
    return shape[0] if shape else encoder.dims.vocabulary


def _embedding_of(encoder: Encoder) -> str:
    return encoder.tensors(2)[0].name  # every family's list begins with it


def _wrapped(name: str) -> str:
    """The name of a tensor of a module that also carries an adapter."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.base_layer.{leaf}"


def _check_places(adapter: AdapterFiles, encoder: Encoder, tensors: Mapping[str, Shape]) -> None:
    """Every tensor is one of the model's, in its shape, or changes one of its modules."""
    modules = {name.rpartition(".")[0] for name in tensors}
    for name, shape in adapter.shapes.items():
        plain = name.replace(".base_layer.", ".")
        if plain in tensors:
            rows_may_differ = plain == _embedding_of(encoder) and shape[1:] == tensors[plain][1:]
            if shape != tensors[plain] and not rows_may_differ:
                raise _other_base(adapter, encoder, name, f"of shape {shape}, the base's is {tensors[plain]}")
        elif not (name == PROMPT or adapter.is_shared(name) or _changes(adapter, name, modules)):
            raise _other_base(adapter, encoder, name, "which matches nothing there")


def _other_base(adapter: AdapterFiles, encoder: Encoder, name: str, reason: str) -> UserError:
    return UserError(
        f"{adapter.path} does not fit its base {encoder.name} ({encoder.model_type}, {encoder.layers} layers): "
        f"it holds '{adapter.keys[name]}', {reason}; it was trained on another base, or in another model"
    )


def _changes(adapter: AdapterFiles, name: str, modules: set[str]) -> bool:
    """Whether a tensor changes one of the modules: known kinds by name, others by the module they stand in; whether peft
    finds a place for these, its own report says."""
    if name in adapter.updates:
        return adapter.updates[name] in modules
    return any(name.startswith(f"{module}.") for module in modules)


def _check_saved_whole(adapter: AdapterFiles, tensors: Mapping[str, Shape]) -> None:
    for name in tensors:
        if matching.is_saved_whole(adapter.config, name.rpartition(".")[0]) and name not in adapter.shapes:
            raise _lacks(adapter, name)


def _lacks(adapter: AdapterFiles, name: str) -> UserError:
    return UserError(f"{adapter.path} lacks '{name}', which its {CONFIG} says it holds")


def _check_lora(adapter: AdapterFiles, tensors: Mapping[str, Shape]) -> None:
    """LoRA's tensors are those that the configuration promises, in its ranks."""
    adapted = set(adapter.updates.values())
    for name, shape in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf != "weight" or len(shape) != 2 or re.search(r"embeddings$|attention_bias$", module):
            continue
        promised = matching.is_target(adapter.config, module)
        if promised and module not in adapted:
            raise _lacks(adapter, f"{module}.lora_A.weight")
        if module not in adapted:
            continue
        if promised is False:
            raise UserError(f"{adapter.path} adapts '{module}', which its {CONFIG} does not name in target_modules")
        _check_ranks(adapter, module, shape)


def _check_ranks(adapter: AdapterFiles, module: str, weight: Shape) -> None:
    """A (rank, d_in) and B (d_out, rank), and a magnitude where it is DoRA."""
    d_out, d_in = weight
    rank = matching.rank_of(adapter.config, module)
    shapes = {f"{module}.lora_A.weight": (rank, d_in), f"{module}.lora_B.weight": (d_out, rank)}
    for name, expected in shapes.items():
        shape = adapter.shapes.get(name)
        if shape is None:
            raise _lacks(adapter, name)
        if shape != expected:
            raise UserError(
                f"{adapter.path} holds '{name}' of shape {shape}, its {CONFIG} and base ask for {expected}: "
                "they do not belong together"
            )
    magnitude = f"{module}.lora_magnitude_vector"
    if bool(adapter.config.get("use_dora")) != (magnitude in adapter.shapes):
        if magnitude not in adapter.shapes:
            raise _lacks(adapter, magnitude)
        raise UserError(f"{adapter.path} holds '{magnitude}', but its {CONFIG} does not say use_dora: true")


def _check_head(adapter: AdapterFiles, encoder: Encoder, classes: int, base: Mapping[str, Shape]) -> None:
    """What neither the file nor the base holds would be made at random."""
    prefix = f"{encoder.family.prefix}."
    for module in encoder.head_modules:
        for tensor in encoder.head_tensors(module, classes):
            inside = tensor.name in adapter.shapes or _wrapped(tensor.name) in adapter.shapes
            below = base.get(tensor.name) or base.get(tensor.name.removeprefix(prefix))
            if not inside and below != tensor.shape:
                raise UserError(
                    f"neither {adapter.path} nor its base {encoder.name} holds '{tensor.name}': "
                    "part of its head was not saved, so it cannot classify"
                )
