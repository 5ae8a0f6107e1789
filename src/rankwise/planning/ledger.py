"""The ledger: every tensor that trains or is saved under a configuration; all counts are its sums."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rankwise.config import Config
from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.methods import Entry, Method, method_of
from rankwise.methods.places import sites_of

# What a low-rank head's update is multiplied by, whatever the adapter's alpha: what alpha is by default, over its rank.
LOW_RANK_HEAD_SCALE = 2


def saved_modules(encoder: Encoder, dense: bool) -> tuple[str, ...]:
    """The head's modules that are saved whole: the projection's, and the dense module's on demand."""
    modules = encoder.head_modules
    return modules if dense else modules[-1:]


def head_kind(config: Config) -> str:
    """The head's kind; a linear probe is the projection alone, full fine-tuning trains the head whole."""
    return method_of(config).head or config.head.kind


def wrapped_modules(config: Config, encoder: Encoder) -> tuple[str, ...]:
    """The head modules PEFT wraps and saves (`modules_to_save`)."""
    return saved_modules(encoder, dense=encoder.dense_is_new or head_kind(config) == "low_rank")


def ledger(config: Config, encoder: Encoder, num_labels: int, rank: int) -> list[Entry]:
    """Every tensor that trains or is saved, at a base rank."""
    method, adapter = method_of(config), config.adapter
    method.check_encoder(adapter, encoder)
    if encoder.pooling != "first" and head_kind(config) == "low_rank":
        raise UserError(
            f"head.kind: low_rank cannot apply with head.pooling: {encoder.pooling}, which has no dense layer to adapt"
        )
    entries = list(_head(config, encoder, num_labels))
    taken = {entry.name for entry in entries if entry.saved}
    entries += method.entries(adapter, encoder, rank)
    entries += _rest(config, encoder, num_labels, taken)
    if method.trains_biases(adapter):
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


def _rest(config: Config, encoder: Encoder, num_labels: int, taken: set[str]) -> Iterator[Entry]:
    """What of the model itself is in the file: its biases where they train, all of it under full fine-tuning."""
    method, adapter = method_of(config), config.adapter
    if not (method.trains_biases(adapter) or method.trains_encoder):
        return
    wrapped = {site.module for site in sites_of(adapter, encoder)} if method.sited else set()
    for tensor in encoder.tensors(num_labels):
        module, _, leaf = tensor.name.rpartition(".")
        if tensor.name in taken or not (method.trains_encoder or leaf == "bias"):
            continue
        name = f"{module}.base_layer.{leaf}" if module in wrapped else tensor.name
        yield Entry(name, tensor.shape, "encoder" if method.trains_encoder else "bias")


def file_bytes(entries: Iterable[Entry], method: Method) -> int:
    """Size in bytes of the adapter's safetensors file: length word, JSON header, four bytes an element.

    The format (huggingface/safetensors): an 8-byte length, a compact JSON header padded to 8 bytes, the data
    in the order of the names.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, entry in sorted((method.file_key(entry.name), entry) for entry in entries if entry.saved):
        start, end = end, end + 4 * entry.size
        header[key] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + -length % 8 + end
