"""What result.json holds of a run, finished or not."""

from __future__ import annotations

from typing import Any

from rankwise import config as configuration
from rankwise.machine import description
from rankwise.machine.precision import precision_of
from rankwise.machine.processes import this_process
from rankwise.records import result as records
from rankwise.records.record import of_tree
from rankwise.records.result import Result
from rankwise.runs.folder import Run
from rankwise.scoring.goals import PLAIN
from rankwise.training.prepare import Job
from rankwise.training.state import State


def result_of(job: Job, status: str, state: State | None, total_s: float) -> Result:
    """The contents of result.json, apart from what only the end knows.

    total_s
        Seconds since the command began, earlier sessions included.
    """
    train_s = state.train_s if state else 0.0
    plan = job.plan
    return Result(
        status=status,
        parameters=of_tree(
            records.Parameters,
            {
                "trainable": plan.trainable,
                "budget": plan.budget,
                **plan.groups,
                "frozen": plan.frozen,
                "adapter_bytes": plan.adapter_bytes,
            },
        ),
        timing=records.Timing(
            train_s=round(train_s, 3),
            eval_s=round(state.eval_s, 3) if state else 0.0,
            total_s=round(total_s, 3),
            steps=state.step if state else 0,
            examples_per_s=round(state.rows_seen / train_s, 2) if state and train_s else None,
            tokens_per_s=round(state.tokens_seen / train_s, 1) if state and train_s else None,
        ),
        processes=this_process().num_processes,
        memory=records.Memory(peak_mb=description.peak_mb()),
        seed=job.config.train.seed,
        config_hash=configuration.config_hash(job.config),
        labels=list(job.label_names),
        base=job.base,
        engine=records.Engine(
            path=plan.engine,
            reason=plan.engine_reason,
            precision=precision_of(job.config.model.precision, plan.engine),
        ),
        data={role: _rows(job, role) for role in job.roles.named()},
        texts=job.roles.report.to_dict(excerpts=job.config.data.excerpts),
        environment=records.Environment(**description.describe()),
    )


def _rows(job: Job, role: str) -> records.RowsOfRole:
    """The rows of a role; those held out of train as test are set apart from then on."""
    rows = job.roles.named()[role]
    held_out = role == "test" and job.config.data.test is None
    return records.RowsOfRole(rows=len(rows), sha256=rows.sha256, set_apart=rows.sha256 if held_out else None)


def total_s(run: Run) -> float:
    """Seconds that the sessions of a run took so far, as far as they were recorded."""
    return run.record.timing.total_s if run.is_recorded else 0.0


def sessions(run: Run) -> list[int]:
    """The step that each session of a run so far began from."""
    return run.record.sessions if run.is_recorded else []


def reached(state: State | None) -> records.Reached | None:
    """Where a run stands that is not finished: its step, its best evaluation so far and its last."""
    if state is None:
        return None
    scores = [
        records.Standing(
            step=row["step"],
            accuracy=row["validation_accuracy"],
            loss=row["validation_loss"],
            macro_f1=row["validation_macro_f1"],
            goal=_goal_of(row, state.selection.metric),
        )
        for row in state.history
    ]
    # AdaLoRA chooses no weights before its ranks are final: until then the last evaluation stands for it.
    best = [score for score in scores if score.step == state.selection.step] or scores[-1:]
    return records.Reached(step=state.step, best=best[-1] if best else None, last=scores[-1] if scores else None)


def _goal_of(row: dict[str, Any], goal: str) -> records.GoalScore | None:
    """What the goal came to at an evaluation, where it is no metric that stands there anyway."""
    value = row.get(f"validation_{goal}")
    return None if goal in PLAIN or value is None else records.GoalScore(name=goal, value=value)
