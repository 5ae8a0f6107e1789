"""The ledger: every tensor that trains or is saved under a configuration; all counts are its sums."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rankwise.config import SCOPE_WORDS, Adapter, Config
from rankwise.config.methods import MUTATING, SCALED, SITED
from rankwise.errors import UserError
from rankwise.planning.encoder import Encoder
from rankwise.planning.families import Tensor
from rankwise.planning.places import Place, places_of, sites_of

Group = Literal["adapter", "dora", "bias", "head", "encoder"]
# What a low-rank head's update is multiplied by, whatever the adapter's alpha: what alpha is by default, over its rank.
LOW_RANK_HEAD_SCALE = 2


@dataclass(frozen=True)
class Entry:
    """A tensor of the plan: trained as part of a group (None: frozen), saved in the adapter file or not.

    The name is the file's key below PEFT's prefix.
    """

    name: str
    shape: tuple[int, ...]
    group: Group | None
    saved: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return Tensor(self.name, self.shape).size


def check_method(config: Config, encoder: Encoder) -> None:
    """Refuse adapter options that cannot apply to the method or the encoder, naming both keys."""
    adapter, method = config.adapter, config.adapter.method
    allowed = {
        "lora": ("none", "lora_only", "all"),
        "adalora": ("none", "lora_only", "all"),
        "bitfit": ("none", "all"),
    }
    if adapter.bias not in allowed.get(method, ("none",)):
        raise UserError(f"adapter.bias: {adapter.bias} cannot apply to adapter.method: {method}")
    if method not in SITED and adapter.layers is not None:
        raise UserError(f"adapter.layers cannot apply to adapter.method: {method}, which has no sites")
    if method == "prefix" and not encoder.family.prefixable:
        raise UserError(
            f"adapter.method: prefix cannot apply to model.name: {encoder.name}, whose attention takes no "
            "keys and values from outside; adapter.method: prompt can"
        )
    if adapter.init == "eva" and adapter.rank_pattern:
        raise UserError("adapter.rank_pattern cannot apply with adapter.init: eva, whose layers share directions")
    relative = encoder.model_type == "deberta-v2" and {"query", "key"} & set(_words(adapter))
    if adapter.init == "eva" and relative:
        raise UserError(
            f"adapter.init: eva cannot apply to query and key of model.name: {encoder.name}, "
            "which project relative positions beside the text"
        )
    if not encoder.has_biases and (method == "bitfit" or adapter.bias != "none"):
        key = "adapter.method: bitfit" if method == "bitfit" else f"adapter.bias: {adapter.bias}"
        raise UserError(f"{key} cannot apply to model.name: {encoder.name}, whose layers have no biases")


def _words(adapter: Adapter) -> tuple[str, ...]:
    return SCOPE_WORDS if adapter.scope == "all" else tuple(adapter.scope)


def saved_modules(encoder: Encoder, dense: bool) -> tuple[str, ...]:
    """The head's modules that are saved whole: the projection's, and the dense module's on demand."""
    modules = encoder.family.head_modules
    return modules if dense else modules[-1:]


def head_kind(config: Config) -> str:
    """The head's kind; a linear probe is the projection alone, full fine-tuning trains the head whole."""
    return {"probe": "output", "full": "full"}.get(config.adapter.method, config.head.kind)


def wrapped_modules(config: Config, encoder: Encoder) -> tuple[str, ...]:
    """The head modules PEFT wraps and saves (`modules_to_save`)."""
    return saved_modules(encoder, dense=encoder.dense_is_new or head_kind(config) == "low_rank")


def ledger(config: Config, encoder: Encoder, num_labels: int, rank: int) -> list[Entry]:
    """Every tensor that trains or is saved, at a base rank."""
    check_method(config, encoder)
    entries = list(_head(config, encoder, num_labels))
    taken = {entry.name for entry in entries if entry.saved}
    entries += _adapter(config.adapter, encoder, rank)
    entries += _rest(config, encoder, num_labels, taken)
    if config.adapter.bias == "all" or config.adapter.method == "bitfit":
        entries = [
            replace(e, group="bias") if e.saved and e.group is None and e.name.endswith(".bias") else e for e in entries
        ]
    return entries


def _head(config: Config, encoder: Encoder, num_labels: int) -> Iterator[Entry]:
    """The head by kind. Whatever of it was created at random is saved, trained or not."""
    kind, family = head_kind(config), encoder.family
    for module in wrapped_modules(config, encoder):
        for tensor in encoder.head_tensors(module, num_labels):
            trains = kind == "full" or tensor.name.rpartition(".")[0] == family.projection
            yield Entry(tensor.name, tensor.shape, "head" if trains else None)
    if kind == "low_rank":
        # Trained beside the dense layer and merged into it when saved: the file holds the dense layer anyway.
        yield Entry(f"{family.dense}.lora_A.weight", (config.head.rank, encoder.hidden), "head", saved=False)
        yield Entry(f"{family.dense}.lora_B.weight", (encoder.hidden, config.head.rank), "head", saved=False)


def _adapter(adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
    method, dims = adapter.method, encoder.dims
    if method == "lora":
        for place in places_of(adapter, encoder, rank):
            yield from _lora(adapter, place)
    elif method == "adalora":
        for place in places_of(adapter, encoder, rank):
            site = place.site
            yield Entry(f"{site.module}.lora_A", (place.rank, site.d_in), "adapter")
            yield Entry(f"{site.module}.lora_B", (site.d_out, place.rank), "adapter")
            yield Entry(f"{site.module}.lora_E", (place.rank, 1), "adapter")
    elif method == "vera":
        yield from _vera(adapter, encoder, rank)
    elif method == "ia3":
        for site in sites_of(adapter, encoder):
            feedforward = "ffn_out" in site.words  # scaled at its input, the others at their output (Liu et al. 2022)
            shape = (1, site.d_in) if feedforward else (site.d_out, 1)
            yield Entry(f"{site.module}.ia3_l", shape, "adapter")
    elif method == "prompt":
        yield Entry("prompt_embeddings", (adapter.virtual_tokens, dims.embedding), "adapter")
    elif method == "prefix":
        depth = int(encoder.hf_config.get("num_hidden_layers", dims.layers))
        yield Entry("prompt_embeddings", (adapter.virtual_tokens, 2 * depth * dims.hidden), "adapter")


def _lora(adapter: Adapter, place: Place) -> Iterator[Entry]:
    site, rank = place.site, place.rank
    mutating = adapter.init in MUTATING
    for factor in (1, 2) if mutating else (1,):
        saved = factor == 2 or not mutating
        group: Group | None = "adapter" if factor == 1 else None
        yield Entry(f"{site.module}.lora_A.weight", (factor * rank, site.d_in), group, saved)
        yield Entry(f"{site.module}.lora_B.weight", (site.d_out, factor * rank), group, saved)
    if adapter.dora:
        yield Entry(f"{site.module}.lora_magnitude_vector", (site.d_out,), "dora")
    if adapter.bias == "lora_only" and site.bias:
        yield Entry(f"{site.module}.base_layer.bias", (site.d_out,), "bias")


def _vera(adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
    """VeRA (Kopiczko et al. 2024): one frozen random pair for all sites, two trained vectors a site."""
    sites = sites_of(adapter, encoder)
    yield Entry("vera_A", (rank, max(site.d_in for site in sites)), None)
    yield Entry("vera_B", (max(site.d_out for site in sites), rank), None)
    for site in sites:
        yield Entry(f"{site.module}.vera_lambda_b", (site.d_out,), "adapter")
        yield Entry(f"{site.module}.vera_lambda_d", (rank,), "adapter")


def _rest(config: Config, encoder: Encoder, num_labels: int, taken: set[str]) -> Iterator[Entry]:
    """What else is in the file: the model's biases where they train, all of it under full fine-tuning."""
    adapter = config.adapter
    biases = adapter.bias == "all" or adapter.method == "bitfit"
    if adapter.method == "adalora" and adapter.bias == "lora_only":
        for site in sites_of(adapter, encoder):
            if site.bias:
                yield Entry(f"{site.module}.base_layer.bias", (site.d_out,), "bias")
    if not (biases or adapter.method == "full"):
        return
    adapted = {site.module for site in sites_of(adapter, encoder)} if adapter.method in SCALED else set()
    for tensor in encoder.tensors(num_labels):
        module, _, leaf = tensor.name.rpartition(".")
        if tensor.name in taken or (adapter.method != "full" and leaf != "bias"):
            continue
        name = f"{module}.base_layer.{leaf}" if module in adapted else tensor.name
        yield Entry(name, tensor.shape, "encoder" if adapter.method == "full" else "bias")


def file_bytes(entries: Iterable[Entry], prompt: bool) -> int:
    """Size in bytes of the adapter's safetensors file: length word, JSON header, four bytes an element.

    The format (huggingface/safetensors): an 8-byte length, a compact JSON header padded to 8 bytes, the data
    in the order of the names.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, entry in sorted((file_key(entry, prompt), entry) for entry in entries if entry.saved):
        start, end = end, end + 4 * entry.size
        header[key] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + -length % 8 + end


def file_key(entry: Entry, prompt: bool) -> str:
    """The entry's key in the adapter file, in PEFT's spelling; `prompt`: the method is prompt or prefix."""
    if entry.name == "prompt_embeddings":
        return entry.name
    if prompt or entry.name in ("vera_A", "vera_B"):
        return f"base_model.{entry.name}"
    return f"base_model.model.{entry.name}"
