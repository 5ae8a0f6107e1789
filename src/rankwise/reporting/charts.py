"""Drawings of one run: learning curves, confidence, lengths, the class mix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankwise.reporting.drawing import Chart, Palette, legend, plain_axes
from rankwise.reporting.run import MOST_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Facts = Mapping[str, Any]


def run_charts(facts: Facts) -> dict[str, Chart]:
    """Every chart the facts of a run allow, by name."""
    charts: list[Chart] = []
    if facts["history"]:
        charts += [_curves(facts, "loss"), _curves(facts, "accuracy")]
    if intervals := _accuracies(facts["result"]["metrics"]):
        charts.append(_intervals(intervals))
    for role in facts["scored"]:
        scores = facts["result"]["metrics"][role]
        charts.append(_reliability(role, scores))
        if role in facts["derived"]["coverage"]:
            charts.append(_coverage(role, facts["derived"]["coverage"][role], scores["accuracy"]))
        if len(scores["per_class"]) <= MOST_CLASSES:
            charts.append(_mix(role, scores))
    if facts["result"].get("texts", {}).get("tokens"):
        charts.append(_lengths(facts["result"]["texts"]["tokens"]))
    return {chart.name: chart for chart in charts}


# --- learning -----------------------------------------------------------------------------------------


def _curves(facts: Facts, kind: str) -> Chart:
    history: Sequence[Mapping[str, Any]] = facts["history"]
    metrics = facts["result"]["metrics"]
    best = metrics.get("validation", {}).get("step") or _best_step(history)
    last = history[-1]["step"]

    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        rate = axes.twinx()
        _learning_rate(rate, history, facts["config"]["train"], palette)
        axes.set_zorder(rate.get_zorder() + 1)
        axes.patch.set_visible(False)
        factor = 100 if kind == "accuracy" else 1
        for who, colour in (("train", palette.second), ("validation", palette.first)):
            points = [
                (row["step"], factor * row[f"{who}_{kind}"]) for row in history if row.get(f"{who}_{kind}") is not None
            ]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=colour, linewidth=2, marker="o", markersize=3.5, label=who)
        _mark(axes, history, f"validation_{kind}", factor, best, last, palette)
        plain_axes(axes, palette)
        axes.set_xlabel("step")
        axes.set_ylabel("accuracy, %" if kind == "accuracy" else "loss, nats")
        axes.margins(y=0.12)
        axes.set_xlim(0, 1.04 * max(1, last))
        legend(axes, palette)

    where = f"the weights kept are those of step {best:g}" if best else "no evaluation was kept"
    return Chart(
        f"curves-{kind}",
        f"{kind.capitalize()} over the steps",
        f"Training and validation {kind} with the learning rate on a second axis; {where}, the last step is {last:g}.",
        draw,
    )


def _best_step(history: Sequence[Mapping[str, Any]]) -> float | None:
    scored = [row for row in history if row.get("validation_accuracy") is not None]
    return max(scored, key=lambda row: row["validation_accuracy"])["step"] if scored else None


def _learning_rate(axes: Axes, history: Sequence[Mapping[str, Any]], train: Facts, palette: Palette) -> None:
    points = _warmup(train, history[-1]["step"]) + [(row["step"], row["learning_rate"] or 0.0) for row in history]
    steps, rates = zip(*sorted(points), strict=True)
    axes.fill_between(steps, rates, color=palette.muted, alpha=0.13, linewidth=0)
    axes.plot(steps, rates, color=palette.muted, alpha=0.55, linewidth=1, linestyle=(0, (3, 2)))
    plain_axes(axes, palette, grid="")
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    axes.yaxis.get_offset_text().set_color(palette.muted)
    axes.yaxis.get_offset_text().set_fontsize(9)
    axes.set_ylim(0, 1.15 * max(rates) if max(rates) > 0 else 1)


def _warmup(train: Facts, last: float) -> list[tuple[float, float]]:
    """Where the rate starts and peaks: known from the configuration, before the first evaluation."""
    ratio, steps = train["warmup_ratio"], train["warmup_steps"]
    warmup = steps if steps is not None else math.ceil((ratio or 0) * (train["steps"] or last))
    return [(0, train["learning_rate"])] if not warmup else [(0, 0.0), (warmup, train["learning_rate"])]


def _mark(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    column: str,
    factor: float,
    best: float | None,
    last: float,
    palette: Palette,
) -> None:
    """A ring around the evaluation whose weights were kept, a word at the last one."""
    at = {row["step"]: row[column] for row in history if row.get(column) is not None}
    if best is not None and best in at:
        axes.plot([best], [factor * at[best]], "o", markersize=10, markerfacecolor="none", markeredgewidth=2,
                  color=palette.good, label="kept")  # fmt: skip
    if last in at and last != best:
        axes.plot([last], [factor * at[last]], "s", markersize=8, markerfacecolor="none", markeredgewidth=1.6,
                  color=palette.muted, label="last")  # fmt: skip


def _accuracies(metrics: Facts) -> list[tuple[str, float, Sequence[float]]]:
    """Name, accuracy and interval of each role, then of the floor on it."""
    roles = {role: scores for role, scores in metrics.items() if "accuracy_ci95" in scores}
    floor = metrics.get("floor", {})
    named = {role.replace("_", " "): scores for role, scores in roles.items()}
    named |= {f"floor, {role}": floor[role] for role in roles if role in floor}
    return [(name, scores["accuracy"], scores["accuracy_ci95"]) for name, scores in named.items()]


def _intervals(found: Sequence[tuple[str, float, Sequence[float]]]) -> Chart:
    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        for place, (_, accuracy, (low, high)) in enumerate(found):
            axes.plot(
                [100 * low, 100 * high],
                [place, place],
                color=palette.first,
                alpha=0.4,
                linewidth=6,
                solid_capstyle="round",
            )
            axes.plot([100 * accuracy], [place], "o", color=palette.first, markersize=9)
        axes.set_yticks(range(len(found)), [role for role, _, _ in found])
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_xlabel("accuracy, %")
        axes.margins(x=0.08)
        plain_axes(axes, palette, grid="x")

    return Chart(
        "intervals",
        "How well the accuracy is known",
        "Accuracy by role with its 95% interval.",
        draw,
        height=0.55 * len(found) + 0.8,
    )


# --- confidence ---------------------------------------------------------------------------------------


def _reliability(role: str, scores: Mapping[str, Any]) -> Chart:
    bins = [entry for entry in scores["reliability"] if entry["count"]]

    def draw(drawn: Figure, palette: Palette) -> None:
        axes, counts = drawn.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot(
            [0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=(0, (3, 2)), label="confidence = accuracy"
        )
        middle = [(entry["low"] + entry["high"]) / 2 for entry in bins]
        width = 0.9 * (bins[0]["high"] - bins[0]["low"]) if bins else 0.06
        axes.bar(middle, [entry["accuracy"] for entry in bins], width, color=palette.first, alpha=0.3)
        axes.plot([entry["confidence"] for entry in bins], [entry["accuracy"] for entry in bins], "o-",
                  color=palette.first, markersize=4.5, linewidth=1.6, label="measured")  # fmt: skip
        axes.set_ylim(0, 1.03)
        axes.set_xlim(0, 1.01)
        axes.set_ylabel("accuracy")
        plain_axes(axes, palette)
        legend(axes, palette)
        counts.bar(middle, [entry["count"] for entry in bins], width, color=palette.muted, alpha=0.5)
        plain_axes(counts, palette, grid="")
        counts.set_yticks([max(entry["count"] for entry in bins)])
        counts.set_ylabel("rows")
        counts.set_xlabel("confidence")

    return Chart(
        f"reliability-{role}",
        f"Reliability on {role} rows",
        f"Accuracy against confidence in bins; the expected calibration error is {scores['ece']:.4f}.",
        draw,
    )


def _coverage(role: str, curve: Sequence[Mapping[str, float]], accuracy: float) -> Chart:
    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        x, y = [100 * point["coverage"] for point in curve], [100 * point["accuracy"] for point in curve]
        axes.plot(x, y, color=palette.third, linewidth=2)
        axes.fill_between(x, y, min(y), color=palette.third, alpha=0.12, linewidth=0)
        axes.plot([100], [100 * accuracy], "o", color=palette.third, markersize=6)
        axes.set_xlabel("rows answered, %")
        axes.set_ylabel("accuracy of those, %")
        axes.set_xlim(0, 102)
        axes.margins(y=0.1)
        plain_axes(axes, palette)

    return Chart(
        f"coverage-{role}",
        f"Accuracy when unsure rows are left out, {role}",
        "Rows are answered from the most confident on; the curve ends at the accuracy on all rows.",
        draw,
    )


# --- texts and classes --------------------------------------------------------------------------------


def _lengths(tokens: Mapping[str, Mapping[str, Any]]) -> Chart:
    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        colours = {"train": palette.second, "validation": palette.first}
        for role, summary in tokens.items():
            points = [(max(1, length), 100 * float(share)) for share, length in summary["quantiles"].items()]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o-", color=colours.get(role, palette.third), linewidth=2, markersize=4, label=role)
        limit = next(iter(tokens.values()))["max_length"]
        axes.axvline(limit, color=palette.bad, linewidth=1.4, linestyle=(0, (4, 2)), label=f"kept: {limit:,}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if str(value)[0] in "25" else "")
        axes.set_xlabel("tokens, logarithmic")
        axes.set_ylabel("texts up to this length, %")
        plain_axes(axes, palette)
        legend(axes, palette)

    return Chart(
        "lengths",
        "Lengths of the texts",
        "Share of texts up to a number of tokens, and the number kept of each.",
        draw,
    )


def _mix(role: str, scores: Mapping[str, Any]) -> Chart:
    names = list(scores["true_mix"])

    def draw(drawn: Figure, palette: Palette) -> None:
        axes = drawn.subplots()
        for place, name in enumerate(reversed(names)):
            true, predicted = 100 * scores["true_mix"][name], 100 * scores["predicted_mix"][name]
            axes.plot(
                [true, predicted], [place, place], color=palette.muted, alpha=0.6, linewidth=3, solid_capstyle="round"
            )
            axes.plot([true], [place], "o", color=palette.ink, markersize=7, label="true" if not place else None)
            axes.plot(
                [predicted], [place], "D", color=palette.first, markersize=6, label=None if place else "predicted"
            )
        axes.set_yticks(range(len(names)), [_cut(name) for name in reversed(names)])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("share of rows, %")
        axes.margins(x=0.08)
        plain_axes(axes, palette, grid="x")
        legend(axes, palette)

    return Chart(
        f"mix-{role}",
        f"Class mix on {role} rows",
        "Share of rows that carry each class, and share of rows predicted to.",
        draw,
        height=max(2.0, 0.42 * len(names) + 0.9),
    )


def _cut(name: str, width: int = 22) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
