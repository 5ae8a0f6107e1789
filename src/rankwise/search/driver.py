"""The search itself: propose, admit, run by rungs, repeat the finalists, judge, record.

One process drives; workers only run tasks. Everything it decides follows from the search file and the outcomes,
so a search that was killed and resumed decides the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from rankwise import config as configuration
from rankwise import files, planning, records
from rankwise.config import Config
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.machine.settings import own_settings
from rankwise.planning.steps import total_steps
from rankwise.records import AutoRecord, SearchRecord, Winner
from rankwise.records.record import Tree, owned
from rankwise.records.search import COPY, FLOORS, RECORD, SearchTiming
from rankwise.runs.folder import Run
from rankwise.scoring.goals import goal_of
from rankwise.search.sweep import constraints
from rankwise.search.sweep import spec as specs
from rankwise.search.sweep.contest import preferred
from rankwise.search.sweep.progress import Progress
from rankwise.search.sweep.space import Point, Space
from rankwise.search.sweep.spec import Halving
from rankwise.search.sweep.strategies import DRAWS_PER_TRIAL, Round, Walk, in_turns, stops, survivors
from rankwise.search.sweep.study import LATE, Study, Trial
from rankwise.search.sweep.table import Judged, better_first, judge
from rankwise.search.sweep.trial import STOPPED, Outcome, Task, carry_out, load_data, look_at_test, warm
from rankwise.search.sweep.workers import InProcess, Workers
from rankwise.training.interrupt import StopRequest, requested, stop_requests

Rivals = Callable[[Winner], Winner | None]
Ending = Callable[[Winner], Winner]
_CHANGE_THE_LOSS = {"train.label_smoothing", "train.class_weights"}
"""keys after whose change equal predictions come with another confidence, and losses no longer compare"""


@own_settings()
def search(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    workers: Workers | None = None,
    console: Console | None = None,
    deadline: Deadline | float | None = None,
    origin: AutoRecord | None = None,
    rivals: Rivals = lambda winner: None,
    ending: Ending = lambda winner: winner,
    testing: Deadline = NEVER,
) -> Tree:
    """Run a search and return what its search.json says.

    source
        A search file, a shipped search's name or a dict; None resumes from the copy in the folder.
    out
        The search's folder; searches/<name> by default.
    resume
        Go on from the folder's state; at most the running trials fall back, to their last checkpoint.
    deadline
        At which a running trial ends as an early stop: `time.time()`, or one that keeps time for what follows.
    origin
        What `auto` found before it made this search: kept in search.json under `auto`, by a resume too.
    rivals
        Given the winner, the one that is better than it if there is one, before the test rows are looked at.
    ending
        Given the one that is shipped, what becomes of it before the test rows are looked at.
    testing
        After which no more test rows are scored.

    Raises: UserError for anything the user can mend.
    """
    console = console or Console(stderr=True)
    if source is None and not (resume and out):
        raise UserError("which search? name a search file, or a folder to go on with: --out DIR --resume")
    folder = Path(out) if out else Path("searches") / _name(source)
    wanted = specs.load(folder / COPY if source is None else source, overrides)
    constraints.check(wanted.constraints)
    # Refused before anything is stored: what is wrong with the base is wrong with every point.
    _check_evaluates(configuration.from_dict(Space.of(wanted).tree({})))
    with _owned(folder, wanted, resume=resume):
        chosen = workers or InProcess()
        try:
            ends = Deadline.of(deadline)
            sweep = Sweep(wanted, folder, chosen, console, ends, rivals, ending, testing, resume=resume, origin=origin)
            return sweep.run().to_dict()
        finally:
            chosen.close()


def _name(source: str | Path | Mapping[str, Any] | None) -> str:
    return Path(source).stem if isinstance(source, str | Path) else "search"


@contextmanager
def _owned(folder: Path, wanted: specs.Search, *, resume: bool) -> Iterator[None]:
    """Hold the folder's lock, once it is certain that the folder is this search's and nobody else's."""
    copy = folder / COPY
    if copy.is_file():
        if not resume:
            raise UserError(f"{folder} holds a search already: go on with --resume, or choose another with --out")
        if specs.load(copy) != wanted:
            raise UserError(f"{folder} was started with another search file: resume with the same one")
    elif folder.is_dir() and any(not path.name.startswith(".") and path.name != FLOORS for path in folder.iterdir()):
        raise UserError(f"{folder} exists and is not a search's folder: choose another with --out")
    elif resume and not folder.is_dir():
        raise UserError(
            f"there is no search at {folder} to go on with: name its folder with --out, or leave --resume out"
        )
    files.make_writable_folder(folder)
    with owned(folder, f"another search is running in {folder}"):
        if not resume and copy.is_file():  # begun there while this one was checked
            raise UserError(f"{folder} holds a search already: go on with --resume, or choose another with --out")
        configuration.write_yaml(copy, msgspec.to_builtins(wanted))
        yield


class Stopped(Exception):
    """The user asked the search to end with what there is."""


class Sweep:
    """One search in its folder."""

    def __init__(
        self,
        wanted: specs.Search,
        folder: Path,
        workers: Workers,
        console: Console,
        deadline: Deadline,
        rivals: Rivals,
        ending: Ending,
        testing: Deadline,
        *,
        resume: bool,
        origin: AutoRecord | None,
    ) -> None:
        self.spec = wanted
        self.rivals, self.ending, self.testing = rivals, ending, testing
        self.halving = wanted.halving or Halving()  # without one, every round has a single rung
        self.folder = folder
        self.workers = workers
        self.deadline = deadline
        self.space = Space.of(wanted)
        self.walk = Walk.of(wanted, self.space)
        name = f"{folder.name}-{specs.fingerprint(wanted)}"
        self.study = Study(folder, name, self.space, wanted.metric, wanted.storage)
        self.trials = self.study.load()
        if self.trials and not resume:
            raise UserError(
                f"storage '{wanted.storage}' holds trials of a search {name} already, whose runs are not in {folder}: "
                "go on with --resume where they are, or name another folder"
            )
        self.progress = Progress(console, self.walk, wanted, self.trials)
        self._warmed: set[str] = set()
        there = (folder / RECORD).is_file()
        self.origin = origin or (records.read(folder / RECORD, SearchRecord).auto if there else None)

    def run(self) -> SearchRecord:
        """Everything that is left to do; asked to stop, what there is by then, with the status interrupted.

        Raises: KeyboardInterrupt when it was asked to stop before anything had a score.
        """
        with stop_requests() as stop:
            try:
                return self._run(stop)
            except Stopped:
                return self._interrupted()

    def _run(self, stop: StopRequest) -> SearchRecord:
        started = time.time()
        for each in self.walk.rounds:
            trials = self._propose(each)
            self._run_round(each, trials)
        self._repeat_finalists()
        self.study.settle(self.trials)
        judged = judge(self.spec, self.space, self.trials, self.folder)
        record = judged.record(status="finished")
        record.timing = SearchTiming(session_s=round(time.time() - started, 1))
        assert record.winner is not None
        record.winner = self.ending(self._or_floor(self.rivals(record.winner) or record.winner))
        if stop.requested:  # while the clock's rest was trained in: a resume trains there again
            record.status = "interrupted"
        else:
            record.winner.test = look_at_test(self.folder, record.winner, self.testing)
        self._write(record)
        return record

    # --- proposing ------------------------------------------------------------------------------------

    def _propose(self, each: Round) -> list[Trial]:
        """The round's trials: those of an earlier session, and the rest of them made now."""
        made = [trial for trial in self.trials if trial.round == each.number and trial.repeats is None]
        for trial in made:
            if trial.status == "planned" and trial.config_hash is None:
                self._admit(trial)
        if each.drawn:
            limit = each.count * DRAWS_PER_TRIAL
            while sum(trial.is_started for trial in made) < each.count and len(made) < limit:
                made.append(self._new(self.study.draw(self.walk.sampler(len(self.trials)), round=each.number)))
        else:
            points = self.walk.points(each, self._best_point(each))
            made += [self._new(self.study.add(point, round=each.number)) for point in points[len(made) :]]
        return [trial for trial in made if trial.is_started]

    def _new(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        self._admit(trial)
        return trial

    def _best_point(self, each: Round) -> Point:
        """The point of the best whole run of the rounds before."""
        before = [t for t in self.trials if t.round < each.number and t.is_whole]
        return dict(better_first(before, self.spec.metric)[0].point) if before else {}

    def _admit(self, trial: Trial) -> None:
        """Plan the trial's configuration: over budget, impossible or known already, it is never started."""
        try:
            config = configuration.from_dict(self._tree(trial))
            roles = load_data(config.data)
            planned = planning.plan(config, len(roles.label_names))
            trial.trainable, trial.rank = planned.trainable, planned.rank
            planning.require_fit(planned)
            _check_evaluates(config)
            broken = constraints.violated(self.spec.constraints, planned)
            if broken:
                raise UserError(f"constraint not met: {broken}")
            steps = total_steps(len(roles.train), planned.config.train)
            self._warm(planned.config)
        except UserError as error:
            trial.status, trial.why = "refused", str(error)
        else:
            trial.config_hash = configuration.config_hash(planned.config)
            trial.seed = config.train.seed
            twin = next((t for t in self.trials if t is not trial and t.config_hash == trial.config_hash), None)
            if twin is not None:
                trial.status, trial.why = "duplicate", twin.number
            else:
                trial.total_steps = steps
        self.study.save(trial)
        self.progress.admitted(trial)

    def _tree(self, trial: Trial) -> Tree:
        tree = self.space.tree(trial.point)
        if trial.repeats is not None:
            configuration.set_key(tree, "train.seed", trial.seed)
        return tree

    def _warm(self, config: Config) -> None:
        """Make the token files once, before workers that would each make their own."""
        key = msgspec.json.encode([config.data, config.model.name]).decode()
        if self.workers.count > 1 and key not in self._warmed:
            self._warmed.add(key)
            warm(config)

    # --- running --------------------------------------------------------------------------------------

    def _run_round(self, each: Round, trials: list[Trial]) -> None:
        """Run a round's trials rung by rung; all of a rung end before the best of them go on."""
        alive = trials
        for rung in range(each.rungs):
            last = rung == each.rungs - 1
            if not last and all(self._stops(t)[rung] == self._stops(t)[rung + 1] for t in alive):
                continue  # of runs so short that two rungs are one step: nobody is halved twice on the same scores
            self._run_tasks(alive, None if last else rung)
            if self._is_late(alive):
                self._end_best(alive, rung)
                return
            # With those that an earlier session halved here: the same rank the same, resumed or not.
            alive = [
                t for t in alive if t.status in ("paused", "done") or (t.halved_at is not None and t.halved_at >= rung)
            ]
            if last or not alive:
                return
            ranked = self._ranked(alive, rung)
            kept = ranked[: self._affordable(ranked, rung, each.rungs)]
            for trial in alive:
                if trial not in kept and not trial.has_ended:
                    trial.status, trial.halved_at = "halved", rung
                    self._save(trial)
            alive = sorted(kept, key=lambda trial: trial.number)

    def _is_late(self, trials: Sequence[Trial]) -> bool:
        """Whether the clock ended while these trials ran, at the latest: a run that has become slow ends itself before."""
        return self.deadline.has_passed or any(trial.status == "halved" and trial.why == LATE for trial in trials)

    def _end_best(self, trials: Sequence[Trial], rung: int) -> None:
        """The clock has ended: what is paused ends as it is. The best of it is made whole where nothing whole is better,
        so that a run which the clock cut short wins over none that waited for its turn with higher scores.
        """
        cut = [t for t in trials if t.status == "paused" or (t.status == "halved" and t.why == LATE)]
        scored = [t for t in cut if t.outcome is not None and t.outcome.scores]
        whole = [t for t in self.trials if t.is_whole]
        best = better_first([*scored, *whole], self.spec.metric)[:1]
        for trial in cut:
            if trial in best:
                trial.status, trial.why, trial.halved_at = "paused", None, None
            elif trial.status == "paused":
                trial.status, trial.why, trial.halved_at = "halved", LATE, rung
            self._save(trial)
        self._run_tasks([trial for trial in best if not trial.has_ended], None, whatever_the_clock=True)

    def _stops(self, trial: Trial) -> list[int]:
        """The steps at which a trial is compared; one that repeats another under a new seed is evaluated there too."""
        first = next((t for t in self.trials if t.number == trial.repeats), trial)
        return stops(trial.total_steps, self.walk.rounds[first.round].rungs, self.halving)

    def _ranked(self, alive: Sequence[Trial], rung: int) -> list[Trial]:
        """A rung's trials, those first that go on first."""
        ranked, within = better_first(alive, self._rung_metric(), rung), self.halving.within
        return ranked if within is None else in_turns(ranked, lambda trial: trial.point.get(within))

    def _rung_metric(self) -> str:
        """The score that rungs are judged by.

        Early accuracies of a few hundred rows are noise around chance where losses already tell runs apart: over twelve
        runs the rank correlation with the final accuracy was -0.71 for the accuracy at a ninth of the steps, 0.96 for
        the loss there (LOG.md).
        """
        by = self.halving.by
        if by is None and any(axis.sets & _CHANGE_THE_LOSS for axis in self.space.axes):
            by = "metric"
        return self.spec.metric if by == "metric" else "last_loss"

    def _affordable(self, ranked: Sequence[Trial], rung: int, rungs: int) -> int:
        """How many of a rung's trials go on: by the factor, and fewer when the clock would cut the last one short."""
        count = survivors(len(ranked), self.halving)
        best, outcomes = ranked[0], [trial.outcome for trial in self.trials if trial.outcome is not None]
        steps = sum(outcome.step for outcome in outcomes)
        if not steps:
            return count
        step_s = sum(outcome.seconds for outcome in outcomes) / steps
        here, then = stops(best.total_steps, rungs, self.halving)[rung : rung + 2]
        left = self.deadline.left_s()
        while count > 1 and step_s * (count * (then - here) + best.total_steps - then) > left:
            count -= 1
        return count

    def _run_tasks(self, trials: Sequence[Trial], rung: int | None, *, whatever_the_clock: bool = False) -> None:
        """Bring trials to a rung, or to their end when it is None."""
        by_number = {trial.number: trial for trial in trials}
        tasks: list[Task] = []
        for trial in trials:
            step = None if rung is None else self._stops(trial)[rung]
            step = None if step == trial.total_steps else step
            if not trial.has_ended and not trial.reached(step):
                # One run is to be whole, however late; with one there, none is begun after the deadline.
                optional = (step is not None and len(tasks) > 0) or any(t.status == "done" for t in self.trials)
                optional = optional and not whatever_the_clock
                folder = str((self.folder / trial.folder).resolve())  # a cluster's workers have a place of their own
                tasks.append(Task(trial.number, self._run_tree(trial), folder, step, self.deadline, optional))
        for outcome in self.workers.run(tasks):
            trial = by_number[outcome.number]
            self._take_in(trial, outcome, len(self._stops(trial)) - 1 if rung is None else rung)
        if requested():
            raise Stopped

    def _run_tree(self, trial: Trial) -> Tree:
        """What a trial's run is configured with: it is evaluated at the search's rungs too."""
        tree = self._tree(trial)
        rungs = {step for step in self._stops(trial) if step < trial.total_steps}
        if rungs:
            named = tree.get("train", {}).get("evaluate_at", [])
            configuration.set_key(tree, "train.evaluate_at", sorted(rungs | set(named)))
        return tree

    def _take_in(self, trial: Trial, outcome: Outcome, rung: int) -> None:
        if outcome.status == STOPPED:
            return
        if outcome.status == "late":
            trial.status, trial.why, trial.halved_at = "halved", LATE, rung - 1
        else:
            trial.status = "failed" if outcome.status == "failed" else "done" if outcome.ended else "paused"
            trial.why = outcome.error
            trial.add(outcome, rung)
        self._save(trial)
        self.progress.took_in(trial, self.trials)

    def _save(self, trial: Trial) -> None:
        self.study.save(trial)
        self._write(Judged(self.spec, self.space, self.trials).record(status="running"))

    def _write(self, record: SearchRecord) -> None:
        """Replace search.json by what is known."""
        record.auto = self.origin
        records.write(self.folder / RECORD, record)

    def _repeat_finalists(self) -> None:
        """Run the best whole trials again under other seeds, so that the winner is no lucky draw."""
        done = [trial for trial in self.trials if trial.is_whole]
        if not done:
            reasons = [trial.why for trial in self.trials if trial.why]
            raise UserError(f"no trial of the search came to its end; the first reason: {reasons[0]}")
        finalists = better_first(done, self.spec.metric)[: self.spec.finalists] if self.spec.seeds > 1 else []
        round = len(self.walk.rounds)
        wanted = [(one, one.seed + more) for more in range(1, self.spec.seeds) for one in finalists]
        made = [trial for trial in self.trials if trial.repeats is not None]
        for trial in made:
            if trial.status == "planned" and trial.config_hash is None:
                self._admit(trial)
        # By what they repeat, not by their number: a trial that a resume brought to its end may be a finalist now.
        there = {(trial.repeats, trial.seed) for trial in made}
        for one, seed in wanted:
            if (one.number, seed) not in there:
                made.append(self._new(self.study.add(one.point, round=round, repeats=one.number, seed=seed)))
        self._run_tasks([trial for trial in made if trial.is_started], None)

    # --- stopped by the user --------------------------------------------------------------------------

    def _interrupted(self) -> SearchRecord:
        """The best so far, whole or under way, as an adapter that is proven; all trials stay where they stand."""
        scored = [t for t in self.trials if t.repeats is None and t.outcome is not None and t.outcome.scores]
        begun = [trial for trial in scored if trial.status in ("done", "paused")]
        best = next(iter(better_first(begun, self.spec.metric)), None)
        record = Judged(self.spec, self.space, self.trials).record(status="interrupted")
        lowest = self._best_floor()
        if best is not None:
            record.winner = self._or_floor(self._so_far(best))
        elif lowest is not None:
            record.winner = lowest
        self._write(record)
        if record.winner is None:
            raise KeyboardInterrupt
        return record

    def _so_far(self, trial: Trial) -> Winner:
        """What search.json says of a trial that wins as it stands, once it has an adapter of its best weights."""
        run = Run(self.folder / trial.folder)
        reached, validation = run.record.reached, run.record.metrics.validation
        best = reached.best.step if reached is not None and reached.best is not None else None
        if trial.status == "paused" and (validation is None or validation.step != best):
            carry_out(Task(trial.number, self._run_tree(trial), str(run.path.resolve())))
            validation = run.record.metrics.validation
        assert trial.outcome is not None
        assert validation is not None
        return Winner(
            run=trial.folder,
            trial=trial.number,
            point=trial.point,
            trainable=trial.trainable,
            rank=trial.rank,
            peak=trial.outcome.peak or validation.accuracy,
            chosen=validation.accuracy,
            chosen_ci95=validation.accuracy_ci95,
            final=trial.outcome.final or validation.accuracy,
            mean=trial.outcome.scores[self.spec.metric],
            seeds=1,
        )

    # --- the end --------------------------------------------------------------------------------------

    def _or_floor(self, winner: Winner) -> Winner:
        """The winner, or the floor of `auto` that validation prefers to it."""
        lowest = self._best_floor()
        return winner if lowest is None else preferred(self.folder, [winner, lowest], goal_of(self.spec.metric))

    def _best_floor(self) -> Winner | None:
        floors = self.origin.floors if self.origin is not None else []
        return msgspec.structs.replace(preferred(self.folder, floors, goal_of(self.spec.metric))) if floors else None


def _check_evaluates(config: Config) -> None:
    if not config.train.evaluate:
        raise UserError("a search needs train.evaluate: true, it chooses by validation scores")
    if config.data.folds is not None:
        raise UserError(
            "a search chooses by rows that no trial is trained on, and data.folds holds none out: leave it out, and score the "
            "winner's design by folds afterwards, with  rankwise train RUN/config.yaml data.folds=K"
        )
