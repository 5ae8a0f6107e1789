"""What a search says while it runs: trials done, the best so far with its interval, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from rankwise.search.sweep.spec import Halving, Search
from rankwise.search.sweep.strategies import Walk, cost
from rankwise.search.sweep.study import Trial
from rankwise.search.sweep.table import best_of


class Progress:
    """A line for every outcome.

    trials
        Those of an earlier session: what they did took this one no time.
    """

    def __init__(self, console: Console, walk: Walk, search: Search, trials: Sequence[Trial]) -> None:
        self._console = console
        self._search = search
        repeats = (search.seeds - 1) * search.finalists
        self._trials = sum(each.count for each in walk.rounds) + repeats
        planned = cost(walk.rounds, search.halving or Halving())
        self._runs = planned + repeats
        # Of points that are listed; drawn ones are drawn again when they are refused.
        self._listed = {each.number for each in walk.rounds if not each.drawn}
        self._share = planned / max(1, sum(each.count for each in walk.rounds))
        self._started = time.time()
        self._before = _worth(trials)

    def admitted(self, trial: Trial) -> None:
        """Say why a point is not started."""
        if trial.status == "refused":
            self._print(f"point {trial.number} is not started: {trial.why}")
        elif trial.status == "duplicate":
            self._print(f"point {trial.number} is trial {trial.why} again, not run twice")

    def took_in(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Say what a trial reached and how much is left."""
        done = sum(each.has_ended for each in trials)
        standing = f"trial {trial.number} {trial.status}"
        if trial.why:
            standing += f": {trial.why}"
        elif trial.outcome is not None and trial.outcome.scores:
            standing += (
                f" at step {trial.outcome.step}, {self._search.metric} {trial.outcome.scores[self._search.metric]:.4f}"
            )
        self._print(f"{done}/{max(self._trials, len(trials))}  {standing}; {self._best(trials)}; {self._left(trials)}")

    def _best(self, trials: Sequence[Trial]) -> str:
        best = best_of(trials, self._search.metric)
        if best is None or best.outcome is None:
            return "no score yet"
        interval = best.outcome.interval
        shown = (
            f" (95% {interval[0]:.4f} to {interval[1]:.4f})" if interval and self._search.metric == "accuracy" else ""
        )
        return f"best {best.outcome.scores[self._search.metric]:.4f}{shown}, trial {best.number}"

    def _left(self, trials: Sequence[Trial]) -> str:
        """Time left by what was done since the start of this process: steps, as shares of a whole run, over seconds."""
        worth = _worth(trials)
        done = worth - self._before
        skipped = sum(not t.is_started and t.round in self._listed for t in trials)
        left = max(0.0, self._runs - self._share * skipped - worth)
        if done < 0.01 * self._runs:
            return "time left not known yet"
        return f"about {_clock((time.time() - self._started) / done * left)} left"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _worth(trials: Sequence[Trial]) -> float:
    """Steps done, in whole runs."""
    return sum(t.outcome.step / t.total_steps for t in trials if t.outcome is not None and t.total_steps)


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
