"""Drawings of a search: the papers' bars, the axes side by side, cost against score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankwise.records import SearchRow
from rankwise.reporting.drawing import Chart, Palette, legend, plain_axes
from rankwise.reporting.search import MOST_BARS, MOST_VALUES, is_number, natural, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Facts = Mapping[str, Any]
SCORES = ("peak", "chosen", "final")
AXIS = "validation accuracy, %"


def search_charts(facts: Facts) -> dict[str, Chart]:
    """Every chart the facts of a search allow, by name."""
    rows = facts["rows"]
    scored = [i for i, row in enumerate(rows) if row.chosen is not None]
    charts: list[Chart] = []
    if scored:
        charts.append(_bars(facts, scored[:MOST_BARS], len(scored)))
    if scored and facts["varied"]:
        charts.append(_parallel(facts, scored))
    if any(facts["derived"]["cost"][i]["seconds"] for i in scored):
        charts.append(_cost(facts, scored))
    return {chart.name: chart for chart in charts}


def label(row: SearchRow, varied: Sequence[str], width: int = 26) -> str:
    """A trial in a few words: its number and what it varies."""
    said = ", ".join(words(row.point[key]) for key in varied if key in row.point)
    text = f"{row.trial}  {said}" if said else f"trial {row.trial}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _bars(facts: Facts, shown: Sequence[int], of: int) -> Chart:
    rows = facts["rows"]

    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        for place, i in enumerate(reversed(shown)):
            row, first = rows[i], place == 0
            scores = {key: 100 * getattr(row, key) for key in SCORES if getattr(row, key) is not None}
            colour = palette.good if i in facts["best"] else palette.first
            axes.barh(place, scores["chosen"], height=0.62, color=colour, alpha=0.55, label="chosen" if first else None)
            if row.chosen_ci95:
                low, high = (100 * end for end in row.chosen_ci95)
                axes.plot(
                    [low, high],
                    [place, place],
                    color=palette.ink,
                    linewidth=1.2,
                    label="95% interval" if first else None,
                )
            for key, marker in (("peak", "^"), ("final", "s")):
                if key in scores:
                    axes.plot([scores[key]], [place], marker, color=palette.second if key == "peak" else palette.muted,
                              markersize=5, label=key if first else None)  # fmt: skip
        shares = [
            share for i in shown for share in (*(getattr(rows[i], key) for key in SCORES), *(rows[i].chosen_ci95 or ()))
        ]
        ends = [100 * share for share in shares if share is not None]
        room = 0.06 * (max(ends) - min(ends)) or 1
        axes.set_xlim(max(0, min(ends) - room), max(ends) + room)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_yticks(range(len(shown)), [label(rows[i], facts["varied"]) for i in reversed(shown)])
        axes.set_xlabel(AXIS)
        plain_axes(axes, palette, grid="x")
        legend(axes, palette, bbox_to_anchor=(-0.4, 1.0))

    more = f"; the best {len(shown)} of {of}" if of > len(shown) else ""
    return Chart(
        "bars",
        f"Peak, chosen and final score{more}",
        "The bar is the evaluation whose weights were kept with its 95% interval, the triangle the highest evaluation, "
        "the square the last; green bars are not distinguishable from the best. The scale does not start at zero.",
        draw,
        height=0.3 * len(shown) + 1.0,
    )


def _parallel(facts: Facts, scored: Sequence[int]) -> Chart:
    rows, varied = facts["rows"], facts["varied"]

    def draw(drawn: Figure, palette: Palette) -> None:
        from matplotlib.colors import to_rgba

        columns = [_scale([rows[i].point.get(key) for i in scored]) for key in varied]
        scores = [100 * rows[i].chosen for i in scored]
        low, high = min(scores), max(scores)
        heights = [(score - low) / (high - low) if high > low else 0.5 for score in scores]
        axes = drawn.subplots()
        last = len(varied)
        behind = {"facecolor": palette.paper, "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        faint = max(0.12, min(0.6, 12 / len(scored)))
        # The best lines are drawn last, over the others.
        for place in reversed(range(len(scored))):
            points = [column[0][place] for column in columns] + [heights[place]]
            best = scored[place] in facts["best"] or place == 0
            colour = to_rgba(palette.good if best else palette.muted, 0.95 if best else faint)
            axes.plot(range(last + 1), points, color=colour, linewidth=2.2 if best else 1.2)
        for x, (_, ticks) in enumerate([*columns, ([], [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")])]):
            axes.plot([x, x], [0, 1], color=palette.grid, linewidth=1.5, zorder=0)
            for y, text in ticks:
                axes.text(x + (0.04 if x < last else -0.04), y, text, color=palette.ink, fontsize=9, va="center",
                          ha="left" if x < last else "right", bbox=behind)  # fmt: skip
        axes.set_xticks(range(last + 1), [*(key.rpartition(".")[2].replace("_", " ") for key in varied), "score"])
        axes.set_yticks([])
        axes.set_xlim(-0.1, last + 0.1)
        axes.set_ylim(-0.08, 1.08)
        axes.spines["bottom"].set_visible(False)
        plain_axes(axes, palette, grid="")

    return Chart(
        "parallel",
        "The axes side by side",
        f"One line a trial over {', '.join(varied)} and the chosen score; green lines are not distinguishable from the best.",
        draw,
        height=3.8,
    )


def _scale(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 for the values of an axis, and the ticks to write.

    Numbers that span more than a factor of 20 are spread by their logarithm; anything else that is no number by order.
    """
    numbers = [value for value in values if is_number(value)]
    distinct = sorted({words(value) for value in values}, key=natural)
    if len(numbers) == len(values) and len(distinct) > MOST_VALUES:
        positive = min(numbers) > 0 and max(numbers) / min(numbers) > 20
        placed = [math.log(value) if positive else float(value) for value in numbers]
        low, high = min(placed), max(placed)
        return [(value - low) / (high - low) for value in placed], [
            (0.0, words(min(numbers))),
            (1.0, words(max(numbers))),
        ]
    at = {text: place / max(1, len(distinct) - 1) for place, text in enumerate(distinct)}
    return [at[words(value)] for value in values], [
        (y, text if len(text) < 22 else f"{text[:21]}…") for text, y in at.items()
    ]


def _cost(facts: Facts, scored: Sequence[int]) -> Chart:
    rows, costs = facts["rows"], facts["derived"]["cost"]

    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        for best, colour, name in (
            (False, palette.first, "others"),
            (True, palette.good, "not distinguishable from the best"),
        ):
            points = [
                (costs[i]["seconds"], 100 * rows[i].chosen)
                for i in scored
                if (i in facts["best"]) is best and costs[i]["seconds"]
            ]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, "o", color=colour, alpha=0.7, markersize=6, label=name)
        axes.set_xlabel("time of the trial, s")
        axes.set_ylabel(AXIS)
        axes.margins(0.08)
        plain_axes(axes, palette)
        legend(axes, palette, ncols=2)

    return Chart("cost", "Cost against score", "Each dot is a trial: its time and its chosen score.", draw, height=3.3)
