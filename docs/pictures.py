"""Draw the pictures of the budget page from exact plans: `python docs/pictures.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rankwise
from rankwise.reporting.drawing import Chart, Palette, legend, plain_axes, save

BUDGET = 1_000_000
SCOPES: tuple[Any, ...] = (
    ["value"],
    ["query", "value"],
    ["query", "key", "value"],
    ["query", "key", "value", "attention_output"],
    ["ffn_in", "ffn_out"],
    "all",
)


def planned(scope: Any, head: str) -> rankwise.Plan:
    """RoBERTa-base for four classes at the largest rank that fits."""
    return rankwise.plan(
        {
            "budget": {"max_trainable": BUDGET},
            "model": {"name": "roberta-base"},
            "adapter": {"scope": scope, "rank": "max"},
            "head": {"kind": head},
            "data": {"num_labels": 4},
        }
    )


def heads(drawn: Any, palette: Palette) -> None:
    """Where one million parameters go, by kind of head."""
    axes = drawn.subplots()
    for place, kind in enumerate(("low_rank", "output", "full")):
        plan = planned(["value"], kind)
        start = 0
        for group, colour in (("head", palette.second), ("adapter", palette.first)):
            count = plan.groups[group]
            axes.barh(place, count, left=start, height=0.6, color=colour, label=group if kind == "full" else None)
            if count > BUDGET / 8:
                axes.text(start + count / 2, place, f"{count:,}", color="white", ha="center", va="center", fontsize=10)
            start += count
    axes.axvline(BUDGET, color=palette.bad, linewidth=1.5, linestyle=(0, (4, 2)), label="budget")
    axes.set_yticks(range(3), ["head.kind: low_rank", "head.kind: output", "head.kind: full"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("trainable parameters, roberta-base, scope value, largest rank")
    plain_axes(axes, palette, grid="x")
    legend(axes, palette)


def ranks(drawn: Any, palette: Palette) -> None:
    """The largest rank by scope, for two kinds of head."""
    axes = drawn.subplots()
    for offset, kind, colour in ((0.2, "full", palette.second), (-0.2, "output", palette.first)):
        for place, scope in enumerate(reversed(SCOPES)):
            rank = planned(scope, kind).rank or 0
            label = f"head.kind: {kind}" if place == 0 else None
            axes.barh(place + offset, rank, height=0.36, color=colour, label=label)
            axes.text(rank + 0.6, place + offset, f"{rank}", color=palette.muted, va="center", fontsize=9)
    axes.set_yticks(range(len(SCOPES)), [words(scope) for scope in reversed(SCOPES)])
    axes.set_xlabel("largest rank within 1,000,000 trainable parameters, roberta-base")
    plain_axes(axes, palette, grid="x")
    legend(axes, palette)


def words(scope: Sequence[str] | str) -> str:
    """A scope as it is written."""
    return scope if isinstance(scope, str) else " ".join(scope)


CHARTS = [
    Chart("budget-head", "Where one million parameters go", "", heads, 7.0, 2.3),
    Chart("budget-ranks", "The largest rank that fits", "", ranks, 7.0, 3.4),
]

if __name__ == "__main__":
    images = Path(__file__).parent / "images"
    for file in save(CHARTS, images):
        if file.suffix == ".png":
            file.unlink()
