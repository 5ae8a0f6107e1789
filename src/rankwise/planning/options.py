"""The table of what fits: every scope against its largest rank."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from rankwise.config import Adapter, Bias, Config, HeadKind, max_trainable
from rankwise.encoders import Encoder, encoder_of
from rankwise.errors import UserError
from rankwise.methods import method_of
from rankwise.planning.ledger import file_bytes, ledger
from rankwise.planning.plan import label_count, largest_rank, with_pooling

SCOPES: tuple[Any, ...] = (
    ["query"],
    ["value"],
    ["query", "value"],
    ["query", "key", "value"],
    ["query", "key", "value", "attention_output"],
    ["ffn_in", "ffn_out"],
    "all",
)
VARIANTS: tuple[tuple[str, bool, Bias], ...] = (
    ("LoRA", False, "none"),
    ("DoRA", True, "none"),
    ("bias", False, "lora_only"),
)
"""column title, DoRA, bias"""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A head, a scope and a variant. A rank of 0 says that not even rank 1 fits."""

    head: HeadKind
    scope: str | list[str]
    variant: str
    largest_rank: int | None
    trainable: int | None
    adapter_bytes: int | None


def options(config: Config, num_labels: int | None = None) -> list[Option]:
    """For every head, scope and variant: the largest rank that fits the budget and what it trains.

    Variants that the encoder cannot have are left out.

    Raises: UserError: there is no budget to fit, or the number of labels is unknown.
    """
    if config.budget.max_trainable is None:
        raise UserError("budget.max_trainable is lifted, so every rank fits: give a budget to solve ranks for")
    config = with_pooling(config)
    encoder, labels = encoder_of(config.model).pooled(config.head.pooling), label_count(config, num_labels)
    variants = [variant for variant in VARIANTS if variant[2] == "none" or encoder.has_biases]
    return [
        _option(config, encoder, labels, kind, scope, variant)
        for kind in _head_kinds(encoder.pooling)
        for scope in SCOPES
        for variant in variants
    ]


def _head_kinds(pooling: str) -> tuple[HeadKind, ...]:
    """Those that differ: a pooled head is its projection alone."""
    kinds: tuple[HeadKind, ...] = get_args(HeadKind)
    return kinds if pooling == "first" else ("output",)


def _option(
    config: Config, encoder: Encoder, labels: int, kind: HeadKind, scope: Any, variant: tuple[str, bool, Bias]
) -> Option:
    title, dora, bias = variant
    adapter = Adapter(scope=scope, rank="max", dora=dora, bias=bias, layers=config.adapter.layers)
    head = msgspec.structs.replace(config.head, kind=kind)
    varied = msgspec.structs.replace(config, adapter=adapter, head=head)
    largest = largest_rank(varied, encoder, labels)
    entries = ledger(varied, encoder, labels, largest) if largest else []
    return Option(
        head=kind,
        scope=scope,
        variant=title,
        largest_rank=largest,
        trainable=sum(entry.size for entry in entries if entry.group) if largest else None,
        adapter_bytes=file_bytes(entries, method_of(varied)) if largest else None,
    )


def table(config: Config, num_labels: int | None = None) -> str:
    """The options as a table for a terminal: largest rank, and in brackets what it trains."""
    rows = options(config, num_labels)
    titles = [title for title, _, _ in VARIANTS if any(row.variant == title for row in rows)]
    lines = [f"largest rank within {max_trainable(config):,} trainable parameters, {config.model.name}"]
    for kind in dict.fromkeys(row.head for row in rows):
        lines += ["", f"{'head.kind: ' + kind:<36}" + "".join(f"{title:>16}" for title in titles)]
        for scope in SCOPES:
            cells = {row.variant: row for row in rows if row.head == kind and row.scope == scope}
            name = scope if scope == "all" else ",".join(scope)
            lines.append(f"{name:<36}" + "".join(f"{_cell(cells[title]):>16}" for title in titles))
    return "\n".join(lines)


def _cell(row: Option) -> str:
    return f"{row.largest_rank} ({row.trainable:,})" if row.largest_rank else "none fits"
