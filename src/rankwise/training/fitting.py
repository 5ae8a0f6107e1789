"""How a job's model comes to its weights: by the loop, from a checkpoint or a head fitted first; or solved at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from accelerate.utils import broadcast

from rankwise.deadline import NEVER, Deadline
from rankwise.machine import caches
from rankwise.machine.precision import precision_of
from rankwise.methods import method_of
from rankwise.models.assembly import Assembly
from rankwise.models.sources import weights_identity
from rankwise.planning.steps import head_rows
from rankwise.training import probe, stopping
from rankwise.training.interrupt import StopRequest, stop_requests
from rankwise.training.loop import FittedHead, Loop
from rankwise.training.objective import Contrastive
from rankwise.training.optimizers import optimizer
from rankwise.training.prepare import Job
from rankwise.training.progress import Progress
from rankwise.training.record import Recorder
from rankwise.training.schedules import Schedule
from rankwise.training.state import State
from rankwise.training.update import Update


def loop_of(job: Job, assembly: Assembly, network: Any, recorder: Recorder) -> Loop:
    """The loop that trains a network's parameters of an assembly."""
    train = job.config.train
    contrastive = train.objective == "contrastive"
    named = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    optimizing = optimizer(named, train)
    return Loop(
        network,
        Update(
            optimizing,
            [value for _, value in named],
            max_grad_norm=train.max_grad_norm,
            scaled=precision_of(job.config.model.precision, job.plan.engine) == "fp16",
        ),
        Schedule(optimizing, train, job.total_steps),
        Contrastive() if contrastive else job.objective,
        train,
        training=job.training,
        validation=job.validation,
        label_names=job.label_names,
        goal=job.goal,
        total_steps=job.total_steps,
        checkpoints=job.run.checkpoints,
        allocation=method_of(job.config).allocation(assembly.model),
        on_evaluation=recorder.evaluated,
        fitted_head=_fitted_head(job, assembly, network, recorder) if contrastive else None,
    )


def _fitted_head(job: Job, assembly: Assembly, network: Any, recorder: Recorder) -> FittedHead:
    weight, _ = probe.projection_of(assembly)
    return FittedHead(
        aside=lambda: probe.passing_through(network, weight),
        fit=lambda state: fit_projection(job, state, assembly, network, recorder, None, adapted=True),
    )


def fit(
    job: Job,
    assembly: Assembly,
    loop: Loop,
    recorder: Recorder,
    *,
    resume: bool = False,
    stop_at_step: int | None = None,
    deadline: Deadline = NEVER,
    wholly: bool = False,
) -> State:
    """Run the loop, from its checkpoint or from a head fitted first where that is asked for."""
    resumed = resume and loop.resume()
    recorder.session(loop.state.step)
    recorder.write("running", loop.state)
    if job.config.head.probe_first and loop.fitted_head is None and not resumed and not loop.state.step:
        fit_projection(job, loop.state, assembly, loop.classifier, recorder, head_rows(job.config.head))
    with stop_requests() as stop, _prefix_cached(job, loop.state, loop.classifier, stop):
        return loop.fit(
            Progress(job.console, job.total_steps), stop, stop_at_step=stop_at_step, deadline=deadline, wholly=wholly
        )


def solve(job: Job, assembly: Assembly, classifier: Any, recorder: Recorder, deadline: Deadline = NEVER) -> State:
    """Solve the linear probe, on as many rows as the deadline leaves time for; its one evaluation, of the adapter as it was saved,
    stands at the solver's last iteration."""
    state = State(stopping.Selection.of(job.config.train.select), None)
    recorder.session(0)
    fitted = fit_projection(job, state, assembly, classifier, recorder, job.config.head.probe_rows, deadline=deadline)
    state.step, state.solved = fitted.iterations, fitted
    state.rows_seen = len(fitted.rows)
    state.tokens_seen = int(job.training.tokens.lengths[fitted.rows].sum())
    return state


@contextmanager
def _prefix_cached(job: Job, state: State, classifier: Any, stop: StopRequest) -> Iterator[None]:
    """Train on cached outputs of the frozen layers, where that is asked for.

    Every training text's is computed first, on the state's clock, sorted by length and in batches of their own, so
    that what is stored does not depend on the order of training. What is saved, proven and scored afterwards is
    the model without the cache.
    """
    megabytes, tokens = job.config.train.prefix_cache_mb, job.training.tokens
    if megabytes is None:
        yield
        return
    started = time.perf_counter()
    cache = classifier.cache_prefix(
        caches.cache("prefix"),
        max_mb=megabytes,
        weights=weights_identity(job.config.model, job.config.train.seed),
    )
    scored = job.validation.tokens if job.validation is not None else []
    cache.make_room([*tokens, *scored])
    order, size = np.argsort(-tokens.lengths, kind="stable"), job.config.train.eval_batch_size
    try:
        for start in range(0, len(order), size):
            if not cache.has_room or stop.requested:  # what is not stored is computed when it is met
                break
            classifier.collate(tokens.take(order[start : start + size]))
        state.train_s += time.perf_counter() - started
        yield
    finally:
        classifier.forget_prefix()


def fit_projection(
    job: Job,
    state: State,
    assembly: Assembly,
    classifier: Any,
    recorder: Recorder,
    rows: int | None,
    *,
    adapted: bool = False,
    deadline: Deadline = NEVER,
) -> probe.Fitted:
    """Fit the head's projection on features, frozen or adapted, on the state's clock."""
    started, train = time.perf_counter(), job.config.train
    fitted = probe.fit_projection(
        classifier,
        assembly,
        job.training,
        job.objective,
        train.eval_batch_size,
        train.seed,
        rows,
        weights=None if adapted else weights_identity(job.config.model, train.seed),
        way=way_of_features(job, recorder.kernels),
        deadline=deadline,
    )
    for parameter in probe.projection_of(assembly):  # rounding may differ between processes, weights must not
        parameter.data = broadcast(parameter.data)
    state.train_s += time.perf_counter() - started
    return fitted


def way_of_features(job: Job, kernels: str | None) -> str | None:
    """What frozen features depend on beside texts and weights, where no adapter changes them; None where one may."""
    config, plan = job.config, job.plan
    if config.adapter.init in ("pissa", "olora") or not (plan.ranks or method_of(config).solved_at_once):
        return None
    read = "tokens" if plan.encoder.pooling != "first" else plan.encoder.family.dense
    return f"{plan.engine} {config.model.precision} {kernels} {read}"
