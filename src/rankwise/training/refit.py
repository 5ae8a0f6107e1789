"""After the best weights are chosen and scored: some steps more, on the rows they were chosen by too.

What was held out chooses and scores first, so every score is of weights that never saw those rows; then it is spent.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from rankwise.data import Rows
from rankwise.deadline import NEVER, Deadline
from rankwise.methods import method_of
from rankwise.models import adapter_file
from rankwise.models.assembly import Assembly
from rankwise.records.result import Refit
from rankwise.training import fitting, prepare, proof
from rankwise.training.interrupt import stop_requests
from rankwise.training.prepare import Job
from rankwise.training.progress import Progress
from rankwise.training.record import Recorder
from rankwise.training.state import State

RATE = 0.2
"""of `train.learning_rate`: the weights are good already"""
_WARMUP = 0.1
FOLDER = "refit"
"""of its checkpoints, inside the run's"""


def on_all_rows(
    job: Job, assembly: Assembly, network: Any, state: State, recorder: Recorder, *, deadline: Deadline = NEVER
) -> Refit | None:
    """Go on from the best weights over training and validation rows, save the adapter and prove it; None where the clock
    ended before, and what was saved stays.

    assembly, network
        Of the job, built anew.
    state
        Of the run that has ended.

    Raises: KeyboardInterrupt when the user stopped it, with a checkpoint from which a resume goes on.
    """
    started, whole = time.perf_counter(), _whole(job)
    train = whole.config.train
    if method_of(job.config).solved_at_once:
        asked = job.config.head.probe_rows
        fitted = fitting.fit_projection(whole, state, assembly, network, recorder, asked, deadline=deadline)
        if len(fitted.rows) < min(asked or len(whole.training), len(whole.training)):
            return None
    else:
        loop = fitting.loop_of(whole, assembly, network, recorder)
        loop.checkpoints = job.run.checkpoints / FOLDER
        if not loop.resume():
            loop.put(state.best)
        with stop_requests() as stop:
            loop.fit(Progress(whole.console, whole.total_steps), stop, deadline=deadline)
        if loop.asked_to_stop:
            raise KeyboardInterrupt
        if loop.state.step < whole.total_steps:
            return None
    adapter_file.save(assembly, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
    _, difference = proof.Live(whole, assembly, network).reloaded()
    solved = method_of(job.config).solved_at_once
    return Refit(
        rows=len(whole.training),
        steps=0 if solved else whole.total_steps,
        learning_rate=None if solved else train.learning_rate,
        seconds=round(time.perf_counter() - started, 3),
        max_logit_difference=difference,
    )


def _whole(job: Job) -> Job:
    """The job over training and validation rows together, at the rate of what is good already."""
    train = job.config.train
    assert job.roles.validation is not None
    steps = train.refit_steps
    assert steps is not None
    again = msgspec.structs.replace(
        train,
        learning_rate=RATE * train.learning_rate,
        head_learning_rate=None if train.head_learning_rate is None else RATE * train.head_learning_rate,
        schedule="linear" if train.schedule == "plateau" else train.schedule,
        warmup_steps=None,
        warmup_ratio=_WARMUP,
        steps=steps,
        epochs=None,
        seed=train.seed + 1,  # another order of rows, other dropout
    )
    assert job.roles.train is not None
    rows = together(job.roles.train, job.roles.validation)
    return replace(
        job,
        config=msgspec.structs.replace(job.config, train=again),
        training=prepare.training_examples(rows, job.label_names, job.tokenizer, job.plan),
        validation=None,
        total_steps=steps,
        console=Console(quiet=True),
    )


def together(train: Rows, validation: Rows) -> Rows:
    """Rows of both, training's first."""
    return Rows(
        texts=[*train.texts, *validation.texts],
        labels=np.concatenate([train.labels, validation.labels]),
        ids=[*train.ids, *validation.ids],
        sha256=f"{train.sha256} {validation.sha256}",
        texts_sha256=f"{train.texts_sha256} {validation.texts_sha256}",
    )
