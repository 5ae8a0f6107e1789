"""The state of a search in Optuna's storage: every trial with its point, its standing and its outcome.

A trial is written before it starts and after every rung, so a search that is killed loses nothing but the steps
since the running trials' last checkpoints.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rankwise.errors import UserError, missing_extra
from rankwise.records.record import Tree
from rankwise.scoring.goals import goal_of
from rankwise.search.sweep.space import Point, Space
from rankwise.search.sweep.trial import Outcome

LATE = "no time was left"
"""why a trial that the clock left out was halved"""
_ATTRIBUTE = "rankwise"
SKIPPED = ("refused", "duplicate")


@dataclass
class Trial:
    """One point and what became of it.

    key
        Its number in Optuna's study, which also counts trials lost while they were being made.
    status
        planned, refused, duplicate, paused, halved, failed or done.
    why
        The reason of a refusal, or the number of the trial that a duplicate repeats.
    repeats
        The number of the finalist that this trial repeats under another seed.
    rungs
        Its scores at every rung it came to, with the rung's number and the step reached, which is an earlier one where
        the clock cut it short.
    halved_at
        The last rung it was compared at, when it was halved.
    """

    key: int
    number: int
    point: Point
    round: int
    status: str = "planned"
    why: str | int | None = None
    config_hash: str | None = None
    trainable: int | None = None
    rank: int | None = None
    total_steps: int = 0
    seed: int = 0
    repeats: int | None = None
    outcome: Outcome | None = None
    rungs: list[dict[str, float]] = field(default_factory=list)
    halved_at: int | None = None

    @property
    def folder(self) -> str:
        """Its run's folder within the search's."""
        return f"trials/{self.number:04d}"

    @property
    def is_started(self) -> bool:
        """Whether it was admitted: within budget and constraints, and no repeat."""
        return self.status not in SKIPPED

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.status in (*SKIPPED, "halved", "failed", "done")

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end, and repeats no other."""
        return self.status == "done" and self.repeats is None

    def reached(self, step: int | None) -> bool:
        """Whether it was brought to a step, or to its end (None), already."""
        return self.outcome is not None and (self.outcome.ended or (step is not None and self.outcome.step >= step))

    def add(self, outcome: Outcome, rung: int = 0) -> None:
        """Take in where it stands now, on its way to a rung; a failure leaves it where it stood."""
        if outcome.status == "failed":
            return
        self.outcome = outcome
        if outcome.scores:
            before = [scores for scores in self.rungs if scores["rung"] < rung]
            self.rungs = [*before, {"rung": rung, "reached": outcome.step, **outcome.scores}]

    def scores_at(self, rung: int | None) -> dict[str, float]:
        """The scores at a rung, at the last one it came to when that was earlier, or (None) the newest."""
        newest = self.outcome.scores if self.outcome else {}
        if rung is None:
            return newest
        return next((scores for scores in reversed(self.rungs) if scores["rung"] <= rung), newest)

    def attributes(self) -> Tree:
        """Plain values for the storage."""
        plain: Tree = msgspec.to_builtins(self)
        del plain["key"]
        return plain

    @classmethod
    def of(cls, key: int, attributes: Mapping[str, Any]) -> Trial:
        """The trial of a study's number that `attributes` was taken of, by this version or an older one.

        Raises: UserError when a value is of another kind than it should be.
        """
        rungs = attributes.get("rungs") or []  # of older versions rungs had no number
        plain = {**attributes, "key": key, "rungs": [{"rung": number, **at} for number, at in enumerate(rungs)]}
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise UserError(f"trial {key} of the search's storage is damaged: {error}") from error


class Study:
    """Optuna's study of one search."""

    def __init__(self, folder: Path, name: str, space: Space, metric: str, storage: str | None = None) -> None:
        try:
            import optuna
        except ImportError:
            raise missing_extra("optuna", "search") from None
        self.space = space
        self.minimise = goal_of(metric).lower_is_better
        self.metric = metric
        self._optuna = optuna
        self._study = _create(optuna, storage or f"sqlite:///{(folder / 'study.db').resolve()}", name, self.minimise)
        self._next = 0

    def load(self) -> list[Trial]:
        """Every trial in the order they were made; what a kill left half told is told to the end.

        What failed in a search that is not over is to be tried again, from the rung it came to.
        """
        trials = []
        for frozen in self._study.get_trials(deepcopy=False):
            stored = frozen.user_attrs.get(_ATTRIBUTE)
            running = not frozen.state.is_finished()
            if stored is None:
                if running:  # killed while it was being made: nothing was started, so nothing is lost
                    self._study.tell(frozen.number, state=self._optuna.trial.TrialState.FAIL)
                continue
            trial = Trial.of(frozen.number, stored)
            if running and trial.status == "failed":  # a full disk or a lack of memory may be gone by now
                trial.status, trial.why = ("paused" if trial.outcome else "planned"), None
            elif running and trial.has_ended:
                self._tell(trial)
            trials.append(trial)
        self._next = len(trials)
        return trials

    def add(self, point: Point, **fields: Any) -> Trial:
        """A trial of a given point."""
        samplers = self._optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            given = samplers.PartialFixedSampler(dict(point), samplers.RandomSampler(seed=0))
        return self._ask(given, list(point), fields)

    def draw(self, sampler: Any, **fields: Any) -> Trial:
        """A trial whose point the sampler proposes."""
        return self._ask(sampler, [axis.name for axis in self.space.axes], fields)

    def _ask(self, sampler: Any, names: list[str], fields: Mapping[str, Any]) -> Trial:
        self._study.sampler = sampler
        asked = self._study.ask({name: self.space.axis(name).distribution for name in names})
        trial = Trial(asked.number, self._next, dict(asked.params), **fields)
        self._next += 1
        self.save(trial)
        return trial

    def save(self, trial: Trial) -> None:
        """Write a trial's standing; one that has ended is told to Optuna, whose sampler learns from it.

        A failed one has nothing to teach, and one that the clock left out may be taken up again: they are told by `settle`,
        since what was told can neither be tried again nor changed.
        """
        self._study._storage.set_trial_user_attr(self._id(trial), _ATTRIBUTE, trial.attributes())
        if trial.has_ended and trial.status != "failed" and trial.why != LATE:
            self._tell(trial)

    def settle(self, trials: Sequence[Trial]) -> None:
        """The search is over: its failed trials stay failed, and those left out for lack of time stay out."""
        for trial in trials:
            if (trial.status == "failed" or trial.why == LATE) and not self._frozen(trial).state.is_finished():
                self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        states, outcome = self._optuna.trial.TrialState, trial.outcome
        value = outcome.scores.get(self.metric) if outcome else None
        usable = value is not None and value == value
        if trial.status == "halved" and outcome is not None and usable:
            self._study._storage.set_trial_intermediate_value(self._id(trial), outcome.step, value)
            self._study.tell(trial.key, state=states.PRUNED)
        elif trial.status == "done" and usable:
            self._study.tell(trial.key, value)
        else:
            self._study.tell(trial.key, state=states.FAIL)

    def _frozen(self, trial: Trial) -> Any:
        return self._study.get_trials(deepcopy=False)[trial.key]

    def _id(self, trial: Trial) -> int:
        """What the storage knows it by: an object of Optuna's for it would read every trial, for its sampler."""
        number: int = self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, trial.key)
        return number


def _create(optuna: Any, storage: str, name: str, minimise: bool) -> Any:
    """The study in its storage, made at first use.

    Raises: UserError when the storage cannot be opened.
    """
    level = optuna.logging.get_verbosity()  # the host's
    try:
        if storage.endswith(".journal"):
            backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        else:
            backend = optuna.storages.RDBStorage(storage)
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a notice that it is made
        return optuna.create_study(
            study_name=name,
            storage=backend,
            direction="minimize" if minimise else "maximize",
            load_if_exists=True,
        )
    except Exception as error:  # SQLAlchemy's, the driver's and OS errors, for one and the same refusal
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"storage '{storage}' cannot be opened: {reason}") from error
    finally:
        optuna.logging.set_verbosity(level)
