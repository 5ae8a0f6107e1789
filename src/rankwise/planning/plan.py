"""What a configuration costs before anything is loaded, and the largest rank its budget allows."""

from __future__ import annotations

import re
from bisect import bisect_right

import msgspec

from rankwise.config import Adapter, Config, alpha_of, max_bytes, max_trainable, replaced
from rankwise.encoders import Encoder, declared_pooling, encoder_of
from rankwise.engine.support import why_not
from rankwise.errors import BudgetError, UserError
from rankwise.methods import Entry, method_of
from rankwise.methods.places import places_of, sites_of, solves_rank
from rankwise.planning.ledger import file_bytes, head_kind, ledger
from rankwise.planning.planned import GROUPS, Plan
from rankwise.planning.unused import unused


def plan(config: Config, num_labels: int | None = None) -> Plan:
    """Count what trains under a configuration, solving `adapter.rank: max` to the largest rank that fits.

    Needs no torch, no weights and no network. Over budget is told by `fits`; see `require_fit`.

    Raises: UserError: the number of labels is unknown, or an option cannot apply to the model or the method.
    """
    labels = label_count(config, num_labels)
    config = with_pooling(config)
    encoder, method = encoder_of(config.model).pooled(config.head.pooling), method_of(config)
    largest = largest_rank(config, encoder, labels)
    rank = _rank(config, encoder, largest)
    entries = tuple(ledger(config, encoder, labels, rank or 1))
    groups = _groups(entries)
    total = sum(tensor.size for tensor in encoder.tensors(labels))
    resolved = _resolved(config, rank, labels)
    places = places_of(config.adapter, encoder, rank) if rank else ()
    method.check_ranks(config.adapter, rank, places)
    engine, reason = _engine(resolved, encoder)
    frozen_layers = _frozen_layers(entries, encoder)
    _check_prefix(config, engine, frozen_layers)
    return Plan(
        model=config.model.name,
        trainable=sum(groups.values()),
        budget=max_trainable(config),
        groups=groups,
        largest_rank=largest,
        adapter_bytes=file_bytes(entries, method),
        rank=rank,
        alpha=alpha_of(config.adapter.alpha, rank) if rank and method.scaled else None,
        frozen=total - sum(entry.size for entry in entries if entry.group and _is_model_tensor(entry)),
        engine=engine,
        engine_reason=reason,
        notes=(*_notes(config, encoder, rank), *_prefix_note(config, frozen_layers)),
        config=resolved,
        encoder=encoder,
        num_labels=labels,
        places=places,
        entries=entries,
    )


def with_pooling(config: Config) -> Config:
    """The configuration with `head.pooling: auto` resolved to what the base declares."""
    if config.head.pooling != "auto":
        return config
    return replaced(config, "head", pooling=declared_pooling(config.model))


def label_count(config: Config, num_labels: int | None) -> int:
    """The number of classes: as given, else the configuration's."""
    labels = num_labels if num_labels is not None else config.data.num_labels
    if labels is None:
        raise UserError("the number of classes is not known before the data are read: give data.num_labels")
    return labels


def _is_model_tensor(entry: Entry) -> bool:
    """Whether a trained entry is one of the model's own parameters, not one an adapter adds."""
    return entry.group in ("bias", "encoder") or (entry.group == "head" and entry.saved)


def _groups(entries: tuple[Entry, ...]) -> dict[str, int]:
    groups = dict.fromkeys(GROUPS, 0)
    for entry in entries:
        if entry.group:
            groups[entry.group] = groups.get(entry.group, 0) + entry.size
    return groups


def trainable_count(config: Config, encoder: Encoder, num_labels: int, rank: int) -> int:
    """Parameters that train at a base rank."""
    return sum(entry.size for entry in ledger(config, encoder, num_labels, rank) if entry.group)


def largest_rank(config: Config, encoder: Encoder, num_labels: int) -> int | None:
    """The largest base rank within the budget, and within the megabytes that may be shipped, from exact counts.

    No rank above the narrowest adapted width is offered: such an update has no more freedom. Returns 0 when
    rank 1 is too much, None when nothing is to be solved: no budget, or a method without a rank.
    """
    budget, adapter, most_bytes = max_trainable(config), config.adapter, max_bytes(config)
    unbounded = budget is None and most_bytes is None
    if unbounded or not method_of(config).ranked or not solves_rank(adapter, encoder):
        ledger(config, encoder, num_labels, 1)  # still refuses what cannot apply
        return None

    def count(rank: int) -> int:
        return trainable_count(config, encoder, num_labels, rank)

    most = min(min(site.d_in, site.d_out) for site in sites_of(adapter, encoder))
    if most_bytes is not None:  # the file's header has no fixed length, so the bytes are not linear in the rank

        def size(rank: int) -> int:
            return file_bytes(ledger(config, encoder, num_labels, rank), method_of(config))

        most = bisect_right(range(1, most + 1), most_bytes, key=size)
    if budget is None or most == 0:
        return most
    if adapter.rank_pattern == "ascending":  # rounds layer by layer, so the count is not linear in the rank
        return bisect_right(range(1, most + 1), budget, key=count)
    each = count(2) - count(1)
    return max(0, min(most, 1 + (budget - count(1)) // each))


def _rank(config: Config, encoder: Encoder, largest: int | None) -> int | None:
    adapter = config.adapter
    if not method_of(config).ranked:
        return None
    if adapter.rank != "max":
        return adapter.rank
    if largest is None:
        lifted = solves_rank(adapter, encoder)
        reason = "budget.max_trainable is lifted" if lifted else "adapter.rank_pattern covers every layer"
        raise UserError(f"adapter.rank: max has nothing to solve, {reason}: give a number")
    return max(1, largest)


def _resolved(config: Config, rank: int | None, num_labels: int) -> Config:
    """The configuration with numbers for rank and alpha.

    Where a pattern varies the rank, a multiple such as `2r` stays one: the scale is then equal everywhere.
    """
    adapter = config.adapter
    if rank is not None:
        adapter = msgspec.structs.replace(adapter, rank=rank)
        if method_of(config).scaled and not adapter.rank_pattern:
            adapter = msgspec.structs.replace(adapter, alpha=alpha_of(adapter.alpha, rank))
    data = msgspec.structs.replace(config.data, num_labels=num_labels)
    return msgspec.structs.replace(config, adapter=adapter, data=data)


def _engine(config: Config, encoder: Encoder) -> tuple[str, str | None]:
    if config.engine == "reference":
        return "reference", "engine: reference asks for it"
    reason = why_not(encoder.model_type, encoder.hf_config, config)
    if config.engine == "fast" and reason is not None:
        raise UserError(f"engine: fast cannot run this: {reason}; use engine: auto")
    return ("fast", None) if reason is None else ("reference", reason)


def _frozen_layers(entries: tuple[Entry, ...], encoder: Encoder) -> int:
    """How many of the encoder's first layers nothing trains in or below; the last one the head always reads anew."""
    lowest = encoder.depth - 1
    for entry in entries:
        if entry.group not in (None, "head"):
            named = re.search(r"\.layers?\.(\d+)\.", entry.name)
            lowest = min(lowest, int(named.group(1)) if named else 0)
    return lowest


def _check_prefix(config: Config, engine: str, frozen_layers: int) -> None:
    """Refuse a cache of the frozen prefix where there is none, or nobody to use it."""
    if config.train.prefix_cache_mb is None:
        return
    if engine != "fast":
        raise UserError("train.prefix_cache_mb is for engine: fast, and this run takes the reference path")
    if frozen_layers == 0:
        raise UserError(
            "train.prefix_cache_mb needs frozen layers below the lowest adapter, and here the first layer trains: "
            "name upper layers with adapter.layers, and adapter.bias: none or lora_only"
        )


def _prefix_note(config: Config, frozen_layers: int) -> list[str]:
    if config.train.prefix_cache_mb is None:
        return []
    layers = "layer is" if frozen_layers == 1 else f"{frozen_layers} layers are"
    return [f"the first {layers} computed once a text, without dropout, and their output is rounded to bf16"]


def _notes(config: Config, encoder: Encoder, rank: int | None) -> list[str]:
    """What a user might not expect of the plan."""
    adapter, method, notes = config.adapter, method_of(config), []
    if method.sited:
        notes += _fused_note(adapter, encoder)
        if encoder.family.shares_layers:
            notes.append("one adapter serves all layers of a group: their weights are shared")
    notes += method.notes(adapter, rank)
    if encoder.pooling != "first":
        notes.append(_pooled_note(encoder))
    kept = head_kind(config) == "full" and not encoder.dense_is_new and encoder.pooling == "first"
    if kept and not method.trains_encoder:
        notes.append(f"{encoder.family.dense} is pretrained and stays frozen: only the projection is new")
    return [*notes, *unused(config)]


def _pooled_note(encoder: Encoder) -> str:
    what = "the mean of its tokens" if encoder.pooling == "mean" else "its first token and the mean of all"
    return (
        f"the head is a projection of a text by {what}: plain transformers refuses its shape, "
        "docs/from-peft.md shows how to read it"
    )


def _fused_note(adapter: Adapter, encoder: Encoder) -> list[str]:
    """That a fused layer adapts under all its words, though not all were named."""
    for site in sites_of(adapter, encoder):
        unnamed = [] if adapter.scope == "all" else [word for word in site.words if word not in adapter.scope]
        if unnamed:
            layer, words = site.module.rpartition(".")[2], ", ".join(site.words)
            return [f"{layer} is one layer for {words}: {' and '.join(unnamed)} adapt with the rest"]
    return []


def require_fit(planned: Plan) -> None:
    """Refuse a plan over budget, naming the excess and the largest rank that fits.

    Raises: BudgetError: the plan trains more than `budget.max_trainable`, or its file is over `budget.max_mb`.
    """
    if planned.fits:
        return
    if planned.budget is None or planned.trainable <= planned.budget:
        raise BudgetError(
            f"the adapter's file has {planned.adapter_bytes / 1e6:.3f} MB, over budget.max_mb of "
            f"{planned.config.budget.max_mb:g}: {_smaller_file(planned)}"
        )
    raise BudgetError(
        f"{planned.trainable:,} trainable parameters are {planned.trainable - planned.budget:,} over "
        f"budget.max_trainable of {planned.budget:,}: {_advice(planned)}"
    )


def _smaller_file(planned: Plan) -> str:
    """The nearest file that is small enough, or the smallest there is."""
    if planned.largest_rank:
        return f"the largest rank that fits is {planned.largest_rank} (adapter.rank)"
    method = method_of(planned.config)
    least = file_bytes(ledger(planned.config, planned.encoder, planned.num_labels, 1), method) / 1e6
    if method.ranked:
        return f"no rank fits this scope and head, at rank 1 it has {least:.3f} MB"
    return f"adapter.method: {method.name} has no rank to lower"


def _advice(planned: Plan) -> str:
    """What to change for a plan over budget."""
    method, head = method_of(planned.config), planned.groups["head"]
    if planned.largest_rank:
        return f"the largest rank that fits is {planned.largest_rank} (adapter.rank)"
    if planned.largest_rank == 0:
        output = msgspec.structs.replace(
            planned.config, head=msgspec.structs.replace(planned.config.head, kind="output")
        )
        least = _groups(tuple(ledger(output, planned.encoder, planned.num_labels, 1)))["head"]
        less = ", head.kind: output takes less" if least < head else ""
        return f"no rank fits this scope; the head alone takes {head:,}{less}"
    if method.ranked:
        return "adapter.rank_pattern fixes every rank: lower its numbers"
    return f"adapter.method: {method.name} has no rank to lower; raise the budget, or lift it with null"
