"""Judging a search: order, groups that the rows cannot tell apart, and what search.json says.

Every choice is made by validation rows. Peak, chosen and final scores stand side by side, because the peak of many
evaluations flatters and the papers quoted it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from rankwise.errors import UserError
from rankwise.records.search import Counts, Effect, Finalist, SearchRecord, SearchRow, TrialRecord, Winner
from rankwise.scoring import paired, predictions
from rankwise.scoring.goals import PLAIN, goal_of
from rankwise.scoring.intervals import bootstrap
from rankwise.scoring.predictions import Predictions
from rankwise.search.sweep.space import Space
from rankwise.search.sweep.spec import Search
from rankwise.search.sweep.study import Trial


def better_first(trials: Sequence[Trial], metric: str, rung: int | None = None) -> list[Trial]:
    """Trials from best to worst; ties go to the lower loss, then to the earlier trial.

    metric
        The name of a score (`Outcome.scores`); losses are better the lower they are.
    rung
        Compare the scores that were reached at this rung; None compares the last ones.
    """

    def key(trial: Trial) -> tuple[float, float, int]:
        scores = trial.scores_at(rung)
        value = scores.get(metric, math.nan)
        worst = math.inf
        lower = metric == "last_loss" or goal_of(metric).lower_is_better
        ordered = worst if value != value else value if lower else -value
        loss = scores.get("loss", math.nan)
        return ordered, worst if loss != loss else loss, trial.number

    return sorted(trials, key=key)


def best_of(trials: Sequence[Trial], metric: str) -> Trial | None:
    """The best whole run so far, else the best of those under way."""
    scored = [t for t in trials if t.status != "failed" and t.outcome is not None and t.outcome.scores]
    whole = [trial for trial in scored if trial.status == "done"]
    return next(iter(better_first(whole or scored, metric)), None)


@dataclass
class Judged:
    """A search with what its rows say; before its end there are neither groups nor a winner."""

    spec: Search
    space: Space
    trials: list[Trial]
    group: list[int] = field(default_factory=list)
    """trials not distinguishable from the best one, best first"""
    finalists: list[Finalist] = field(default_factory=list)
    winner: Trial | None = None
    notes: list[str] = field(default_factory=list)

    def record(self, status: str) -> SearchRecord:
        """The contents of search.json."""
        return SearchRecord(
            status=status,
            metric=self.spec.metric,
            strategy=msgspec.to_builtins(self.spec.strategy),
            halving=msgspec.to_builtins(self.spec.halving),
            axes=[axis.name for axis in self.space.axes],
            counts=self._counts(),
            table=self.table(),
            groups=[self.group] if self.group else [],
            finalists=self.finalists,
            effects=self._effects(),
            notes=self.notes,
            winner=self._winner(),
            trials=[self._trial(trial) for trial in self.trials],
        )

    def table(self) -> list[SearchRow]:
        """One row a configuration, best first: whole runs, then those halved, then the rest."""
        first = [trial for trial in self.trials if trial.repeats is None]
        whole = better_first([t for t in first if t.is_whole], self.spec.metric)
        begun = [t for t in first if t.status not in ("done", "refused", "duplicate")]
        # Of those cut short, who came further came first.
        begun = sorted(better_first(begun, self.spec.metric), key=lambda t: -(t.outcome.step if t.outcome else 0))
        rest = [t for t in first if not t.is_started]
        return [self._row(trial) for trial in (*whole, *begun, *rest)]

    def _row(self, trial: Trial) -> SearchRow:
        outcome = trial.outcome
        scores = outcome.scores if outcome else {}
        values = [t.outcome.scores[self.spec.metric] for t in self._runs_of(trial) if t.outcome and t.outcome.scores]
        return SearchRow(
            trial=trial.number,
            point=trial.point,
            status=trial.status,
            why=trial.why,
            trainable=trial.trainable,
            rank=trial.rank,
            steps=outcome.step if outcome else 0,
            peak=outcome.peak if outcome else None,
            chosen=scores.get("accuracy"),
            chosen_ci95=outcome.interval if outcome else None,
            final=outcome.final if outcome else None,
            loss=scores.get("loss"),
            macro_f1=scores.get("macro_f1"),
            seeds=len(values),
            mean=float(np.mean(values)) if values else None,
            sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            in_best_group=trial.number in self.group,
        )

    def _runs_of(self, trial: Trial) -> list[Trial]:
        """A configuration's whole runs, one a seed."""
        return [t for t in self.trials if t.status == "done" and trial.number in (t.number, t.repeats)]

    def _trial(self, trial: Trial) -> TrialRecord:
        """A trial as it went, timing included."""
        outcome = trial.outcome
        return TrialRecord(
            trial=trial.number,
            run=trial.folder if trial.is_started else None,
            point=trial.point,
            round=trial.round,
            status=trial.status,
            why=trial.why,
            seed=trial.seed,
            repeats=trial.repeats,
            config_hash=trial.config_hash,
            total_steps=trial.total_steps,
            steps=outcome.step if outcome else 0,
            rungs=trial.rungs,
            seconds=round(outcome.seconds, 2) if outcome else 0.0,
        )

    def _counts(self) -> Counts:
        statuses = Counter(trial.status for trial in self.trials)
        return Counts(
            points=len(self.trials),
            done=statuses["done"],
            halved=statuses["halved"],
            refused=statuses["refused"],
            duplicate=statuses["duplicate"],
            failed=statuses["failed"],
            steps=sum(trial.outcome.step for trial in self.trials if trial.outcome),
        )

    def _effects(self) -> dict[str, list[Effect]]:
        """For each listed axis: the mean score of the whole runs at each of its values."""
        whole = [t for t in self.trials if t.is_whole and t.outcome]
        effects: dict[str, list[Effect]] = {}
        for axis in self.space.axes if self.spec.strategy.name in ("grid", "factorial") else ():
            rows = []
            for value in axis.settings:
                scores = [
                    t.outcome.scores[self.spec.metric] for t in whole if t.outcome and t.point[axis.name] == value
                ]
                if scores:
                    rows.append(Effect(value=value, mean=float(np.mean(scores)), trials=len(scores)))
            effects[axis.name] = rows
        return effects

    def _winner(self) -> Winner | None:
        if self.winner is None:
            return None
        row = self._row(self.winner)
        assert row.peak is not None
        assert row.chosen is not None
        assert row.chosen_ci95 is not None
        assert row.final is not None
        return Winner(
            run=self.winner.folder,
            trial=row.trial,
            point=row.point,
            trainable=row.trainable,
            rank=row.rank,
            peak=row.peak,
            chosen=row.chosen,
            chosen_ci95=row.chosen_ci95,
            final=row.final,
            mean=row.mean,
            sd=row.sd,
            seeds=row.seeds,
        )


def judge(spec: Search, space: Space, trials: list[Trial], folder: Path) -> Judged:
    """The finished search with groups, finalists, winner and notes.

    Raises: UserError when no trial was run to its end.
    """
    judged = Judged(spec, space, trials)
    whole = better_first([t for t in trials if t.is_whole], spec.metric)
    if not whole:
        raise UserError("no trial of the search came to its end")
    repeated = {t.repeats for t in trials if t.repeats is not None}
    finalists = [t for t in whole if t.number in repeated][: spec.finalists]
    # A mean over fewer seeds, a lucky one among them, is no match for the others'.
    most = max((len(judged._runs_of(t)) for t in finalists), default=0)
    candidates = [t for t in finalists if len(judged._runs_of(t)) == most] or whole
    sign = 1 if spec.metric == "loss" else -1
    judged.winner = min(candidates, key=lambda t: sign * (judged._row(t).mean or 0.0))
    kept = {t.number: predictions.read(folder / t.folder, "validation") for t in whole}
    same = [t for t in whole if kept[t.number].rows_sha256 == kept[judged.winner.number].rows_sha256]
    judged.group = [same[place].number for place in _group(spec.metric, same, kept, same.index(judged.winner))]
    judged.finalists = _finalists(judged, [t for t in finalists if t in same], folder)
    judged.notes = _notes(judged, len(whole) - len(same), len(finalists) - len(candidates) if finalists else 0)
    return judged


def _group(metric: str, trials: Sequence[Trial], kept: Mapping[int, Predictions], winner: int) -> list[int]:
    """Which of the trials the winner is not told apart from, by the score that the search is judged by."""
    if metric == "accuracy":
        return paired.best_group(np.stack([kept[t.number].correct for t in trials]), best=winner)
    drawn = paired.rows_drawn_again(len(kept[trials[0].number].labels))
    both = [_score(metric, kept[t.number], drawn) for t in trials]
    return paired.best_group_by([value for value, _ in both], [redrawn for _, redrawn in both], best=winner)


def _score(metric: str, kept: Predictions, drawn: np.ndarray) -> tuple[float, np.ndarray]:
    """A trial's score, the higher the better, and the same on rows drawn again. Shape of the latter: (draws,)"""
    once = np.ones((1, drawn.shape[1]), dtype=np.float32)
    both = [_weighted(metric, kept, weights) for weights in (once, drawn)]
    return float(both[0][0]), both[1]


def _weighted(metric: str, kept: Predictions, weights: np.ndarray) -> np.ndarray:
    """Minus the loss, the mean F1 over classes, or another goal, of rows that count so often. Shape: (draws, rows) -> (draws,)"""
    if metric not in PLAIN:
        return goal_of(metric).redrawn(kept.labels, kept.predicted, kept.label_names, weights)
    classes = np.arange(len(kept.label_names))
    true = kept.labels if kept.multi_label else kept.labels[:, None] == classes
    predicted = kept.predicted if kept.multi_label else kept.predicted[:, None] == classes
    if metric == "loss":
        p = np.clip(kept.probabilities.astype(np.float64), 1e-12, 1.0)
        wrong = np.clip(1 - p, 1e-12, 1.0) if kept.multi_label else np.ones_like(p)
        losses = -np.where(true, np.log(p), np.log(wrong)).sum(axis=1)
        return np.asarray(-(weights @ losses) / weights.sum(axis=1))
    hits = weights @ (true & predicted if not kept.multi_label else true * predicted).astype(np.float32)
    ends = weights @ (true.astype(np.float32) + predicted.astype(np.float32))
    f1 = np.divide(2 * hits, ends, out=np.full(hits.shape, np.nan, dtype=np.float64), where=ends > 0)
    return np.asarray(np.nanmean(f1, axis=1))


def _finalists(judged: Judged, candidates: Sequence[Trial], folder: Path) -> list[Finalist]:
    """Finalists against the winner over all seeds: rows are drawn again, a row's seeds staying together."""
    assert judged.winner is not None
    shares = {t.number: _share_right(judged, t, folder) for t in candidates}
    rows = []
    for trial in candidates:
        difference = shares[trial.number] - shares[judged.winner.number]
        low, high = _bootstrap_mean(difference)
        row = judged._row(trial)
        rows.append(
            Finalist(
                trial=row.trial,
                point=row.point,
                seeds=row.seeds,
                mean=row.mean,
                sd=row.sd,
                points_from_winner=100 * float(difference.mean()),
                points_ci95=(100 * low, 100 * high),
            )
        )
    return rows


def _share_right(judged: Judged, trial: Trial, folder: Path) -> np.ndarray:
    """Of each row, the share of a configuration's seeds that have it right. Shape: (rows,)"""
    runs = [predictions.read(folder / run.folder, "validation").correct for run in judged._runs_of(trial)]
    shares: np.ndarray = np.mean(np.stack(runs), axis=0)
    return shares


def _bootstrap_mean(values: np.ndarray) -> tuple[float, float]:
    """95% interval of a mean over rows."""
    distinct, counts = np.unique(np.round(values, 9), return_counts=True)
    return bootstrap(counts, lambda drawn: drawn @ distinct / len(values))


def _notes(judged: Judged, elsewhere: int, incomplete: int) -> list[str]:
    """What the reader should know about the winner.

    elsewhere, incomplete
        Whole runs with other validation rows, and finalists that lack a seed.
    """
    assert judged.winner is not None
    notes = []
    for axis in judged.space.axes:
        value = judged.space.value(judged.winner.point, axis)
        edge = axis.edge(value)
        if edge:
            notes.append(
                f"{axis.name}: the best value {value} is the {edge} tried, the optimum may lie beyond: widen the range"
            )
        if "train.seed" in axis.sets:
            notes.append(
                "train.seed is an axis: the best of several seeds is a lucky one; 'seeds: 3' repeats finalists"
            )
    if incomplete:
        notes.append(f"{incomplete} finalists have fewer seeds than the others, as runs failed, and could not win")
    if len(judged.group) > 1:
        notes.append(
            f"{len(judged.group)} of {sum(t.is_whole for t in judged.trials)} whole runs "
            "are not distinguishable from the best on these validation rows"
        )
    if elsewhere:
        notes.append(f"{elsewhere} trials were scored on other validation rows and are not in the groups")
    return notes
