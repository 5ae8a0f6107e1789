"""One trial as a worker runs it: to a step or to its end, going on from wherever an earlier worker got.

Importing this module is cheap, so that a new process can set its threads before torch starts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rankwise import config as configuration
from rankwise.config import Config, Data
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError
from rankwise.records import LastScores, Result, Scores, Winner
from rankwise.records.record import Tree
from rankwise.records.result import Reached, Standing
from rankwise.records.search import TestLook
from rankwise.runs.folder import Run
from rankwise.scoring.goals import PLAIN

if TYPE_CHECKING:
    from rankwise.training.interrupt import StopRequest

# Data sets that one process keeps: a search has one, unless its axes change how rows are read.
_KEPT_DATA = 4
STOPPED = "stopped"
_loaded: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class Task:
    """What a worker is asked: run this configuration in this folder, to its end, or to `stop_at_step`."""

    number: int
    config: Tree
    folder: str
    stop_at_step: int | None = None
    deadline: Deadline = NEVER
    optional: bool = False
    """left out when its turn comes after the deadline"""


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    status
        paused, finished, stopped_early, failed, late (left out), or stopped (by the user, before it had any score).
    scores
        Validation accuracy, loss, macro_f1 and the goal by its name at the chosen evaluation, with its step, and
        last_loss, the loss at the newest one.
    peak, final
        The highest validation accuracy of all evaluations, and the last one.
    """

    number: int
    status: str
    step: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    peak: float | None = None
    final: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the whole run is done."""
        return self.status in ("finished", "stopped_early")


def carry_out(task: Task) -> Outcome:
    """Run a task; what the trial's own configuration, data or files do wrong becomes a failed outcome.

    Asked to stop, it ends with the best so far as an adapter in the trial's folder, from whose checkpoint it may go on.
    """
    from rankwise.training.interrupt import stop_requests

    try:
        with stop_requests() as stop:
            return standing(task) or _worked(task, stop)
    except UserError as error:
        return Outcome(task.number, "failed", error=str(error))
    except Exception as error:
        return Outcome(task.number, "failed", error=f"{type(error).__name__}: {error}")


def _worked(task: Task, stop: StopRequest) -> Outcome:
    """Train the task's run from wherever it stands."""
    folder = Path(task.folder)
    if task.optional and task.deadline.has_passed:
        return Outcome(task.number, "late")
    if not (folder / "config.yaml").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # a worker was killed before it wrote anything of use
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        trained(task.config, folder, resume=folder.exists(), stop_at_step=task.stop_at_step, deadline=task.deadline)
    except KeyboardInterrupt:
        if not stop.requested or stop.at_once:
            raise
        return standing(task, cut_short=True) or Outcome(task.number, STOPPED)
    reached = standing(task, cut_short=task.deadline.has_passed)
    return reached or Outcome(task.number, "failed", error="the run ended without a result")


def standing(task: Task, *, cut_short: bool = False) -> Outcome | None:
    """The outcome that a task's folder already holds; None when there is work to do.

    cut_short
        The clock has ended, or the user has asked to stop: wherever it stands is where it came to.

    Raises: UserError when a file of it is damaged.
    """
    run = Run(Path(task.folder))
    if not run.is_recorded:
        return None
    result = run.record
    reached = result.reached or Reached()
    status, step = "paused", reached.step
    chosen: Scores | Standing | None = reached.best
    last: LastScores | Standing | None = reached.last
    if result.ended:
        status, step = result.status, result.timing.steps
        chosen, last = result.metrics.validation, result.metrics.validation_last
    elif not cut_short and (task.stop_at_step is None or step < task.stop_at_step):
        return None
    if chosen is None or last is None:
        return None
    scores = {name: getattr(chosen, name) for name in PLAIN} | {"step": chosen.step or 0, "last_loss": last.loss}
    if chosen.goal is not None:
        value = validation_value(result, chosen.goal.name) if result.ended else chosen.goal.value
        scores[chosen.goal.name] = value
    return Outcome(
        task.number,
        status,
        step,
        scores,
        interval=chosen.accuracy_ci95 if isinstance(chosen, Scores) else None,
        # The history rounds, so the chosen one is taken as it is.
        peak=max(chosen.accuracy, *(row.get("validation_accuracy") or 0.0 for row in run.history)),
        final=last.accuracy,
        seconds=result.timing.train_s + result.timing.eval_s,
    )


def validation_value(result: Result, goal: str) -> float:
    """What a finished run's goal came to on validation.

    Raises: UserError where the record lacks it.
    """
    chosen, decision = result.metrics.validation, result.decision
    if chosen is not None and goal in PLAIN:
        return chosen.value(goal)
    # As it was chosen: nothing, where the precision asked for was not reached.
    if chosen is None or decision is None or decision.value is None:
        raise UserError(
            f"the result of a run that was trained for {goal} is damaged: it does not say what that came to"
        )
    return decision.value


# --- shared by the trials of a process ----------------------------------------------------------------


def trained(
    tree: Tree,
    out: Path,
    *,
    resume: bool = False,
    stop_at_step: int | None = None,
    deadline: Deadline = NEVER,
) -> Run:
    """`train` with nothing on the console, on rows that this process has read."""
    from rich.console import Console

    from rankwise.training.job import train

    quiet = Console(quiet=True)
    return train(
        tree, out=out, resume=resume, console=quiet, stop_at_step=stop_at_step, deadline=deadline, load_data=load_data
    )


def load_data(data: Data, roles: Sequence[str] = ("train", "validation", "test")) -> Any:
    """`data.load`, remembered: the trials of a process read and check their rows once.

    Tokens are shared between processes by their cache and the frozen weights by the page cache, both being mapped
    from files; the texts are each process's own.
    """
    from rankwise import data as reading

    # A notebook's process lives on while its files change.
    changed = tuple(_state(place) for place in (data.train, data.validation, data.test) if isinstance(place, str))
    key = (json.dumps(configuration.to_dict(Config(data=data))["data"], sort_keys=True), tuple(roles), changed)
    if key not in _loaded:
        while len(_loaded) >= _KEPT_DATA:
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = reading.load(data, roles=roles)
    return _loaded[key]


def _state(place: str) -> tuple[Any, ...]:
    """What changes when the files of a place do: a file's own, or those of all files below a folder."""
    at = Path(place)
    facts = [(str(path), path.stat()) for path in [at, *sorted(at.rglob("*") if at.is_dir() else ())] if path.exists()]
    return tuple((name, fact.st_mtime_ns, fact.st_size) for name, fact in facts)


def warm(config: Config) -> None:
    """Make the token files of a configuration, so that workers find them instead of each making them."""
    from rankwise.models import tokenizer_of
    from rankwise.planning import plan
    from rankwise.training.examples import tokenised

    roles = load_data(config.data)
    tokenizer = tokenizer_of(config.model)
    planned = plan(config, len(roles.label_names))
    for rows in (roles.train, roles.validation):
        if rows is not None:
            tokenised(rows, tokenizer, config.data.max_length, planned)


def look_at_test(folder: Path, winner: Winner, deadline: Deadline = NEVER) -> TestLook | None:
    """The winner's one look at the test set, when there is one; a resume does not look again. Of more rows than there is time for
    until the deadline, those that it has are drawn."""
    from rankwise.inference.evaluate import score

    run = Run(folder / winner.run)
    if run.config.data.test is None and run.config.data.test_size is None:
        return None
    scores = run.record.metrics.test or score(run, deadline=deadline)
    scores = msgspec.structs.replace(scores, looks=scores.looks or 1)
    return msgspec.convert(scores, TestLook, from_attributes=True)
