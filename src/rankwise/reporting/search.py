"""The facts of a search's folder: its trials, what tells them apart, and what they cost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankwise.errors import UserError
from rankwise.records import SearchRecord, SearchRow, TrialRecord, read
from rankwise.records.record import Tree
from rankwise.records.search import COPY, RECORD

# A matrix or a bar chart of more trials could not be read; tables hold them all.
MOST_BARS = 20
MOST_COMPARED = 12
# Above this many different numbers an axis is shown as a line from low to high, and by quarters.
MOST_VALUES = 8


def facts_of(folder: Path) -> Tree:
    """Everything a search's page shows. Trials are the rows of search.json's table, which has the best first."""
    search = read(folder / RECORD, SearchRecord)
    rows, winner = search.table, search.winner
    runs = {trial.trial: trial for trial in search.trials}
    varied = _varied(rows)
    seconds = [runs[row.trial].seconds or None if row.trial in runs else None for row in rows]
    compared = _compared(folder, rows, runs)
    known = [spent for spent in seconds if spent]
    return {
        "name": folder.resolve().name,
        "path": str(folder),
        "search": search.to_dict(),
        "rows": rows,
        "words": words,
        "varied": varied,
        "winner": next((i for i, row in enumerate(rows) if winner and row.trial == winner.trial), None),
        "best": {i for i, row in enumerate(rows) if row.in_best_group},
        "compared": compared,
        "least_agreement": min((share for line in compared["agreement"] for share in line), default=1.0),
        "derived": {
            "trials": len(rows),
            "statuses": _statuses(rows),
            "cost": [{"seconds": spent} for spent in seconds],
            "seconds": sum(known) if known else None,
            "by_value": {key: _by_value(rows, key) for key in varied},
            "agreement": compared["agreement"],
        },
        "commands": _commands(folder, search),
        "sections": _sections(varied, compared),
    }


def _varied(rows: Sequence[SearchRow]) -> list[str]:
    """The keys whose values differ from trial to trial, in the order they first appear."""
    keys = dict.fromkeys(key for row in rows for key in row.point)
    return [key for key in keys if len({str(row.point.get(key)) for row in rows}) > 1]


def _statuses(rows: Sequence[SearchRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return counts


def _by_value(rows: Sequence[SearchRow], key: str) -> list[Tree]:
    """For each value of an axis, or each quarter of many numbers: trials with a score, their best and mean."""
    scored = [(row.point[key], row.chosen) for row in rows if key in row.point and row.chosen is not None]
    numbers = [value for value, _ in scored if is_number(value)]
    found: dict[str, list[float]] = {}
    if len(numbers) == len(scored) and len(set(numbers)) > MOST_VALUES:
        scored.sort(key=lambda item: item[0])
        size = -(-len(scored) // 4)
        for start in range(0, len(scored), size):
            part = scored[start : start + size]
            found[f"{words(part[0][0])} to {words(part[-1][0])}"] = [score for _, score in part]
    else:
        for value, score in sorted(scored, key=lambda item: natural(words(item[0]))):
            found.setdefault(words(value), []).append(score)
    return [
        {"value": value, "trials": len(scores), "best": max(scores), "mean": sum(scores) / len(scores)}
        for value, scores in found.items()
    ]


def is_number(value: Any) -> bool:
    """Whether an axis's value has a place on a line."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, words after them."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def words(value: Any) -> str:
    """A value of an axis as a short text."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _compared(folder: Path, rows: Sequence[SearchRow], runs: Mapping[int, TrialRecord]) -> Tree:
    """On what share of their validation rows the best trials agree, where predictions were kept."""
    from rankwise.scoring import compare, predictions

    places, folders = [], []
    for place, row in enumerate(rows):
        run = runs[row.trial].run if row.trial in runs else None
        if run and row.status == "done" and predictions.path_of(folder / run, "validation").is_file():
            places.append(place)
            folders.append(folder / run)
    places, folders = places[:MOST_COMPARED], folders[:MOST_COMPARED]
    if len(places) < 2:
        return {"trials": [], "agreement": [], "why_not": None}
    try:
        agreement = compare.run(folders, "validation").agreement.tolist()
    except UserError as error:
        return {"trials": [], "agreement": [], "why_not": str(error)}
    return {"trials": places, "agreement": agreement, "why_not": None}


def _commands(folder: Path, search: SearchRecord) -> list[dict[str, str]]:
    source = folder / COPY
    commands = []
    if source.is_file():
        again = ["rankwise", "search", str(source), "--out", f"{folder}-again"]
        commands = [{"what": "search again", "command": shlex.join(again)}]
        if not search.winner:
            resume = ["rankwise", "search", str(source), "--out", str(folder), "--resume"]
            commands.insert(0, {"what": "go on where it stopped", "command": shlex.join(resume)})
    if search.winner:
        evaluate = ["rankwise", "evaluate", str(folder)]
        commands.append({"what": "score the winner on test rows", "command": shlex.join(evaluate)})
    return commands


def _sections(varied: Sequence[str], compared: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [("scores", "Scores")]
    parts += [("axes", "Axes")] if varied else []
    parts += [("groups", "Groups")] if compared["trials"] or compared["why_not"] else []
    return [*parts, ("again", "Run it again")]
