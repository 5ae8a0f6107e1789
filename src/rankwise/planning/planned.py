"""A plan: its numbers and its words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rankwise.config import Config, max_bytes
from rankwise.encoders import Encoder
from rankwise.methods import Entry, method_of
from rankwise.methods.places import Place

GROUPS = ("adapter", "dora", "bias", "head")
_GROUP_WORDS = {
    "adapter": "adapter",
    "dora": "DoRA magnitudes",
    "bias": "biases",
    "head": "head",
    "encoder": "encoder",
}


def as_lines(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what is said of each, for a terminal."""
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


@dataclass(frozen=True)
class Plan:
    """The exact cost of a configuration. Counts are parameters."""

    model: str
    trainable: int
    budget: int | None
    groups: dict[str, int]
    largest_rank: int | None
    """largest base rank that fits; 0 when not even rank 1 does; None without a rank or a budget"""
    adapter_bytes: int
    rank: int | None
    alpha: float | None
    frozen: int
    engine: str
    engine_reason: str | None
    notes: tuple[str, ...]
    config: Config = field(repr=False)
    encoder: Encoder = field(repr=False)
    num_labels: int
    places: tuple[Place, ...] = field(repr=False)
    entries: tuple[Entry, ...] = field(repr=False)

    @property
    def fits(self) -> bool:
        """Whether the trainable parameters stay within the budget, and the file within its megabytes."""
        within = self.budget is None or self.trainable <= self.budget
        most = max_bytes(self.config)
        return within and (most is None or self.adapter_bytes <= most)

    @property
    def base_bytes(self) -> int:
        """Of the base's weights in fp32, which are not shipped with an adapter."""
        return 4 * sum(tensor.size for tensor in self.encoder.tensors(self.num_labels))

    @property
    def positions(self) -> int:
        """Tokens of the longest text the model takes; a prompt or prefix takes its share of the encoder's."""
        return self.encoder.positions - method_of(self.config).virtual_tokens(self.config.adapter)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank by module path of the adapted layers."""
        return {place.site.module: place.rank for place in self.places}

    def text(self) -> str:
        """The plan as lines for a terminal."""
        rows = [("model", f"{self.model}, {self.num_labels} classes")]
        rows += [("adapter", self._adapter_words()), ("head", self.config.head.kind)]
        rows += [(_GROUP_WORDS[group], f"{count:>11,}") for group, count in self.groups.items() if count]
        rows.append(("trainable", f"{self.trainable:>11,}{self._budget_words()}"))
        rows.append(("frozen", f"{self.frozen:>11,}"))
        if self.largest_rank is not None:
            rows.append(("largest rank", f"{self.largest_rank:>11,}"))
        rows.append(("adapter file", f"{self.adapter_bytes:>11,} bytes{self._shipped_words()}"))
        rows.append(("engine", self.engine + (f" ({self.engine_reason})" if self.engine_reason else "")))
        rows += [("note", note) for note in self.notes]
        return as_lines(rows)

    def _adapter_words(self) -> str:
        adapter, method = self.config.adapter, method_of(self.config)
        words = [method.name]
        if method.sited:
            words.append(adapter.scope if adapter.scope == "all" else " ".join(adapter.scope))
        if self.rank is not None:
            ranks = sorted({place.rank for place in self.places})
            words.append(f"rank {self.rank}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}")
        if self.alpha is not None:
            words.append(f"alpha {self.alpha:g}")
        words += [word for word, on in (("DoRA", adapter.dora), ("rsLoRA", adapter.rslora)) if on]
        return ", ".join(words)

    def _budget_words(self) -> str:
        if self.budget is None:
            return "  (no budget)"
        left = self.budget - self.trainable
        return f"  of {self.budget:,}, {f'{left:,} left' if left >= 0 else f'{-left:,} too many'}"

    def _shipped_words(self) -> str:
        most = self.config.budget.max_mb
        return "" if most is None else f"  of {most:g} MB, beside a base of {self.base_bytes / 1e6:,.0f} MB"

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        names = (
            "model",
            "trainable",
            "budget",
            "fits",
            "groups",
            "largest_rank",
            "adapter_bytes",
            "rank",
            "alpha",
        )
        more = ("frozen", "num_labels", "ranks", "engine", "engine_reason", "base_bytes")
        return {name: getattr(self, name) for name in (*names, *more)} | {"notes": list(self.notes)}
