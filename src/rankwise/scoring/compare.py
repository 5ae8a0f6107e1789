"""Finished runs compared on the rows they were both scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError
from rankwise.records.record import Tree
from rankwise.records.result import Interval
from rankwise.scoring import paired, predictions, report
from rankwise.scoring.intervals import wilson
from rankwise.scoring.predictions import Predictions


@dataclass(frozen=True)
class Right:
    """How many rows a run has right."""

    name: str
    correct: int
    accuracy: float
    accuracy_ci95: Interval


@dataclass(frozen=True)
class Answer:
    """What a run predicts of a row."""

    label: str
    confidence: float
    correct: bool


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A row that some runs have right and others wrong. `text` is left out where texts were not asked for."""

    row: int
    id: str | int
    label: str
    text: str | msgspec.UnsetType = msgspec.UNSET
    predicted: dict[str, Answer]


@dataclass(frozen=True)
class Comparison:
    """Runs on the same rows, with every pair tested.

    `best` holds the names of the runs not distinguishable from the most accurate one, best first; `agreement`
    the share of rows on which two runs predict the same, shape (runs, runs).
    """

    role: str
    names: list[str]
    runs: list[Predictions]
    pairs: list[paired.Pair]
    best: list[str]
    agreement: NDArray[np.float64]

    def disagreements(self, limit: int = 20, texts: Callable[[int], str] | None = None) -> list[Disagreement]:
        """Rows that some runs have right and others wrong, the most confident mistakes first.

        Args:
            limit: the most to give.
            texts: gives the text of a row number; without it only ids are given.
        """
        correct = np.stack([run.correct for run in self.runs])
        confidence = np.stack([run.confidence for run in self.runs])
        boldest = np.where(correct, -1.0, confidence).max(axis=0)
        split = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
        rows = split[np.argsort(-boldest[split], kind="stable")][:limit]
        return [self._example(int(row), texts) for row in rows]

    def to_dict(self, limit: int = 20, texts: Callable[[int], str] | None = None) -> Tree:
        """Plain values for JSON, with at most `limit` disagreements."""
        tree: Tree = msgspec.to_builtins(self._parts(limit, texts))
        return tree

    def _parts(self, limit: int, texts: Callable[[int], str] | None) -> Mapping[str, object]:
        return {
            "role": self.role,
            "rows": len(self.runs[0].ids),
            "rows_sha256": self.runs[0].rows_sha256,
            "runs": [_right(name, run) for name, run in zip(self.names, self.runs, strict=True)],
            "best": self.best,
            "pairs": self.pairs,
            "agreement": self.agreement.tolist(),
            "disagreements": self.disagreements(limit, texts),
        }

    def text(self, limit: int = 5, texts: Callable[[int], str] | None = None, width: int = report.WIDTH) -> str:
        """The comparison for a terminal."""
        parts = [
            f"{len(self.names)} runs on the same {len(self.runs[0].ids):,} {self.role} rows",
            self._runs_text(width),
            self._pairs_text(width),
            "not distinguishable from the best (McNemar exact, Holm over all pairs, 5%): " + ", ".join(self.best),
        ]
        examples = self.disagreements(limit, texts)
        if examples:
            lines = [self._example_text(example, width) for example in examples]
            parts.append("\n".join(["rows they disagree on, the most confident mistakes first:", *lines]))
        return "\n\n".join(parts)

    def _example(self, row: int, texts: Callable[[int], str] | None) -> Disagreement:
        first = self.runs[0]
        return Disagreement(
            row=row,
            id=first.ids[row],
            label=_answer(first, first.labels[row]),
            text=msgspec.UNSET if texts is None else texts(row),
            predicted={
                name: Answer(_answer(run, run.predicted[row]), float(run.confidence[row]), bool(run.correct[row]))
                for name, run in zip(self.names, self.runs, strict=True)
            },
        )

    def _runs_text(self, width: int) -> str:
        rows = []
        for place, (name, run) in enumerate(zip(self.names, self.runs, strict=True), start=1):
            figures = _right(name, run)
            low, high = figures.accuracy_ci95
            shares = [f"{100 * figures.accuracy:.2f}%", f"{100 * low:.2f}-{100 * high:.2f}"]
            rows.append([f"{place} {name}", *shares, f"{figures.correct:,}"])
        return report.table(["run", "accuracy", "(95%)", "right"], rows, width)

    def _pairs_text(self, width: int) -> str:
        place = {name: i for i, name in enumerate(self.names, start=1)}
        rows = [
            [
                f"{place[pair.b]} - {place[pair.a]}",
                f"{pair.effect_rows:+,}",
                f"{pair.points:+.2f}",
                f"{pair.points_ci95[0]:+.2f} to {pair.points_ci95[1]:+.2f}",
                f"{pair.only_b:,} : {pair.only_a:,}",
                _probability(pair.p),
                _probability(pair.p_holm),
            ]
            for pair in self.pairs
        ]
        header = ["pair", "rows", "points", "(95%)", "right alone", "p", "p Holm"]
        return report.table(header, rows, width)

    def _example_text(self, example: Disagreement, width: int) -> str:
        answers = "  ".join(
            f"{place} {given.label} {given.confidence:.2f}"
            for place, given in enumerate(example.predicted.values(), start=1)
        )
        line = report.cut(f"{example.id}: {example.label}; predicted  {answers}", width - 2)
        shown = "" if isinstance(example.text, msgspec.UnsetType) else f"\n    {report.cut(example.text, width - 4)}"
        return f"  {line}{shown}"


def _right(name: str, run: Predictions) -> Right:
    correct, rows = int(run.correct.sum()), len(run.ids)
    return Right(name, correct, correct / rows, wilson(correct, rows))


def run(run_folders: Sequence[Path], role: str = "test") -> Comparison:
    """Compare finished runs by their prediction files for a role.

    Raises: UserError: fewer than two runs, one named twice, predictions missing, or runs scored on different rows
    or classes (the message says which).
    """
    folders = [Path(folder) for folder in run_folders]
    if len(folders) < 2:
        raise UserError(f"a comparison needs two or more runs, got {len(folders)}")
    names = _names(folders)
    found = [predictions.read(folder, role) for folder in folders]
    _check_same_rows(names, found, role)
    found = [found[0], *(_in_order(other, found[0].label_names) for other in found[1:])]
    _check_same_labels(names, found, role)
    correct = np.stack([one.correct for one in found])
    return Comparison(
        role=role,
        names=names,
        runs=found,
        pairs=paired.compare_all(correct, names),
        best=[names[i] for i in paired.best_group(correct)],
        agreement=paired.agreement(np.stack([one.predicted for one in found])),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where those differ, else their paths."""
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise UserError(f"{folders[place]} is named twice: a run cannot be compared with itself")
    short = [folder.name for folder in resolved]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _check_same_rows(names: Sequence[str], found: Sequence[Predictions], role: str) -> None:
    first = found[0]
    other = [
        place
        for place, one in enumerate(found)
        if one.rows_sha256 != first.rows_sha256 or one.ids != first.ids or one.multi_label != first.multi_label
    ]
    if other:
        described = ", ".join(f"{names[i]} ({_rows(found[i])})" for i in other)
        raise UserError(
            f"runs can only be compared on the same {role} rows: {described} was scored on other rows than "
            f"{names[0]} ({_rows(first)}); evaluate them with the same data.{role}"
        )


def _check_same_labels(names: Sequence[str], found: Sequence[Predictions], role: str) -> None:
    for name, one in zip(names, found, strict=True):
        if not np.array_equal(one.labels, found[0].labels):
            raise UserError(
                f"{name} was scored against other labels of the {role} rows than {names[0]}: "
                f"evaluate them with the same data.{role}"
            )


def _rows(one: Predictions) -> str:
    return f"{len(one.ids):,} rows, sha256 {one.rows_sha256[:12]}"


def _in_order(one: Predictions, label_names: list[str]) -> Predictions:
    """The same predictions with the classes numbered in another run's order."""
    if one.label_names == label_names:
        return one
    if set(one.label_names) != set(label_names):
        difference = sorted(set(one.label_names) ^ set(label_names))
        raise UserError(f"the runs tell different classes apart: {', '.join(difference)} is not known to all of them")
    # place[new] = old column; number[old] = new class number.
    place = np.array([one.label_names.index(name) for name in label_names])
    number = np.argsort(place)
    if one.multi_label:
        labels, predicted = one.labels[:, place], one.predicted[:, place]
    else:
        labels, predicted = number[one.labels], number[one.predicted]
    return replace(
        one,
        label_names=label_names,
        labels=labels,
        predicted=predicted,
        probabilities=one.probabilities[:, place],
        logits=one.logits[:, place],
    )


def _answer(one: Predictions, number: Any) -> str:
    if one.multi_label:
        return "|".join(one.label_names[c] for c in np.flatnonzero(number))
    return one.label_names[int(number)]


def _probability(p: float) -> str:
    if p < 1e-99:
        return "<1e-99"
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
