"""A training job from configuration to run folder: set up, fit, save, prove the file, score, record.

Order matters: the budget is checked before data is read when it can be, always before a weight is; and success is
reported only after the saved adapter, loaded into a fresh base, has given the live model's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from rankwise import config as configuration
from rankwise import data
from rankwise.config import Config, ConfigLike
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.machine.processes import this_process
from rankwise.machine.settings import own_settings
from rankwise.planning import measured
from rankwise.planning.planned import as_lines
from rankwise.runs.folder import Run
from rankwise.training.execution import Execution
from rankwise.training.prepare import prepare


@own_settings()
def train(
    source: ConfigLike,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    stop_at_step: int | None = None,
    deadline: Deadline | float | None = None,
    load_data: Callable[..., data.Roles] = data.load,
) -> Run:
    """Train as configured and return the run.

    source
        A recipe's name, a YAML path, a dict or a `Config`.
    out
        The run's folder; runs/<model>-<hash> by default.
    resume
        Go on from the folder's last checkpoint; the result equals an uninterrupted run's.
    stop_at_step
        Pause there: the status is then `interrupted`, `reached` holds the scores, and a resume goes on. The
        schedule is that of the whole run.
    deadline
        At which training ends as an early stop, the best weights so far kept: `time.time()`, or one that keeps time for
        what follows. A head that is solved at once has as many rows as there is time for, and its `head.probe_rows` says how many.
    load_data
        `data.load`, or what stands in for it where many runs share their rows.

    Started on several processes (torchrun, accelerate launch), they share each step's rows; the first one
    scores and writes, and the others return when training has ended.

    Raises: UserError for anything the user can mend, BudgetError before any weight is read.
    """
    console = console or Console(stderr=True)
    config = configuration.load(source, overrides)
    processes = this_process()
    if not processes.is_main_process:
        console = Console(quiet=True)
    run = _folder_of(config, out)
    with ExitStack() as held:
        # A resume reads what a live run would change: the folder is held from the first look at it on.
        if resume and processes.is_main_process and run.path.is_dir():
            held.enter_context(run.owned())
        _check_folder(run, resume=resume)
        with processes.main_process_first():  # the others find the tokens in the cache
            job = prepare(config, run, console, load_data)
        if resume and run.is_recorded and run.record.ended:
            console.print(f"{run.path} is finished already")
            return run
        console.print(job.plan.text(), highlight=False)
        if known := measured.lines(job.plan, measured.read(job.plan)):
            console.print(as_lines(known), highlight=False)
        console.print(job.roles.report.render())
        processes.wait_for_everyone()  # nobody writes before all have looked at the folder
        if not resume and processes.is_main_process:
            held.enter_context(run.owned())
            _check_folder(run, resume=False)  # another run may have begun there while this one was prepared
        return Execution(job).run(resume=resume, stop_at_step=stop_at_step, deadline=Deadline.of(deadline))


def _folder_of(config: Config, out: str | Path | None) -> Run:
    """The run's folder; nothing is made yet."""
    short = config.model.name.rstrip("/").rpartition("/")[2].removeprefix("packaged:")
    return Run(Path(out) if out else Path("runs") / f"{short}-{configuration.config_hash(config)}")


def _check_folder(run: Run, *, resume: bool) -> None:
    """Refuse a folder that holds another run or something else, and a resume where there is no run."""
    if (run.path / "config.yaml").exists():
        if not resume:
            raise UserError(f"{run.path} holds a run already: continue it with --resume, or choose another with --out")
        return
    # A run that was killed at its very beginning leaves a folder with nothing but its lock.
    if run.path.is_dir() and any(not path.name.startswith(".") for path in run.path.iterdir()):
        raise UserError(f"{run.path} exists and is not a run's folder: choose another with --out")
    if resume and not run.path.is_dir():
        raise UserError(
            f"there is no run at {run.path} to go on with: name its folder with --out, or leave --resume out"
        )
