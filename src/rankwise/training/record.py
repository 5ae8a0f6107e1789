"""What a run's folder says of the run, at every moment: result.json, the history and the tracker."""

from __future__ import annotations

import time
from typing import Any

from rankwise import config as configuration
from rankwise.config import Config
from rankwise.data import Roles
from rankwise.inference import calibrate
from rankwise.machine import description
from rankwise.machine.precision import precision_of
from rankwise.machine.processes import this_process
from rankwise.records import AdapterRecord, Decision, Latency, Metrics
from rankwise.records import result as records
from rankwise.records.adapter import FILE as ADAPTER_RECORD
from rankwise.records.record import changing, of_tree
from rankwise.records.result import Result
from rankwise.runs import card
from rankwise.training import final, tracking
from rankwise.training.prepare import Job
from rankwise.training.state import State


class Recorder:
    """Keeps result.json true. Of several processes the main one writes.

    kernels
        What the model computes with, once it is there: see `FastClassifier.computes_with`.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.main = this_process().is_main_process
        self.kernels: str | None = None
        self._started = time.time()
        self._earlier_s = 0.0
        """seconds of the sessions that this one goes on from"""
        self._sessions: list[int] = []
        """the step that every session began from, this one's last"""
        self._tracker: tracking.Tracker | None = None

    def begin(self, *, resume: bool) -> None:
        """The run's configuration and its first result.json; of a resumed one, after what was there."""
        job = self.job
        if resume and job.run.is_recorded:
            before = job.run.record
            self._earlier_s, self._sessions = before.timing.total_s, before.sessions
        if self.main:
            job.run.write_config(job.config)
            self._tracker = tracking.open_tracker(job.config, job.run)
        self.write("running")

    def session(self, step: int) -> None:
        """Training begins at a step: the first, or where a checkpoint left it."""
        self._sessions.append(step)

    def write(self, status: str, state: State | None = None, **more: Any) -> None:
        """Replace result.json by what is known now.

        more
            Fields of `Result`.
        """
        if self.main:
            seconds = self._earlier_s + time.time() - self._started
            result = _result_of(self.job, status, state, seconds)
            result.sessions, result.engine.kernels = self._sessions, self.kernels
            for name, value in more.items():
                setattr(result, name, value)
            self.job.run.write_record(result)

    def evaluated(self, state: State) -> None:
        """Keep the history, and send its newest row to the tracker if there is one."""
        if self.main:
            self.job.run.write_history(state.history)
            if self._tracker is not None:
                self._tracker.evaluation(state.history[-1])

    def paused(self, state: State) -> None:
        """The run waits for a resume."""
        self.write("interrupted", state, reached=_reached(state))

    def failed(self, error: str, state: State | None, *, reached: bool = False) -> None:
        """The run cannot go on; `reached` says where it stood, too."""
        self.write("failed", state, error=error, **({"reached": _reached(state)} if reached else {}))

    def finish(
        self,
        state: State,
        scores: Metrics,
        decision: Decision | None,
        difference: float,
        latency: Latency | None = None,
        refit: records.Refit | None = None,
        *,
        stopped: bool = False,
    ) -> None:
        """What a finished run says of itself; `finished` is written last. One that the user stopped says the same of its
        best weights so far, and stays `interrupted`: a resume goes on from its checkpoint.

        difference
            Between the logits of the live model and of the saved one.
        latency
            Of one text, where a budget is kept to.
        refit
            What came after the scores, where that was asked for.
        """
        run, notes = self.job.run, final.notes(self.job, state, scores, decision, latency)
        notes += [] if refit is None else [refit.note]
        proven = records.Proof(max_logit_difference=difference)
        # A run killed before its status is written goes on to its end again, calibration included.
        standing = {"reached": _reached(state)} if stopped else {}
        status = "interrupted" if stopped else "running"
        more = {"metrics": scores, "reload": proven, "notes": notes, "decision": decision, "latency": latency}
        self.write(status, state, **more, refit=refit, **standing)
        if decision is not None:
            with changing(run.adapter / ADAPTER_RECORD, AdapterRecord) as adapter:
                adapter.decision = decision
        if scores.validation is not None:
            calibrate.calibrate(run)
        with run.changing() as result:
            if not stopped:
                result.status = "stopped_early" if state.stopped_early else "finished"
        card.write(run)
        if self._tracker is not None and not stopped:
            self._tracker.finish(scores.to_dict(), state.step)


def _result_of(job: Job, status: str, state: State | None, total_s: float) -> Result:
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
        data=rows_of(job.config, job.roles),
        texts=job.roles.report.to_dict(excerpts=job.config.data.excerpts),
        environment=description.describe(),
    )


def rows_of(config: Config, roles: Roles) -> dict[str, records.RowsOfRole]:
    """The rows of each role; those held out of train as test are set apart from then on."""
    return {
        role: records.RowsOfRole(
            rows=len(rows),
            sha256=rows.sha256,
            set_apart=rows.sha256 if role == "test" and config.data.test is None else None,
        )
        for role, rows in roles.named().items()
    }


def _reached(state: State | None) -> records.Reached | None:
    """Where a run stands that is not finished: its step, its best evaluation so far and its last."""
    if state is None:
        return None
    scores = [
        records.Standing(
            step=row.step,
            accuracy=row.validation_accuracy,
            loss=row.validation_loss,
            macro_f1=row.validation_macro_f1,
            goal=None if row.goal is None else records.GoalScore(name=row.goal[0], value=row.goal[1]),
        )
        for row in state.history
    ]
    # AdaLoRA chooses no weights before its ranks are final: until then the last evaluation stands for it.
    best = [score for score in scores if score.step == state.selection.step] or scores[-1:]
    return records.Reached(step=state.step, best=best[-1] if best else None, last=scores[-1] if scores else None)
