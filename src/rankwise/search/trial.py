"""One trial as a worker runs it: to a step or to its end, going on from wherever an earlier worker got.

Importing this module is cheap, so that a new process can set its threads before torch starts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise.config import Config, Data
from rankwise.errors import UserError
from rankwise.records import Result
from rankwise.scoring.goals import PLAIN

# Data sets that one process keeps: a search has one, unless its axes change how rows are read.
_KEPT_DATA = 4
_loaded: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class Task:
    """What a worker is asked: run this configuration in this folder, up to step `until` or to its end."""

    number: int
    config: dict[str, Any]
    folder: str
    until: int | None = None
    deadline: float | None = None
    optional: bool = False
    """left out when its turn comes after the deadline"""


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    status
        paused, finished, stopped_early, failed, or late (left out).
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Outcome:
        """The outcome that `to_dict` gave."""
        interval = values.get("interval")
        return cls(**{**values, "interval": tuple(interval) if interval else None})


def carry_out(task: Task) -> Outcome:
    """Run a task; what the trial's own configuration or data does wrong becomes a failed outcome."""
    from rich.console import Console

    from rankwise.training.job import train

    folder = Path(task.folder)
    known = standing(task)
    if known is not None:
        return known
    if task.optional and task.deadline is not None and time.time() >= task.deadline:
        return Outcome(task.number, "late")
    if not (folder / "config.yaml").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # a worker was killed before it wrote anything of use
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        train(
            task.config,
            out=folder,
            resume=folder.exists(),
            console=Console(quiet=True),
            stop_at_step=task.until,
            deadline=task.deadline,
            load_data=load_data,
        )
    except UserError as error:
        return Outcome(task.number, "failed", error=str(error))
    except Exception as error:
        return Outcome(task.number, "failed", error=f"{type(error).__name__}: {error}")
    reached = standing(task, cut_short=task.deadline is not None and time.time() >= task.deadline)
    return reached or Outcome(task.number, "failed", error="the run ended without a result")


def standing(task: Task, *, cut_short: bool = False) -> Outcome | None:
    """The outcome that a task's folder already holds; None when there is work to do.

    cut_short
        The clock has ended: wherever it stands is where it came to.
    """
    try:
        result = json.loads((Path(task.folder) / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    timing = result.get("timing", {})
    seconds = float(timing.get("train_s", 0.0) + timing.get("eval_s", 0.0))
    if result["status"] in ("finished", "stopped_early"):
        return _ended(task, result, seconds)
    reached = result.get("reached")
    if task.until is None or not reached or reached["best"] is None:
        return None
    if reached["step"] < task.until and not cut_short:
        return None
    best, last = reached["best"], reached["last"]
    return Outcome(
        task.number,
        "paused",
        reached["step"],
        _scores(best, last),
        peak=_peak(task, best["accuracy"]),
        final=last["accuracy"],
        seconds=seconds,
    )


def _ended(task: Task, result: dict[str, Any], seconds: float) -> Outcome:
    chosen, last = result["metrics"]["validation"], result["metrics"]["validation_last"]
    low, high = chosen["accuracy_ci95"]
    if chosen.get("goal"):  # as it was chosen: nothing, where the precision asked for was not reached
        chosen = {**chosen, "goal": {**chosen["goal"], "value": result["decision"]["value"]}}
    return Outcome(
        task.number,
        result["status"],
        result["timing"]["steps"],
        _scores(chosen, last),
        interval=(low, high),
        peak=_peak(task, chosen["accuracy"]),
        final=last["accuracy"],
        seconds=seconds,
    )


def _scores(chosen: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    goal = chosen.get("goal")
    own = {goal["name"]: goal["value"]} if goal else {}
    return {name: chosen[name] for name in (*PLAIN, "step")} | own | {"last_loss": last["loss"]}


def validation_value(result: Result, goal: str) -> float:
    """What a finished run's goal came to on validation."""
    chosen = result.metrics.validation
    assert chosen is not None
    if goal in PLAIN:
        return float(getattr(chosen, goal))
    # As it was chosen: nothing, where the precision asked for was not reached.
    assert result.decision is not None
    assert result.decision.value is not None
    return result.decision.value


def _peak(task: Task, chosen: float) -> float:
    """The highest accuracy of all evaluations; the history rounds, so the chosen one is taken as it is."""
    from rankwise.runs.folder import Run

    return max(chosen, *(row["validation_accuracy"] or 0.0 for row in Run(Path(task.folder)).history))


# --- shared by the trials of a process ----------------------------------------------------------------


def load_data(data: Data, roles: Sequence[str]) -> Any:
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
    from rankwise.data.tokens import tokenise
    from rankwise.machine import caches
    from rankwise.models import tokenizer_of
    from rankwise.planning import plan

    roles = load_data(config.data, ["train", "validation", "test"])
    tokenizer = tokenizer_of(config.model)
    positions = plan(config, len(roles.label_names)).positions
    for rows in (roles.train, roles.validation):
        if rows is not None:
            tokenise(
                rows.texts,
                tokenizer,
                config.data.max_length,
                caches.cache("tokens"),
                positions=positions,
            )
