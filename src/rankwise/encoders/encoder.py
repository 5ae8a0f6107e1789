"""An encoder as the planner sees it: numbers, sites and tensors, read from a name or a `config.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.config.tree import SCOPE_WORDS, Model
from rankwise.encoders.families import FAMILIES
from rankwise.encoders.family import Dims, Family, Tensor
from rankwise.encoders.known import KNOWN, PACKAGED, POOLING, full_name
from rankwise.errors import UserError, nearest

POOLING_FILE = "1_Pooling/config.json"
"""what sentence-transformers saves of how a base is read"""


@dataclass(frozen=True)
class Site:
    """A linear layer that can carry an adapter."""

    module: str
    words: tuple[str, ...]
    """scope words that name it; a fused layer has several"""
    layer: int
    d_in: int
    d_out: int
    bias: bool

    @property
    def word(self) -> str:
        """The scope words in one, joined by `+`."""
        return "+".join(self.words)


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder with the classification head its model class puts on it."""

    name: str
    model_type: str
    dims: Dims
    hf_config: Mapping[str, Any]
    dense_is_new: bool
    """whether the head's dense module is created at random: absent from the weights, so it must be saved"""
    pooling: str = "first"
    """first: the model class's own head; mean, both: a projection of pooled tokens in its place, without a dense layer"""

    @property
    def family(self) -> Family:
        """Names and shapes of the encoder's kind."""
        return FAMILIES[self.model_type]

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        return self.dims.hidden

    @property
    def positions(self) -> int:
        """Tokens of the longest text the encoder takes, special tokens included."""
        padding = self.family.position_padding(self.hf_config)
        return self.dims.positions - (0 if padding is None else 1 + padding)

    @property
    def layers(self) -> int:
        """Layers with weights of their own (ALBERT's layers share theirs)."""
        return self.dims.layers

    @property
    def depth(self) -> int:
        """Layers that a text goes through, however many share their weights."""
        return int(self.hf_config.get("num_hidden_layers", self.dims.layers))

    def pooled(self, pooling: str) -> Encoder:
        """The same encoder under the head of a resolved `head.pooling`."""
        return replace(self, pooling=pooling)

    @property
    def head_modules(self) -> tuple[str, ...]:
        """Modules the classification model adds to the encoder, the projection's last."""
        modules = self.family.head_modules
        return modules if self.pooling == "first" else modules[-1:]

    def tensors(self, num_labels: int) -> tuple[Tensor, ...]:
        """Every parameter of the classification model."""
        if num_labels not in self._lists:
            own = self.family.tensors(self.dims, self.hf_config, num_labels)
            self._lists[num_labels] = tuple(own if self.pooling == "first" else self._with_pooled_head(own, num_labels))
        return self._lists[num_labels]

    def _with_pooled_head(self, tensors: Iterable[Tensor], num_labels: int) -> Iterator[Tensor]:
        """The head's modules give way to one projection, a kernel over single tokens. Shape: (labels, width, 1)

        Of three dimensions, so that plain `transformers` and `peft` refuse it instead of applying it to first tokens.
        """
        projection = self.family.projection
        for tensor in tensors:
            if tensor.name == f"{projection}.weight":
                yield Tensor(tensor.name, (num_labels, self.pooled_width, 1))
            elif tensor.name == f"{projection}.bias" or not self._is_of_head(tensor.name):
                yield tensor

    def _is_of_head(self, name: str) -> bool:
        return bool(set(self.family.head_modules) & set(name.split(".")[:-1]))

    @property
    def pooled_width(self) -> int:
        """What a pooled head's projection reads of a text."""
        return self.hidden * (2 if self.pooling == "both" else 1)

    @cached_property
    def _lists(self) -> dict[int, tuple[Tensor, ...]]:
        return {}

    @cached_property
    def has_biases(self) -> bool:
        """Whether the layers have biases that could train."""
        return any(site.bias for site in self.sites)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every linear layer of the encoder that can carry an adapter, layer by layer."""
        shapes = {tensor.name: tensor.shape for tensor in self.tensors(2)}
        words: dict[str, list[str]] = {}
        for word in SCOPE_WORDS:
            words.setdefault(self.family.sites[word], []).append(word)
        found = []
        for layer in range(self.layers):
            for path, named in words.items():
                module = f"{self.family.layer.format(layer)}.{path}"
                d_out, d_in = shapes[f"{module}.weight"]
                found.append(Site(module, tuple(named), layer, d_in, d_out, f"{module}.bias" in shapes))
        return tuple(found)

    def head_tensors(self, module: str, num_labels: int) -> list[Tensor]:
        """The tensors of one of the head's modules (`classifier`, `pooler`, ...)."""
        return [t for t in self.tensors(num_labels) if module in t.name.split(".")[:-1]]


def encoder_of(model: Model) -> Encoder:
    """The encoder a configuration names: known by name, a folder, or in the local Hub cache; no network.

    Raises: UserError: the shape is not known here, or its kind is not supported.
    """
    folder = Path(model.name)
    known = full_name(model.name)
    if known is not None and not folder.is_dir():
        return encoder_from(model.name, KNOWN[known])
    if not folder.is_dir():
        if model.name.startswith("packaged:"):
            known_names = ", ".join(PACKAGED)
            raise UserError(f"model.name: '{model.name}' is no package known here, expected one of {known_names}")
        cached = cached_snapshot(model.name, model.revision)
        if cached is None:
            names = [*KNOWN, *(name.rpartition("/")[2] for name in KNOWN)]
            raise UserError(
                f"model.name: the shape of '{model.name}' is not known here{nearest(model.name, names)}; "
                "give a folder with a config.json, or download it once, so that the local Hub cache holds it"
            )
        folder = cached
    return encoder_from(model.name, read_config(folder), folder)


def declared_pooling(model: Model) -> str:
    """What a base was trained to be read by: mean or first, by its own `1_Pooling/config.json`; first without one."""
    known = full_name(model.name)
    folder = Path(model.name)
    if not folder.is_dir():
        if known in POOLING:
            return POOLING[known]
        cached = cached_snapshot(known or model.name, model.revision)
        if cached is None:
            return "first"
        folder = cached
    path = folder / POOLING_FILE
    if not path.is_file():
        return "first"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return "mean" if content.get("pooling_mode_mean_tokens") or content.get("pooling_mode") == "mean" else "first"
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"head.pooling: {path} cannot be read as JSON: {error}; write first or mean") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises: UserError when there is none, or it cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"model.name: {folder} holds no config.json, expected a folder saved by transformers")
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"model.name: {path} holds a {type(config).__name__}, expected an object with a model_type")
    return config


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The snapshot folder of a model in the local Hub cache, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    place = os.environ.get("HF_HUB_CACHE")  # the library asks once, when it is imported
    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=place, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def encoder_from(name: str, config: Mapping[str, Any], folder: Path | None = None) -> Encoder:
    """The encoder of a `config.json`; the folder, if any, tells which head modules its weights hold.

    Raises: UserError when its kind is not supported.
    """
    model_type = str(config.get("model_type", ""))
    if model_type not in FAMILIES:
        raise UserError(
            f"model.name: '{name}' has model_type '{model_type}', expected one of {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[model_type]
    family.check_shape(name, config)
    is_new = not family.dense_in_checkpoint
    if folder is not None and not is_new:
        held = checkpoint_modules(folder)
        dense = family.dense.removeprefix(f"{family.prefix}.")  # which checkpoints of the bare encoder leave out
        is_new = bool(held) and not any(key.endswith(dense) for key in held)
    return Encoder(name, model_type, family.dims(config), config, is_new)


def checkpoint_modules(folder: Path) -> set[str]:
    """Names of the modules in a folder's safetensors files, from their headers; empty if unreadable."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, 100_000_000)))
        except (OSError, ValueError):
            return set()  # `models` tells what is wrong with the file; counting goes by the published weights
        names |= {key.rpartition(".")[0] for key in header if key != "__metadata__"}
    return names
