"""A plan in words, and the table of what fits: every scope against its largest rank."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from rankwise.config import Adapter, Bias, Config, HeadKind, max_trainable
from rankwise.errors import UserError
from rankwise.planning.encoder import Encoder, encoder_of
from rankwise.planning.ledger import file_bytes, ledger
from rankwise.planning.plan import Plan, label_count, largest_rank

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
_GROUP_WORDS = {
    "adapter": "adapter",
    "dora": "DoRA magnitudes",
    "bias": "biases",
    "head": "head",
    "encoder": "encoder",
}


def plan_text(planned: Plan) -> str:
    """The plan as lines for a terminal."""
    config = planned.config
    rows = [("model", f"{planned.model}, {planned.num_labels} classes")]
    rows += [("adapter", _adapter_words(planned)), ("head", config.head.kind)]
    rows += [(_GROUP_WORDS[group], f"{count:>11,}") for group, count in planned.groups.items() if count]
    rows.append(("trainable", f"{planned.trainable:>11,}{_budget_words(planned)}"))
    rows.append(("frozen", f"{planned.frozen:>11,}"))
    if planned.largest_rank is not None:
        rows.append(("largest rank", f"{planned.largest_rank:>11,}"))
    rows.append(("adapter file", f"{planned.adapter_bytes:>11,} bytes"))
    rows.append(("engine", planned.engine + (f" ({planned.engine_reason})" if planned.engine_reason else "")))
    rows += [("note", note) for note in planned.notes]
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


def _adapter_words(planned: Plan) -> str:
    adapter = planned.config.adapter
    words: list[str] = [adapter.method]
    if planned.places or adapter.method == "ia3":
        words.append(adapter.scope if adapter.scope == "all" else " ".join(adapter.scope))
    if planned.rank is not None:
        ranks = sorted({place.rank for place in planned.places})
        words.append(f"rank {planned.rank}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}")
    if planned.alpha is not None:
        words.append(f"alpha {planned.alpha:g}")
    words += [word for word, on in (("DoRA", adapter.dora), ("rsLoRA", adapter.rslora)) if on]
    return ", ".join(words)


def _budget_words(planned: Plan) -> str:
    if planned.budget is None:
        return "  (no budget)"
    left = planned.budget - planned.trainable
    return f"  of {planned.budget:,}, {f'{left:,} left' if left >= 0 else f'{-left:,} too many'}"


def options(config: Config, num_labels: int | None = None) -> list[dict[str, Any]]:
    """For every head, scope and variant: the largest rank that fits the budget and what it trains.

    A rank of 0 says that not even rank 1 fits. Variants that the encoder cannot have are left out.

    Raises:
        UserError: there is no budget to fit, or the number of labels is unknown.
    """
    if config.budget.max_trainable is None:
        raise UserError("budget.max_trainable is lifted, so every rank fits: give a budget to solve ranks for")
    encoder, labels = encoder_of(config.model), label_count(config, num_labels)
    variants = [variant for variant in VARIANTS if variant[2] == "none" or encoder.has_biases]
    return [
        _option(config, encoder, labels, kind, scope, variant)
        for kind in get_args(HeadKind)
        for scope in SCOPES
        for variant in variants
    ]


def _option(
    config: Config, encoder: Encoder, labels: int, kind: HeadKind, scope: Any, variant: tuple[str, bool, Bias]
) -> dict[str, Any]:
    title, dora, bias = variant
    adapter = Adapter(scope=scope, rank="max", dora=dora, bias=bias, layers=config.adapter.layers)
    head = msgspec.structs.replace(config.head, kind=kind)
    varied = msgspec.structs.replace(config, adapter=adapter, head=head)
    largest = largest_rank(varied, encoder, labels)
    entries = ledger(varied, encoder, labels, largest) if largest else []
    return {
        "head": kind,
        "scope": scope,
        "variant": title,
        "largest_rank": largest,
        "trainable": sum(entry.size for entry in entries if entry.group) if largest else None,
        "adapter_bytes": file_bytes(entries, prompt=False) if largest else None,
    }


def table(config: Config, num_labels: int | None = None) -> str:
    """The options as a table for a terminal: largest rank, and in brackets what it trains."""
    rows = options(config, num_labels)
    titles = [title for title, _, _ in VARIANTS if any(row["variant"] == title for row in rows)]
    lines = [f"largest rank within {max_trainable(config):,} trainable parameters, {config.model.name}"]
    for kind in get_args(HeadKind):
        lines += ["", f"{'head.kind: ' + kind:<36}" + "".join(f"{title:>16}" for title in titles)]
        for scope in SCOPES:
            cells = {r["variant"]: r for r in rows if r["head"] == kind and r["scope"] == scope}
            name = scope if scope == "all" else ",".join(scope)
            lines.append(f"{name:<36}" + "".join(f"{_cell(cells[title]):>16}" for title in titles))
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['largest_rank']} ({row['trainable']:,})" if row["largest_rank"] else "none fits"
