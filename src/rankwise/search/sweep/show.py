"""A finished search for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.records import SearchRecord, SearchRow, Winner
from rankwise.scoring import looks, report
from rankwise.scoring.goals import goal_of

_MOST_ROWS = 40


def text(record: SearchRecord, width: int = 110) -> str:
    """The table with its groups, the finalists over their seeds, the notes and the winner.

    width
        Columns of the terminal.
    """
    counts = record.counts
    head = f"{counts.points} points: {counts.done} run to the end"
    head += "".join(
        f", {getattr(counts, state)} {state}"
        for state in ("halved", "refused", "duplicate", "failed")
        if getattr(counts, state)
    )
    parts = [f"{head}; {counts.steps:,} steps in all", _table(record, width)]
    metric = record.metric
    test = "McNemar exact" if metric == "accuracy" else f"bootstrap of {metric.replace('_', ' ')}"
    parts.append(
        f"* not distinguishable from the winner ({test}, Holm over all pairs, 5%); chosen: at the kept checkpoint"
    )
    if record.finalists:
        parts.append(_finalists(record, width))
    parts += [f"note: {note}" for note in record.notes]
    parts += [_winner(record.winner)] if record.winner is not None else []
    return "\n\n".join(parts)


def _table(record: SearchRecord, width: int) -> str:
    rows, metric = [], record.metric
    started = [row for row in record.table if row.status not in ("refused", "duplicate")]
    # Where every point says something of every axis, the axes are named once.
    named = all(row.point.keys() >= set(record.axes) for row in started)
    axes = ", ".join(name.rpartition(".")[2] for name in record.axes)
    for row in started[:_MOST_ROWS]:
        point = ", ".join(_value(row.point[name]) for name in record.axes) if named else described(row.point)
        interval = row.chosen_ci95
        rows.append(
            [
                ("* " if row.in_best_group else "- ") + f"{row.trial} {point}",
                f"{row.rank or '-'}",
                f"{row.trainable:,}",
                f"{row.steps:,}",
                *(_percent(getattr(row, name)) for name in ("peak", "chosen")),
                f"{100 * interval[0]:.2f}-{100 * interval[1]:.2f}" if interval else row.status,
                _percent(row.final),
                *([_metric(row, metric)] if metric != "accuracy" else []),
            ]
        )
    header = [f"trial: {axes}" if named else "trial", "rank", "trainable", "steps", "peak", "chosen", "(95%)", "final"]
    header += [metric.replace("_", " ")] if metric != "accuracy" else []
    if len(started) > _MOST_ROWS:
        rows.append([f"  ... {len(started) - _MOST_ROWS} more in search.json", *[""] * (len(header) - 1)])
    return report.table(header, rows, width)


def _finalists(record: SearchRecord, width: int) -> str:
    rows = [
        [
            f"{row.trial} {described(row.point)}",
            f"{row.seeds}",
            f"{row.mean:.4f}",
            "-" if row.sd is None else f"{row.sd:.4f}",
            f"{row.points_from_winner:+.2f}",
            f"{row.points_ci95[0]:+.2f} to {row.points_ci95[1]:+.2f}",
        ]
        for row in record.finalists
    ]
    header = ["finalist", "seeds", "mean", "sd", "points from winner", "(95%, bootstrap over rows)"]
    return report.table(header, rows, width)


def _winner(winner: Winner) -> str:
    low, high = winner.chosen_ci95
    lines = [
        f"winner: trial {winner.trial}, {described(winner.point)}; {winner.trainable:,} trainable, "
        f"validation accuracy {winner.chosen:.4f} (95% {low:.4f} to {high:.4f})"
    ]
    test = winner.test
    if test:
        low, high = test.accuracy_ci95
        drawn = "" if test.drawn_from is None else f" of {test.drawn_from:,}, drawn by chance"
        lines.append(
            f"test accuracy {test.accuracy:.4f} (95% {low:.4f} to {high:.4f}, {test.examples:,} rows{drawn}); "
            f"{looks.sentence(test.looks, test.looks_all)}"
        )
    lines.append(f"run: {winner.run} in the search's folder")
    return "\n".join(lines)


def described(point: Mapping[str, Any]) -> str:
    """A point in words; keys by their last part."""
    words = [f"{name.rpartition('.')[2]} {_value(value)}" for name, value in point.items()]
    return ", ".join(words) or "the base"


def _value(value: Any) -> str:
    """A value of an axis; numbers without idle zeros."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _metric(row: SearchRow, name: str) -> str:
    """What the search was judged by, where that is not the accuracy."""
    value = getattr(row, name, row.mean)
    return "-" if value is None else f"{value:.4f}" if goal_of(name).lower_is_better else _percent(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
