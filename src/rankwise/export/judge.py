"""A lossy artefact beside the classifier it was made of, on the run's validation rows."""

from __future__ import annotations

from dataclasses import dataclass

from rankwise import data
from rankwise.export.subject import Floats
from rankwise.inference.saved import SavedClassifier
from rankwise.scoring.decisions import decide
from rankwise.scoring.intervals import Interval
from rankwise.scoring.judged import right
from rankwise.scoring.paired import bootstrap_difference

LEAST_AGREEMENT = 0.995
MOST_LOST_POINTS = 0.3


@dataclass(frozen=True)
class Judgement:
    """What an artefact answers beside the classifier, on the same rows; shares, and percentage points of accuracy."""

    name: str
    rows: int
    agreement: float
    accuracy_before: float
    accuracy: float
    points: float
    points_ci95: Interval
    texts_per_s: float
    bytes: int

    @property
    def passes(self) -> bool:
        """Whether it may stand for the classifier."""
        return self.agreement >= LEAST_AGREEMENT and self.points >= -MOST_LOST_POINTS

    def told(self) -> str:
        """One line."""
        low, high = self.points_ci95
        return (
            f"{self.name}: the same answer for {100 * self.agreement:.2f}% of {self.rows:,} validation rows, accuracy "
            f"{100 * self.accuracy_before:.2f} -> {100 * self.accuracy:.2f}% ({self.points:+.2f} points, "
            f"95% interval {low:+.2f} to {high:+.2f}), {self.texts_per_s:,.0f} texts/s, {self.bytes / 1e6:.1f} MB"
        )


def judge(
    name: str,
    before: Floats,
    after: Floats,
    rows: data.Rows,
    *,
    saved: SavedClassifier,
    texts_per_s: float,
    size: int,
) -> Judgement:
    """before, after: logits. Shape: (rows, classes)"""
    several = rows.labels.ndim == 2
    first, second = (decide(saved.decision, each, saved.label_names, multi_label=several) for each in (before, after))
    same, was, now = right(first, second), right(first, rows.labels), right(second, rows.labels)
    only_before, only_after = int((was & ~now).sum()), int((now & ~was).sum())
    low, high = bootstrap_difference(only_before, only_after, len(rows))
    return Judgement(
        name=name,
        rows=len(rows),
        agreement=float(same.mean()),
        accuracy_before=float(was.mean()),
        accuracy=float(now.mean()),
        points=100 * (only_after - only_before) / len(rows),
        points_ci95=(100 * low, 100 * high),
        texts_per_s=texts_per_s,
        bytes=size,
    )
