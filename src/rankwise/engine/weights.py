"""Where an encoder's tensors come from: a live PEFT model, or the files of a base and an adapter.

Both give the same plain structures. No peft is imported: its wrappers are known by what they hold.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rankwise.encoders import FAMILIES, Family
from rankwise.errors import UserError
from rankwise.files import weight_files

_ADAPTER = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""what PEFT puts before the names of the model it wraps"""


@dataclass(frozen=True)
class Adapter:
    """LoRA or, with a magnitude, DoRA on one linear layer."""

    A: Tensor | None
    """Shape: (rank, d_in)"""
    B: Tensor | None
    """Shape: (d_out, rank)"""
    magnitude: Tensor | None
    """Shape: (d_out,)"""
    scale: float
    dropout: float

    @staticmethod
    def absent() -> Adapter:
        """No adapter."""
        return Adapter(None, None, None, 1.0, 0.0)


@dataclass(frozen=True)
class Dense:
    """A linear layer and what is on it."""

    weight: Tensor
    """Shape: (d_out, d_in)"""
    bias: Tensor | None
    """Shape: (d_out,)"""
    adapter: Adapter | None = None

    @property
    def has_dora(self) -> bool:
        """Whether the adapter has a magnitude."""
        return self.adapter is not None and self.adapter.magnitude is not None


@dataclass(frozen=True)
class NormWeights:
    """A LayerNorm's weight and bias. Shape: (width,)"""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LayerWeights:
    """One encoder layer; `sites` by scope word."""

    sites: Mapping[str, Dense]
    attention_norm: NormWeights
    ffn_norm: NormWeights


class Source(Protocol):
    """Tensors by the paths of the Hugging Face model."""

    def dense(self, path: str) -> Dense:
        """A linear layer with its adapter."""

    def has(self, path: str) -> bool:
        """Whether there is a module of that path."""

    def tensor(self, name: str) -> Tensor:
        """A parameter."""

    def release(self, path: str) -> None:
        """Give up the frozen weight of a linear layer that has been copied."""


def norm_of(source: Source, path: str) -> NormWeights:
    """The LayerNorm at a path."""
    return NormWeights(source.tensor(f"{path}.weight"), source.tensor(f"{path}.bias"))


def layer_of(source: Source, family: Family, index: int) -> LayerWeights:
    """The weights of one encoder layer."""
    path = family.layer.format(index)
    return LayerWeights(
        sites={word: source.dense(f"{path}.{site}") for word, site in family.sites.items()},
        attention_norm=norm_of(source, f"{path}.{family.attention_norm}"),
        ffn_norm=norm_of(source, f"{path}.{family.ffn_norm}"),
    )


def release_layer(source: Source, family: Family, index: int) -> None:
    """Give up the frozen weights of one encoder layer."""
    for site in family.sites.values():
        source.release(f"{family.layer.format(index)}.{site}")


# --- a live model -------------------------------------------------------------------------------------


class LiveModel:
    """A `transformers` classification model, bare or inside PEFT.

    Parameters that train are handed out as they are; frozen weights are handed out by reference and released.
    """

    def __init__(self, model: nn.Module) -> None:
        base = getattr(model, "base_model", None)
        inner = getattr(base, "model", None) if hasattr(model, "peft_config") else None
        self.model = inner if isinstance(inner, nn.Module) else model
        self._trained = {name: value for name, value in model.named_parameters() if value.requires_grad}

    @property
    def config(self) -> Mapping[str, Any]:
        """The Hugging Face configuration."""
        config: Mapping[str, Any] = self.model.config.to_dict()  # type: ignore[operator,union-attr]
        return config

    def dense(self, path: str) -> Dense:
        """A linear layer with its adapter."""
        module = self._module(path)
        base = getattr(module, "base_layer", module)
        adapter = self._adapter(module, path) if base is not module else None
        return Dense(base.weight, base.bias, adapter)

    def has(self, path: str) -> bool:
        """Whether there is a module of that path."""
        try:
            self._module(path)
        except AttributeError:
            return False
        return True

    def tensor(self, name: str) -> Tensor:
        """A parameter."""
        path, _, leaf = name.rpartition(".")
        value: Tensor = getattr(self._module(path), leaf)
        return value

    def release(self, path: str) -> None:
        """Free the frozen weight inside the model; its trained parameters stay, so PEFT can save them."""
        module = self._module(path)
        weight = getattr(module, "base_layer", module).weight
        if not weight.requires_grad:
            weight.data = weight.data.new_empty(0)

    def check_all_train(self, classifier: nn.Module) -> None:
        """Raises: UserError when something trains in the model that does not in the classifier."""
        shared = {id(value) for value in classifier.parameters()}
        for name, value in self._trained.items():
            if id(value) not in shared:
                raise UserError(f"the fast engine cannot train {name}: use engine: reference")

    def _module(self, path: str) -> Any:
        """The module at a path, going into PEFT's trained copies (`modules_to_save`)."""
        module: Any = self.model
        for part in path.split("."):
            module = _trained_copy(getattr(module, part))
        return module

    def _adapter(self, module: Any, path: str) -> Adapter:
        names = [name for name in module.active_adapters if name in module.lora_A]
        if len(names) != 1 or module.merged:
            raise UserError(f"the fast engine needs exactly one active adapter on {path}, unmerged; it has {names}")
        (name,) = names
        if module.lora_bias[name]:
            raise UserError(f"the fast engine knows no bias on lora_B ({path}): use engine: reference")
        magnitude = None
        if name in module.lora_magnitude_vector:
            magnitude = module.lora_magnitude_vector[name].weight
        return Adapter(
            A=module.lora_A[name].weight,
            B=module.lora_B[name].weight,
            magnitude=magnitude,
            scale=float(module.scaling[name]),
            dropout=float(getattr(module.lora_dropout[name], "p", 0.0)),
        )


def _trained_copy(module: Any) -> Any:
    copies = getattr(module, "modules_to_save", None)
    if not isinstance(copies, nn.ModuleDict):
        return module
    return copies[next(iter(module.active_adapters))]


# --- files --------------------------------------------------------------------------------------------


class Files:
    """A base model's folder and a PEFT adapter's, merged in fp32: for prediction alone.

    Raises: UserError when a file is missing or the adapter is not plain LoRA or DoRA.
    """

    def __init__(self, base: Path, adapter: Path) -> None:
        self.config: Mapping[str, Any] = _read_json(base / "config.json")
        self._family = FAMILIES[str(self.config["model_type"])]
        reason = unreadable(adapter, self._family)
        if reason is not None:
            raise UserError(f"{adapter} cannot be read without peft: {reason}")
        self._adapter_config = _read_json(adapter / "adapter_config.json")
        self._tensors = {_modern(name): value for name, value in _of_base(base)}
        saved = load_file(adapter / _ADAPTER)
        self._adapters = {name.removeprefix(_PREFIX): value for name, value in saved.items()}

    def has(self, path: str) -> bool:
        """Whether there is a module of that path."""
        return any(name.startswith(f"{path}.") for name in self._names())

    def tensor(self, name: str) -> Tensor:
        """A tensor, the adapter's before the base's, in fp32.

        Bases are often saved without the classification model's prefix, and adapters wrap a layer's own tensors.
        """
        path, _, leaf = name.rpartition(".")
        for candidate in (name, f"{path}.base_layer.{leaf}"):
            if candidate in self._adapters:
                return _fp32(self._adapters[candidate])
        for candidate in (name, name.removeprefix(f"{self._family.prefix}.")):
            if candidate in self._tensors:
                return _fp32(self._tensors[candidate])
        raise UserError(f"neither the base nor the adapter holds '{name}'")

    def dense(self, path: str) -> Dense:
        """A linear layer with its adapter merged into its weight."""
        weight = self.tensor(f"{path}.weight")
        if f"{path}.lora_A.weight" in self._adapters:
            weight = self._merged(path, weight)
        return Dense(weight, self.tensor(f"{path}.bias"))

    def release(self, path: str) -> None:
        """Forget a weight that has been copied."""
        name = f"{path}.weight"
        self._tensors.pop(name, None)
        self._tensors.pop(name.removeprefix(f"{self._family.prefix}."), None)

    def _names(self) -> Iterator[str]:
        yield from self._adapters
        for name in self._tensors:
            yield name
            yield f"{self._family.prefix}.{name}"

    def _merged(self, path: str, weight: Tensor) -> Tensor:
        """W + scale B A, for DoRA with its rows brought to their magnitudes. Shape: (d_out, d_in)"""
        A, B = (self._adapters[f"{path}.lora_{side}.weight"].float() for side in "AB")
        merged: Tensor = weight + self._scale(path, A.shape[0]) * (B @ A)
        magnitude = self._adapters.get(f"{path}.lora_magnitude_vector")
        if magnitude is None:
            return merged
        merged *= (magnitude.float() / merged.square().sum(1).sqrt())[:, None]
        return merged

    def _scale(self, path: str, rank: int) -> float:
        alpha = _by_pattern(self._adapter_config.get("alpha_pattern") or {}, path, self._adapter_config["lora_alpha"])
        return alpha / math.sqrt(rank) if self._adapter_config.get("use_rslora") else alpha / rank


def _of_base(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """A base's tensors, of its one file or of its shards."""
    for path in weight_files(folder):
        yield from load_file(path).items()


def unreadable(adapter: Path, family: Family) -> str | None:
    """Why `Files` cannot read the adapter in a folder, on an encoder of this family; None when it can."""
    adapter_config = _read_json(adapter / "adapter_config.json")
    if adapter_config.get("peft_type") != "LORA":
        return f"its type is {adapter_config.get('peft_type')}, not LORA"
    if adapter_config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        return f"init_lora_weights is {adapter_config['init_lora_weights']}, which changes the base when it loads"
    for key in ("fan_in_fan_out", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices"):
        if adapter_config.get(key):
            return f"{key} is set"
    with safe_open(adapter / _ADAPTER, "pt") as file:
        updates = [key.removeprefix(_PREFIX) for key in file.keys() if ".lora_" in key]  # noqa: SIM118 (not a dict)
    known = _updates_of(family)
    other = next((key for key in updates if not known.fullmatch(key)), None)
    return None if other is None else f"it adapts '{other}', which is none of the linear layers known here"


def _updates_of(family: Family) -> re.Pattern[str]:
    """The names of LoRA's and DoRA's tensors on a family's linear layers, its head's among them."""
    sites = [re.escape(f"{family.layer}.{site}").replace(re.escape("{}"), r"\d+") for site in family.sites.values()]
    layers = "|".join([*sites, re.escape(family.dense), re.escape(family.projection)])
    return re.compile(rf"({layers})\.lora_(A\.weight|B\.weight|magnitude_vector)")


def _by_pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    """PEFT's lookup: the first pattern, a regular expression, that the path ends with."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return float(value)
    return float(default)


def _modern(name: str) -> str:
    """Old checkpoints say gamma and beta for a norm's weight and bias."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _fp32(tensor: Tensor) -> Tensor:
    return tensor.float()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return content


def return_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library (glibc) would keep it: a third of a base's weights."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_freed_memory() -> None:
    """Let the allocator keep what a step frees for the next one: given back and asked for again, every page of it is
    made anew by the system, 15% of a small model's step. For glibc; elsewhere nothing happens."""
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        trim_threshold, mmap_max = -1, -4
        adjust(trim_threshold, 2**31 - 1)
        adjust(mmap_max, 0)  # no block of its own for what is large, which would go back when it is freed
