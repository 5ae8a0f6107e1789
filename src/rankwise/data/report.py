"""What the data is like: rows, classes, duplicates, token lengths and what truncation cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise.machine.segments import HEAD_AND_TAIL

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rankwise.data.duplicates import Overlap
    from rankwise.data.tokens import Tokens

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
_CLASSES_SHOWN = 20


@dataclass
class Report:
    """Filled by `load`, and by `add_tokens` once the texts are tokenised.

    Attributes:
        rows: rows of each role.
        classes: class names.
        balance: for each role, rows that carry each class.
        duplicates: repeats within train and between roles.
        tokens: for each role, length quantiles and what truncation cuts.
        sources: how each source was read, a line each.
        notes: what was assumed of the data, and what it is worth.
    """

    rows: dict[str, int]
    classes: list[str]
    balance: dict[str, list[int]] = field(default_factory=dict)
    duplicates: list[Overlap] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add_tokens(self, role: str, tokens: Tokens) -> None:
        """Record the token lengths of a role."""
        self.tokens[role] = token_summary(tokens)

    def to_dict(self, *, excerpts: bool = False) -> dict[str, Any]:
        """Plain values for result.json.

        excerpts
            With the beginnings of texts that repeat: a record is passed on more freely than the data it is about.
        """
        return {
            "rows": dict(self.rows),
            "balance": {role: dict(zip(self.classes, counts, strict=True)) for role, counts in self.balance.items()},
            "duplicates": [overlap.to_dict(excerpts=excerpts) for overlap in self.duplicates],
            "tokens": dict(self.tokens),
            "sources": list(self.sources),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """How each source was read, and what to know of it."""
        repeats = [
            one.sentence()
            for one in self.duplicates
            if one.conflicts or (one.roles[1] == "test" and one.exact + one.near)
        ]
        return [
            *(f"read      {line}" for line in self.sources),
            *(f"note      {note}" for note in [*self.notes, *repeats]),
        ]

    def render(self) -> RenderableType:
        """Tables for the terminal."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(f"read        {line}") for line in self.sources]
        parts.append(self._balance_table())
        if self.tokens:
            parts.append(self._token_table())
        # Names and ids are shown as they are: rich would read "[b]" as an instruction.
        parts.extend(Text(overlap.sentence()) for overlap in self.duplicates if overlap.exact or overlap.near)
        parts.extend(Text(f"note        {note}") for note in self.notes)
        return Group(*parts)

    def _balance_table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        table.add_column("rows")
        for role, count in self.rows.items():
            table.add_column(f"{role} {count:,}", justify="right")
        for i, name in enumerate(self.classes[:_CLASSES_SHOWN]):
            table.add_row(Text(name), *(f"{self.balance[role][i]:,}" for role in self.rows))
        if len(self.classes) > _CLASSES_SHOWN:
            table.add_row(f"and {len(self.classes) - _CLASSES_SHOWN:,} more classes")
        return table

    def _token_table(self) -> RenderableType:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("tokens")
        for heading in ("median", "95%", "99%", "longest", "kept at most", "texts cut", "tokens cut"):
            table.add_column(heading, justify="right")
        for role, summary in self.tokens.items():
            lengths = summary["quantiles"]
            table.add_row(
                role,
                *(f"{lengths[q]:,}" for q in ("0.5", "0.95", "0.99", "1")),
                f"{summary['max_length']:,}{' of both ends' if summary['truncation'] == HEAD_AND_TAIL else ''}",
                f"{summary['texts_cut']:,}",
                f"{summary['tokens_cut_share']:.2%}",
            )
        return table


def kept_in_words(max_length: int, truncation: str) -> str:
    """What is read of a text that is longer than so many tokens."""
    if truncation == HEAD_AND_TAIL:
        tail = max_length // 2
        return f"the first {max_length - tail:,} and the last {tail:,} tokens of a text"
    return f"the first {max_length:,} tokens of a text"


def token_summary(tokens: Tokens) -> dict[str, Any]:
    """Length quantiles before truncation, texts that are cut, and the share of all tokens that is lost."""
    full = tokens.full_lengths
    values = np.quantile(full, QUANTILES, method="higher") if len(full) else np.zeros(len(QUANTILES))
    lost = int(np.maximum(full - tokens.max_length, 0).sum())
    return {
        "max_length": tokens.max_length,
        "truncation": tokens.truncation,
        "quantiles": {f"{q:g}": int(value) for q, value in zip(QUANTILES, values, strict=True)},
        "texts_cut": int((full > tokens.max_length).sum()),
        "tokens_cut_share": lost / max(1, int(full.sum())),
    }
