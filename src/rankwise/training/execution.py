"""A job carried out: the model built, trained, saved, loaded again, proven, scored and recorded."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rankwise import config as configuration
from rankwise.deadline import NEVER, Deadline
from rankwise.machine.compiler import without_compiler
from rankwise.machine.processes import this_process
from rankwise.machine.seeds import own_generators
from rankwise.methods import method_of
from rankwise.models import adapter_file
from rankwise.models.assembly import Assembly
from rankwise.models.classifier import logits_of
from rankwise.records.result import Refit
from rankwise.runs.folder import Run
from rankwise.training import building, cross_validation, final, fitting, proof, refit
from rankwise.training.interrupt import stop_requests
from rankwise.training.loop import Loop
from rankwise.training.prepare import Job
from rankwise.training.record import Recorder
from rankwise.training.state import State
from rankwise.training.stopping import Diverged


class Execution:
    """The order of it all."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.recorder = Recorder(job)
        self.state: State | None = None
        """of the loop, once there is one"""

    def run(self, *, resume: bool, stop_at_step: int | None = None, deadline: Deadline = NEVER) -> Run:
        """Run to the end, or to a pause.

        Raises: KeyboardInterrupt when the user stopped it, with a checkpoint saved, and the best weights so far as an
        adapter that is proven and scored.
        """
        recorder = self.recorder
        recorder.begin(resume=resume)
        try:
            if self.job.config.data.folds is not None:
                cross_validation.score_rows(self.job, lambda fold, **options: Execution(fold).run(**options))
            with own_generators(self.job.config.train.seed), without_compiler(), stop_requests():
                state = self._fit_and_finish(resume=resume, stop_at_step=stop_at_step, deadline=deadline)
        except KeyboardInterrupt:
            recorder.write("interrupted", self.state)
            raise
        except Diverged as error:
            recorder.failed(str(error), self.state, reached=True)
            raise
        except BaseException as error:
            recorder.failed(f"{type(error).__name__}: {error}", self.state)
            raise
        if state is None:
            raise KeyboardInterrupt
        return self.job.run

    def answers(
        self,
        texts: Sequence[np.ndarray],
        *,
        after: Sequence[int] = (),
        deadline: Deadline = NEVER,
        longer: Deadline = NEVER,
    ) -> list[np.ndarray]:
        """Train, and answer for texts given as token ids; nothing is saved, proven or scored.

        after
            Steps to answer after on the way to the last one, ascending, of a run whose head is fitted then.
        longer
            After which no further answer than the first is worked for.

        Returns: logits after each of these steps and after the last, as far as `deadline` and `longer` let it come:
        none where there was no time for the first. Shape of each: (texts, classes)
        Raises: Diverged.
        """
        job, found = self.job, list[np.ndarray]()
        with own_generators(job.config.train.seed), without_compiler(), stop_requests() as stop:
            assembly, network = self._built()
            loop = fitting.loop_of(job, assembly, network, self.recorder)
            for step in (*after, job.total_steps):
                ends = min(deadline, longer, key=Deadline.at) if found else deadline
                state = fitting.fit(job, assembly, loop, self.recorder, stop_at_step=step, deadline=ends, wholly=True)
                if stop.requested:
                    raise KeyboardInterrupt
                if state.step < step:
                    break
                found.append(logits_of(network, texts, job.config.train.eval_batch_size))
        return found

    def _built(self) -> tuple[Assembly, Any]:
        """The assembly, and what computes it."""
        assembly = building.assembly_of(self.job)
        network = building.network_of(self.job, assembly)
        self.recorder.kernels = getattr(network, "computes_with", "torch")
        return assembly, network

    def _fit_and_finish(self, *, resume: bool, stop_at_step: int | None, deadline: Deadline) -> State | None:
        """Train and finish, or pause; None when the user stopped it, with a checkpoint saved."""
        job, recorder = self.job, self.recorder
        assembly, network = self._built()
        if method_of(job.config).solved_at_once:
            state, stopped = fitting.solve(job, assembly, network, recorder, deadline), False
            assembly = self._as_solved(assembly, state)
            job = self.job
        else:
            loop = fitting.loop_of(job, assembly, network, recorder)
            self.state = loop.state
            try:
                state = fitting.fit(
                    job, assembly, loop, recorder, resume=resume, stop_at_step=stop_at_step, deadline=deadline
                )
            except Diverged as error:
                raise self._with_best_kept(error, loop, assembly) from error
            paused = state.step < job.total_steps and not state.stopped_early
            stopped = paused and loop.asked_to_stop and state.step != stop_at_step
            if paused:
                recorder.paused(state)
                begun = state.step > 0 or job.config.head.probe_first
                if not (stopped and begun):
                    return None if stopped else state
            if recorder.main and state.best:
                loop.load_best()
            del loop
        if not recorder.main:
            return None if stopped else state
        adapter_file.save(assembly, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
        live = proof.Live(job, assembly, network)
        del network, assembly
        gc.collect()
        reloaded, difference = live.reloaded()
        scores, decision = final.scores(job, state, reloaded)
        single = final.latency(job, reloaded)
        del live, reloaded
        refitted = None
        if job.config.train.refit_steps is not None and not stopped:
            gc.collect()
            refitted, stopped = self._refitted(state, deadline)
        recorder.finish(state, scores, decision, difference, single, refitted, stopped=stopped)
        return None if stopped else state

    def _as_solved(self, assembly: Assembly, state: State) -> Assembly:
        """Let all that is written say on how many rows a head was solved: fewer than were asked for where the deadline left no time."""
        if state.solved is None:
            return assembly
        job, rows = self.job, len(state.solved.rows)
        if rows < min(job.config.head.probe_rows or len(job.training), len(job.training)):
            plan = replace(job.plan, config=configuration.replaced(job.plan.config, "head", probe_rows=rows))
            config = configuration.replaced(job.config, "head", probe_rows=rows)
            self.job = self.recorder.job = replace(job, config=config, plan=plan)
            assembly = replace(assembly, plan=plan)
            if self.recorder.main:
                job.run.write_config(config)
        return assembly

    def _refitted(self, state: State, deadline: Deadline) -> tuple[Refit | None, bool]:
        """What came of the steps on all rows, and whether the user stopped them: the adapter is that of before then."""
        try:
            return refit.on_all_rows(self.job, *self._built(), state, self.recorder, deadline=deadline), False
        except KeyboardInterrupt:
            return None, True

    def _with_best_kept(self, error: Diverged, loop: Loop, assembly: Assembly) -> Diverged:
        """The error of a run that diverged, once the best weights it had are where an adapter is looked for."""
        state, job = loop.state, self.job
        if not state.best:
            return Diverged(f"{error}; no evaluation came before, so nothing of it is kept")
        if this_process().is_main_process:
            loop.load_best()
            adapter_file.save(assembly, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
        return Diverged(f"{error}; the best weights so far, of step {state.selection.step}, are in {job.run.adapter}")
