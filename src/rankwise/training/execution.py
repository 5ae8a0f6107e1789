"""A job carried out: the model built, trained, saved, loaded again, proven, scored and recorded."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast

from rankwise.config import Config
from rankwise.inference import calibrate
from rankwise.inference import saved as saving
from rankwise.inference.classifier import load_classifier
from rankwise.machine import caches
from rankwise.machine.processes import this_process
from rankwise.machine.seeds import own_generators
from rankwise.methods import method_of
from rankwise.models import adapter_file, assemble
from rankwise.models.classifier import Classifier, ReferenceClassifier, classifier_of, logits_of
from rankwise.models.sources import weights_identity
from rankwise.records import AdapterRecord
from rankwise.records.adapter import FILE as ADAPTER_RECORD
from rankwise.records.record import changing
from rankwise.records.result import Proof
from rankwise.runs import card
from rankwise.runs.folder import Run
from rankwise.scoring import metrics
from rankwise.training import cross_validation, final, probe, proof, record, stopping, tracking
from rankwise.training.interrupt import StopRequest, stop_requests
from rankwise.training.loop import FittedHead, Loop
from rankwise.training.objective import Contrastive
from rankwise.training.optimizers import optimizer
from rankwise.training.prepare import Job
from rankwise.training.progress import Progress
from rankwise.training.schedules import Schedule
from rankwise.training.state import State
from rankwise.training.stopping import Diverged
from rankwise.training.update import Update

# Texts whose activations EVA decomposes, and how many at a time.
EVA_ROWS, EVA_BATCH = 512, 32


class Execution:
    """Runs a job and keeps result.json true at every moment."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = time.time()
        self.earlier_s = 0.0
        """seconds of the sessions that this one goes on from"""
        self.main = this_process().is_main_process
        self.sessions: list[int] = []
        """the step that every session began from, this one's last"""
        self.state: State | None = None
        """of the loop, once there is one"""
        self.tracker: tracking.Tracker | None = None
        self.kernels: str | None = None
        """what the model computes with, once it is there: see `FastClassifier.computes_with`"""

    def run(self, *, resume: bool, stop_at_step: int | None = None, deadline: float | None = None) -> Run:
        """Run to the end, or to a pause.

        Raises: KeyboardInterrupt when the user stopped it, with a checkpoint saved.
        """
        job = self.job
        if resume:
            self.earlier_s, self.sessions = record.total_s(job.run), record.sessions(job.run)
        if self.main:
            job.run.write_config(job.config)
            self.tracker = tracking.open_tracker(job.config, job.run)
        self._write("running")
        try:
            if job.config.data.folds is not None:
                cross_validation.score_rows(job, lambda fold, **options: Execution(fold).run(**options))
            with own_generators(job.config.train.seed):
                state = self._fit_and_finish(resume=resume, stop_at_step=stop_at_step, deadline=deadline)
        except KeyboardInterrupt:
            self._write("interrupted", self.state)
            raise
        except Diverged as error:
            self._write("failed", self.state, error=str(error), reached=record.reached(self.state))
            raise
        except BaseException as error:
            self._write("failed", self.state, error=f"{type(error).__name__}: {error}")
            raise
        if state is None:
            raise KeyboardInterrupt
        return job.run

    def answers(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Train, and answer for texts given as token ids; nothing is saved, proven or scored. Shape: (texts, classes)

        Raises: Diverged.
        """
        job = self.job
        with own_generators(job.config.train.seed):
            model = self._built(job.config)
            classifier = self._classifier(model, this_process().device)
            self.kernels = getattr(classifier, "computes_with", "torch")
            if method_of(job.config).solved_at_once:
                self._probe(model, classifier)
            else:
                self._fit(self._loop(model, classifier), model, resume=False, stop_at_step=None, deadline=None)
            return logits_of(classifier, texts, job.config.train.eval_batch_size)

    def _fit_and_finish(self, *, resume: bool, stop_at_step: int | None, deadline: float | None) -> State | None:
        """Train and finish, or pause; None when the user stopped it, with a checkpoint saved."""
        job, device = self.job, this_process().device
        model = self._built(job.config)
        classifier = self._classifier(model, device)
        self.kernels = getattr(classifier, "computes_with", "torch")
        if method_of(job.config).solved_at_once:
            state = self._probe(model, classifier)
        else:
            loop = self._loop(model, classifier)
            self.state = loop.state
            try:
                state = self._fit(loop, model, resume=resume, stop_at_step=stop_at_step, deadline=deadline)
            except Diverged as error:
                raise self._with_best_kept(error, loop, model) from error
            if state.step < job.total_steps and not state.stopped_early:
                self._write("interrupted", state, reached=record.reached(state))
                return None if loop.asked_to_stop and state.step != stop_at_step else state
            if self.main and state.best:
                loop.load_best()
            del loop
        if not self.main:
            return state
        adapter_file.save(model, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
        compared = proof.config_of(job.config, job.plan.engine)
        # Where another configuration is compared, all that is needed of the model is what it trained: never are two bases
        # in memory, the live one and the one it is proven by.
        same = compared is job.config
        trained = {} if same else {name: value.detach().clone() for name, value in model.assembly.trainable.items()}
        live = self._logits_to_prove(classifier) if same else None
        del classifier, model
        gc.collect()
        if live is None:
            live = self._live_logits(trained, device, compared)
        reloaded, difference = self._reloaded(live, device, compared)
        self._score_and_record(state, reloaded, difference)
        return state

    def _with_best_kept(self, error: Diverged, loop: Loop, model: Any) -> Diverged:
        """The error of a run that diverged, once the best weights it had are where an adapter is looked for."""
        state, job = loop.state, self.job
        if not state.best:
            return Diverged(f"{error}; no evaluation came before, so nothing of it is kept")
        if self.main:
            loop.load_best()
            adapter_file.save(model, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
        return Diverged(f"{error}; the best weights so far, of step {state.selection.step}, are in {job.run.adapter}")

    def _live_logits(self, trained: dict[str, torch.Tensor], device: torch.device, compared: Config) -> np.ndarray:
        """What the saved adapter has to repeat under another configuration (`proof.config_of`): the trained parameters in
        a base of it. Shape: (rows, classes)"""
        model = self._built(compared)
        with torch.no_grad():
            for name, value in model.assembly.trainable.items():
                value.copy_(trained[name])
        return self._logits_to_prove(self._classifier(model, device, compared))

    def _reloaded(self, live: np.ndarray, device: torch.device, compared: Config) -> tuple[Any, float]:
        """The saved adapter in a fresh base, once it has repeated the live logits, and the largest difference."""
        saved, engine = saving.read(self.job.run.adapter), self.job.plan.engine

        def served(precision: str) -> Any:
            return load_classifier(saved, engine=engine, precision=precision).to(device)

        reloaded = served(compared.model.precision)
        difference = proof.prove_equal(live, self._logits_to_prove(reloaded))
        if compared is not self.job.config:
            reloaded = served(self.job.config.model.precision)
        return reloaded, difference

    def _logits_to_prove(self, classifier: Any) -> np.ndarray:
        rows = (self.job.validation or self.job.training).tokens
        sample = rows.take(range(min(proof.ROWS, len(rows))))
        return logits_of(classifier, sample, self.job.config.train.eval_batch_size)

    def _built(self, config: Config) -> Any:
        """The PEFT model of this job under a configuration of it."""
        job = self.job
        return assemble.build(
            config,
            len(job.label_names),
            job.label_names,
            total_steps=job.total_steps,
            batches=lambda: _activation_batches(job),
        )

    def _classifier(self, model: torch.nn.Module, device: torch.device, config: Config | None = None) -> Any:
        job, pad = self.job, self.job.tokenizer.pad_token_id
        return classifier_of(model, job.plan, config or job.config, pad_token_id=pad).to(device)

    def _loop(self, model: Any, classifier: Any) -> Loop:
        job, train = self.job, self.job.config.train
        contrastive = train.objective == "contrastive"
        named = [(name, value) for name, value in classifier.named_parameters() if value.requires_grad]
        optimizing = optimizer(named, train)
        return Loop(
            classifier,
            Update(
                optimizing,
                [value for _, value in named],
                max_grad_norm=train.max_grad_norm,
                scaled=job.config.model.precision == "fp16",
            ),
            Schedule(optimizing, train, job.total_steps),
            Contrastive(train.temperature) if contrastive else job.objective,
            train,
            training=job.training,
            validation=job.validation,
            label_names=job.label_names,
            goal=job.goal,
            total_steps=job.total_steps,
            checkpoints=job.run.checkpoints,
            allocation=method_of(job.config).allocation(model),
            on_evaluation=self._on_evaluation,
            fitted_head=self._fitted_head(model, classifier) if contrastive else None,
        )

    def _fitted_head(self, model: Any, classifier: Any) -> FittedHead:
        weight, _ = probe.projection_of(model)
        return FittedHead(
            aside=lambda: probe.passing_through(classifier, weight),
            fit=lambda state: self._fit_projection(state, model, classifier, None, adapted=True),
        )

    def _on_evaluation(self, state: State) -> None:
        """Keep the history, and send its newest row to the tracker if there is one."""
        if self.main:
            self.job.run.write_history(state.history, self.job.config.train.watched)
            if self.tracker is not None:
                self.tracker.evaluation(state.history[-1])

    @contextmanager
    def _prefix_cached(self, state: State, classifier: Any, stop: StopRequest) -> Iterator[None]:
        """Train on cached outputs of the frozen layers, where that is asked for.

        Every training text's is computed first, on the state's clock, sorted by length and in batches of their own, so
        that what is stored does not depend on the order of training. What is saved, proven and scored afterwards is
        the model without the cache.
        """
        megabytes, tokens = self.job.config.train.prefix_cache_mb, self.job.training.tokens
        if megabytes is None:
            yield
            return
        started = time.perf_counter()
        cache = classifier.cache_prefix(
            caches.cache("prefix"),
            max_mb=megabytes,
            weights=weights_identity(self.job.config.model, self.job.config.train.seed),
        )
        scored = self.job.validation.tokens if self.job.validation is not None else []
        cache.make_room([*tokens, *scored])
        order, size = np.argsort(-tokens.lengths, kind="stable"), self.job.config.train.eval_batch_size
        try:
            for start in range(0, len(order), size):
                if not cache.has_room or stop.requested:  # what is not stored is computed when it is met
                    break
                classifier.collate(tokens.take(order[start : start + size]))
            state.train_s += time.perf_counter() - started
            yield
        finally:
            classifier.forget_prefix()

    def _fit(self, loop: Loop, model: Any, *, resume: bool, stop_at_step: int | None, deadline: float | None) -> State:
        """Run the loop, from its checkpoint or from a head fitted first where that is asked for."""
        job = self.job
        resumed = resume and loop.resume()
        self.sessions.append(loop.state.step)
        self._write("running", loop.state)
        if job.config.head.probe_first and loop.fitted_head is None and not resumed:
            few = None if job.config.head.penalty == "auto" else probe.PROBE_FIRST_ROWS
            self._fit_projection(loop.state, model, loop.classifier, few)
        with stop_requests() as stop, self._prefix_cached(loop.state, loop.classifier, stop):
            return loop.fit(Progress(job.console, job.total_steps), stop, until=stop_at_step, deadline=deadline)

    def _probe(self, model: Any, classifier: Any) -> State:
        """Solve the linear probe; its one evaluation stands at the solver's last iteration."""
        job = self.job
        state = State(stopping.Selection.of(job.config.train.select), None)
        self.sessions.append(0)
        state.step = self._fit_projection(state, model, classifier, None)
        state.rows_seen = len(job.training)
        state.tokens_seen = int(job.training.tokens.lengths.sum())
        if job.validation is not None:
            started = time.perf_counter()
            logits = logits_of(classifier, job.validation.tokens, job.config.train.eval_batch_size)
            scores = metrics.evaluate(logits, job.validation.labels, job.label_names)
            scores[job.goal.text] = job.goal.value(scores, logits, job.validation.labels, job.label_names)
            state.eval_s = time.perf_counter() - started
            state.selection.observe(state.step, scores)
            row = {f"validation_{name}": scores[name] for name in ("loss", "accuracy", "macro_f1", job.goal.text)}
            state.history = [{"step": state.step, "epoch": 1.0, **row}]
            job.run.write_history(state.history, job.config.train.watched)
        return state

    def _fit_projection(
        self, state: State, model: Any, classifier: Any, rows: int | None, *, adapted: bool = False
    ) -> int:
        """Fit the head's projection on features, frozen or adapted, on the state's clock; returns the solver's iterations."""
        job, started = self.job, time.perf_counter()
        train = job.config.train
        iterations = probe.fit_projection(
            classifier,
            model,
            job.training,
            job.objective,
            train.eval_batch_size,
            train.seed,
            rows,
            weights=None if adapted else weights_identity(job.config.model, train.seed),
            way=self._way_of_features(),
        )
        for parameter in probe.projection_of(model):  # rounding may differ between processes, weights must not
            parameter.data = broadcast(parameter.data)
        state.train_s += time.perf_counter() - started
        return iterations

    def _way_of_features(self) -> str | None:
        """What frozen features depend on beside texts and weights, where no adapter changes them; None where one may."""
        config, plan = self.job.config, self.job.plan
        if config.adapter.init in ("pissa", "olora") or not (plan.ranks or method_of(config).solved_at_once):
            return None
        read = "tokens" if plan.encoder.pooling != "first" else plan.encoder.family.dense
        return f"{plan.engine} {config.model.precision} {self.kernels} {read}"

    # --- record ---------------------------------------------------------------------------------------

    def _score_and_record(self, state: State, classifier: Classifier, difference: float) -> None:
        """What a finished run says of itself; `finished` is written last."""
        job = self.job
        scores, decision = final.scores(job, state, classifier)
        proven = Proof(max_logit_difference=difference)
        # A run killed before its status is written goes on to its end again, calibration included.
        self._write(
            "running",
            state,
            metrics=scores,
            reload=proven,
            notes=final.notes(job, state, scores, decision),
            decision=decision,
        )
        if decision is not None:
            with changing(job.run.adapter / ADAPTER_RECORD, AdapterRecord) as adapter:
                adapter.decision = decision
        if scores.validation is not None:
            calibrate.calibrate(job.run)
        with job.run.changing() as result:
            result.status = "stopped_early" if state.stopped_early else "finished"
        card.write(job.run)
        if self.tracker is not None:
            self.tracker.finish(scores.to_dict(), state.step)

    def _write(self, status: str, state: State | None = None, **more: Any) -> None:
        """Replace result.json by what is known now."""
        if self.main:
            seconds = self.earlier_s + time.time() - self.started
            result = record.result_of(self.job, status, state, seconds)
            result.sessions, result.engine.kernels = self.sessions, self.kernels
            for name, value in more.items():
                setattr(result, name, value)
            self.job.run.write_record(result)


def _activation_batches(job: Job) -> list[dict[str, torch.Tensor]]:
    """Batches of training texts, drawn by the seed, for an initialisation that looks at activations."""
    rows = np.random.default_rng(job.config.train.seed).permutation(len(job.training))[:EVA_ROWS]
    collate = ReferenceClassifier(
        torch.nn.Identity(), pad_token_id=job.tokenizer.pad_token_id, precision="fp32"
    ).collate
    starts = range(0, len(rows), EVA_BATCH)
    return [collate(job.training.tokens.take(rows[start : start + EVA_BATCH])) for start in starts]
