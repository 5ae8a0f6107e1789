"""search.json: what a search's folder says of its trials and its winner."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from rankwise.records.record import Record, Tree, Upgrade
from rankwise.records.result import GoalScore, Interval, Refit, Scores

RECORD, COPY, FLOORS = "search.json", "search.yaml", "floors"
"""in a search's folder: this file, the search file written out, and what `auto` fitted before its search"""
Point = dict[str, Any]
"""an axis's name to its value"""


class SearchRow(Record, kw_only=True):
    """A configuration in the table, all its seeds together.

    peak, chosen, final
        Validation accuracy: the highest of all evaluations, at the kept checkpoint, and at the last step.
    mean, sd
        Of the search's metric over seeds.
    """

    trial: int
    point: Point = {}
    status: str = ""
    why: str | int | None = None
    trainable: int | None = None
    rank: int | None = None
    steps: int = 0
    peak: float | None = None
    chosen: float | None = None
    chosen_ci95: Interval | None = None
    final: float | None = None
    loss: float | None = None
    macro_f1: float | None = None
    seeds: int = 0
    mean: float | None = None
    sd: float | None = None
    in_best_group: bool = False


class Finalist(Record, kw_only=True):
    """A configuration repeated under other seeds, against the winner, in points of accuracy."""

    trial: int
    point: Point = {}
    seeds: int = 0
    mean: float | None = None
    sd: float | None = None
    points_from_winner: float = 0.0
    points_ci95: Interval = (0.0, 0.0)


class TrialRecord(Record, kw_only=True):
    """A trial as it went. `run` is its folder within the search's, None where it was never started."""

    trial: int
    run: str | None = None
    point: Point = {}
    round: int = 0
    status: str = ""
    why: str | int | None = None
    seed: int = 0
    repeats: int | None = None
    config_hash: str | None = None
    total_steps: int = 0
    steps: int = 0
    rungs: list[dict[str, float]] = []
    seconds: float = 0.0


class TestLook(Record, kw_only=True):
    """The headline figures of test rows; `looks`, `drawn_from` and `goal` as in `Scores`."""

    OMITTED: ClassVar[tuple[str, ...]] = ("looks_all", "drawn_from", "goal")

    examples: int
    accuracy: float
    accuracy_ci95: Interval
    loss: float
    macro_f1: float
    looks: int = 1
    looks_all: int | None = None
    drawn_from: int | None = None
    goal: GoalScore | None = None


class Winner(Record, kw_only=True):
    """The chosen trial. `run` is its folder within the search's; `test` its one look at the test rows. A floor of `auto` is
    no trial.

    loss
        Validation's, where it was compared with the floors'.
    steps
        Of a run that `auto` made of the winner's design after the search.
    refit
        On all rows, after the scores.
    alone
        Folder of the run without the words that answer beside it.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("loss", "steps", "refit", "alone")

    run: str
    trial: int | None = None
    point: Point = {}
    trainable: int | None = None
    rank: int | None = None
    peak: float
    chosen: float
    chosen_ci95: Interval
    final: float
    mean: float | None = None
    sd: float | None = None
    seeds: int = 0
    loss: float | None = None
    steps: int | None = None
    refit: Refit | None = None
    alone: str | None = None
    test: TestLook | None = None

    @classmethod
    def at_once(cls, run: str, design: str, scores: Scores, mean: float, trainable: int | None) -> Winner:
        """One that was scored at its end alone, in no trial."""
        return cls(
            run=run,
            point={"design": design},
            trainable=trainable,
            peak=scores.accuracy,
            chosen=scores.accuracy,
            chosen_ci95=scores.accuracy_ci95,
            final=scores.accuracy,
            mean=mean,
            loss=scores.loss,
            seeds=1,
        )


class Effect(Record, kw_only=True):
    """A value of an axis, and the mean score of the whole runs there."""

    value: str | int | float | bool | None = None
    mean: float = 0.0
    trials: int = 0


class FoldsScore(Record, kw_only=True):
    """What cross-validation said of a design that competed where rows are few.

    steps
        Of its run, where the folds chose among lengths.
    value
        What the goal came to, where that is not the accuracy.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("steps", "value")

    design: str
    steps: int | None = None
    seconds: float = 0.0
    examples: int
    accuracy: float
    accuracy_ci95: Interval
    loss: float
    macro_f1: float
    value: float | None = None


class AutoRecord(Record, kw_only=True):
    """What `auto` found and planned before it made the search, and said of it.

    speed, schedule
        As `search.clock.speed.Speed` and `search.clock.plan.ClockPlan` have it; None where nothing was trained.
    max_ms
        Milliseconds that one text of the median length may take.
    forecast
        Minutes and peak_mb, as they were expected before anything was trained.
    more
        What twice the labels would bring, in words.
    floors
        What was solved at once.
    folds
        The contenders, where rows were too few to hold some out.
    planned_lines
        How many of the lines were on the console before the end.
    explanation
        The lines that were printed.
    """

    OMITTED: ClassVar[tuple[str, ...]] = (
        "max_params",
        "max_ms",
        "speed",
        "schedule",
        "floors",
        "folds",
        "planned_lines",
    )

    max_params: str | int | None = None
    max_ms: float | None = None
    max_minutes: float = 0.0
    minutes: float | None = None
    peak_mb: float | None = None
    forecast: dict[str, float] | None = None
    more: str | None = None
    speed: dict[str, float] | None = None
    schedule: dict[str, int | float | bool] | None = None
    floors: list[Winner] = []
    folds: list[FoldsScore] = []
    planned_lines: int | None = None
    explanation: list[str] = []


class Counts(Record, kw_only=True):
    """How many points there were, what became of them, and the steps of all."""

    points: int = 0
    done: int = 0
    halved: int = 0
    refused: int = 0
    duplicate: int = 0
    failed: int = 0
    steps: int = 0


class SearchTiming(Record, kw_only=True):
    """Seconds of the session that ended the search."""

    session_s: float = 0.0


def _standing(tree: Tree) -> None:
    """Version 1 did not always say how a search stood."""
    tree.setdefault("status", "finished" if tree.get("winner") else "unfinished")


class SearchRecord(Record, kw_only=True):
    """The contents of search.json.

    table
        Configurations, best first.
    strategy, halving
        The search file's own sections.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("auto", "timing")
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = (_standing,)

    version: int = 2
    status: str = "running"
    metric: str = "accuracy"
    strategy: Tree = {}
    halving: Tree | None = None
    axes: list[str] = []
    counts: Counts = msgspec.field(default_factory=Counts)
    table: list[SearchRow] = []
    groups: list[list[int]] = []
    finalists: list[Finalist] = []
    effects: dict[str, list[Effect]] = {}
    notes: list[str] = []
    winner: Winner | None = None
    trials: list[TrialRecord] = []
    timing: SearchTiming | None = None
    auto: AutoRecord | None = None
