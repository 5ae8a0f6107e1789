"""Where an encoder's tensors come from: a live PEFT model, or what the files of a base and an adapter hold.

Both give the same plain structures. No peft is imported: its wrappers are known by what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from rankwise.encoders import Family
from rankwise.errors import UserError


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
    path: str = ""
    """its name in the Hugging Face model"""

    @property
    def has_dora(self) -> bool:
        """Whether the adapter has a magnitude."""
        return self.adapter is not None and self.adapter.magnitude is not None


@dataclass(frozen=True)
class NormWeights:
    """A LayerNorm's weight and bias, if it has one. Shape: (width,)"""

    weight: Tensor
    bias: Tensor | None
    path: str
    """its name in the Hugging Face model"""


@dataclass(frozen=True)
class LayerWeights:
    """One encoder layer; `sites` by scope word."""

    sites: Mapping[str, Dense]
    attention_norm: NormWeights | None
    ffn_norm: NormWeights


class Source(Protocol):
    """Tensors by the paths of the Hugging Face model."""

    def dense(self, path: str) -> Dense:
        """A linear layer with its adapter."""

    def tensor(self, name: str) -> Tensor:
        """A parameter."""

    def optional(self, name: str) -> Tensor | None:
        """A parameter, if there is one of that name."""

    def release(self, path: str) -> None:
        """Give up the frozen weight of a linear layer that has been copied."""


def norm_of(source: Source, path: str) -> NormWeights:
    """The LayerNorm at a path."""
    return NormWeights(source.tensor(f"{path}.weight"), source.optional(f"{path}.bias"), path)


def layer_of(source: Source, family: Family, index: int) -> LayerWeights:
    """The weights of one encoder layer."""
    path = family.layer.format(index)
    attention_norm = f"{path}.{family.attention_norm}"
    return LayerWeights(
        sites={word: source.dense(f"{path}.{site}") for word, site in family.sites.items()},
        attention_norm=None if source.optional(f"{attention_norm}.weight") is None else norm_of(source, attention_norm),
        ffn_norm=norm_of(source, f"{path}.{family.ffn_norm}"),
    )


def check_all_train(trained: Mapping[str, Tensor], classifier: nn.Module) -> None:
    """Raises: UserError when something is to train that a classifier does not hold."""
    shared = {id(value) for value in classifier.parameters()}
    for name, value in trained.items():
        if id(value) not in shared:
            raise UserError(f"the fast engine cannot train {name}: use engine: reference")


# --- a live model -------------------------------------------------------------------------------------


class LiveModel:
    """A `transformers` classification model, bare or inside PEFT.

    Parameters that train are handed out as they are; frozen weights are handed out by reference and released.
    """

    def __init__(self, model: nn.Module) -> None:
        base = getattr(model, "base_model", None)
        inner = getattr(base, "model", None) if hasattr(model, "peft_config") else None
        self.model = inner if isinstance(inner, nn.Module) else model
        self.trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        """its parameters that train, by name"""

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
        return Dense(base.weight, base.bias, adapter, path)

    def tensor(self, name: str) -> Tensor:
        """A parameter."""
        path, _, leaf = name.rpartition(".")
        value: Tensor = getattr(self._module(path), leaf)
        return value

    def optional(self, name: str) -> Tensor | None:
        """A parameter, if there is one of that name."""
        path, _, leaf = name.rpartition(".")
        try:
            value: Tensor | None = getattr(self._module(path), leaf)
        except AttributeError:
            return None
        return value

    def release(self, path: str) -> None:
        """Free the frozen weight inside the model; its trained parameters stay, so PEFT can save them."""
        module = self._module(path)
        weight = getattr(module, "base_layer", module).weight
        if not weight.requires_grad:
            weight.data = weight.data.new_empty(0)

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


# --- saved tensors ------------------------------------------------------------------------------------


class SavedWeights:
    """A base's tensors and an adapter's by name: of files, or as they begin to train.

    The adapter stays beside the weights, as it was trained. Parameters are handed out as they are.
    """

    def __init__(
        self,
        base: Mapping[str, Tensor],
        adapter: Mapping[str, Tensor],
        scale: Callable[[str, int], float],
        prefix: str,
        *,
        dropout: Callable[[str], float] = lambda module: 0.0,
    ) -> None:
        """
        base
            By the names of the classification model, or of the encoder alone.
        adapter
            By the names of the classification model, LoRA's behind the module they are on.
        scale
            Of LoRA's update: of (module, rank).
        prefix
            Of the encoder's names in the classification model.
        dropout
            Rate before LoRA's update, of a module.
        """
        self._base = {_modern(name): value for name, value in base.items()}
        self._adapter, self._scale, self._prefix, self._dropout = adapter, scale, f"{prefix}.", dropout

    def tensor(self, name: str) -> Tensor:
        """A tensor, the adapter's before the base's, in fp32.

        Bases are often saved without the classification model's prefix, and adapters wrap a layer's own tensors.
        """
        value = self.optional(name)
        if value is None:
            raise UserError(f"neither the base nor the adapter holds '{name}'")
        return value

    def optional(self, name: str) -> Tensor | None:
        """A tensor as `tensor` finds it, if there is one of that name."""
        path, _, leaf = name.rpartition(".")
        for candidate in (name, f"{path}.base_layer.{leaf}"):
            if candidate in self._adapter:
                return self._adapter[candidate].float()
        for candidate in (name, name.removeprefix(self._prefix)):
            if candidate in self._base:
                return self._base[candidate].float()
        return None

    def dense(self, path: str) -> Dense:
        """A linear layer with its adapter."""
        return Dense(self.tensor(f"{path}.weight"), self.optional(f"{path}.bias"), self._adapter_of(path), path)

    def scaling(self, path: str) -> Tensor | None:
        """What IA3 multiplies a linear layer's output with, shape (d_out, 1), or its input, (1, d_in), if it does."""
        value = self._adapter.get(f"{path}.ia3_l")
        return None if value is None else value.float()

    def release(self, path: str) -> None:
        """Forget a weight that has been copied."""
        name = f"{path}.weight"
        self._base.pop(name, None)
        self._base.pop(name.removeprefix(self._prefix), None)

    def _adapter_of(self, path: str) -> Adapter | None:
        A, B = (self._adapter.get(f"{path}.lora_{side}.weight") for side in "AB")
        if A is None or B is None:
            return None
        magnitude = self._adapter.get(f"{path}.lora_magnitude_vector")
        return Adapter(A, B, magnitude, self._scale(path, len(A)), self._dropout(path))


def _modern(name: str) -> str:
    """Old checkpoints say gamma and beta for a norm's weight and bias."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
