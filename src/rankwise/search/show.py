"""A finished search for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.scoring import report

_MOST_ROWS = 40


def text(record: Mapping[str, Any], width: int = 110) -> str:
    """The table with its groups, the finalists over their seeds, the notes and the winner."""
    counts = record["counts"]
    head = f"{counts['points']} points: {counts['done']} run to the end"
    head += "".join(
        f", {counts[state]} {state}" for state in ("halved", "refused", "duplicate", "failed") if counts[state]
    )
    parts = [f"{head}; {counts['steps']:,} steps in all", _table(record, width)]
    parts.append(
        "* not distinguishable from the best (McNemar exact, Holm over all pairs, 5%); chosen: at the kept checkpoint"
    )
    if record["finalists"]:
        parts.append(_finalists(record, width))
    parts += [f"note: {note}" for note in record["notes"]]
    parts.append(_winner(record["winner"]))
    return "\n\n".join(parts)


def _table(record: Mapping[str, Any], width: int) -> str:
    rows = []
    started = [row for row in record["table"] if row["status"] not in ("refused", "duplicate")]
    for row in started[:_MOST_ROWS]:
        interval = row["chosen_ci95"]
        rows.append(
            [
                ("* " if row["in_best_group"] else "- ") + f"{row['trial']} {described(row['point'])}",
                f"{row['rank'] or '-'}",
                f"{row['trainable']:,}",
                f"{row['steps']:,}",
                *(_percent(row[name]) for name in ("peak", "chosen")),
                f"{100 * interval[0]:.2f}-{100 * interval[1]:.2f}" if interval else row["status"],
                _percent(row["final"]),
            ]
        )
    if len(started) > _MOST_ROWS:
        rows.append([f"  ... {len(started) - _MOST_ROWS} more in search.json", *[""] * 7])
    header = ["trial", "rank", "trainable", "steps", "peak", "chosen", "(95%)", "final"]
    return report.table(header, rows, width)


def _finalists(record: Mapping[str, Any], width: int) -> str:
    rows = [
        [
            f"{row['trial']} {described(row['point'])}",
            f"{row['seeds']}",
            f"{row['mean']:.4f}",
            "-" if row["sd"] is None else f"{row['sd']:.4f}",
            f"{row['points_from_winner']:+.2f}",
            f"{row['points_ci95'][0]:+.2f} to {row['points_ci95'][1]:+.2f}",
        ]
        for row in record["finalists"]
    ]
    header = ["finalist", "seeds", "mean", "sd", "points from winner", "(95%, bootstrap over rows)"]
    return report.table(header, rows, width)


def _winner(winner: Mapping[str, Any]) -> str:
    low, high = winner["chosen_ci95"]
    lines = [
        f"winner: trial {winner['trial']}, {described(winner['point'])}; {winner['trainable']:,} trainable, "
        f"validation accuracy {winner['chosen']:.4f} (95% {low:.4f} to {high:.4f})"
    ]
    test = winner.get("test")
    if test:
        low, high = test["accuracy_ci95"]
        lines.append(
            f"test accuracy {test['accuracy']:.4f} (95% {low:.4f} to {high:.4f}, {test['examples']:,} rows, look {test['looks']})"
        )
    lines.append(f"run: {winner['run']} in the search's folder")
    return "\n".join(lines)


def described(point: Mapping[str, Any]) -> str:
    """A point in words; keys by their last part."""
    words = [
        f"{name.rpartition('.')[2]} {value:g}" if _is_number(value) else f"{name.rpartition('.')[2]} {value}"
        for name, value in point.items()
    ]
    return ", ".join(words) or "the base"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
