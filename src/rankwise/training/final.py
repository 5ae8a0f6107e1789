"""What is measured once a run has ended, of the adapter as it was saved."""

from __future__ import annotations

import time

import numpy as np

from rankwise.baselines import tfidf
from rankwise.data import folds
from rankwise.inference.latency import over
from rankwise.methods import method_of
from rankwise.models.classifier import Classifier, logits_of
from rankwise.planning.steps import train_sample_rows
from rankwise.records import Decision, Floor, HistoryRow, LastScores, Latency, Metrics, Scores
from rankwise.scoring import chance, judged, predictions
from rankwise.training import stopping
from rankwise.training.latency import of_network
from rankwise.training.prepare import Job
from rankwise.training.state import State


def scores(job: Job, state: State, classifier: Classifier) -> tuple[Metrics, Decision | None]:
    """The metrics of validation, of its last evaluation, of a sample of training rows, and the floor's; and how answers
    are decided, fitted on validation.
    """
    started = time.perf_counter()
    found, decision = Metrics(), None
    if job.config.data.folds is not None:
        found.validation, decision = _out_of_fold(job)
    elif job.validation is not None:
        found.validation, decision = _validation(job, state, classifier)
        if state.history:  # none of a run that was stopped before its first evaluation
            found.validation_last = _last(state)
    found.train_sample = _train_sample(job, state, classifier, decision)
    state.eval_s += time.perf_counter() - started
    found.floor = _floor(job)
    return found, decision


def latency(job: Job, classifier: Classifier) -> Latency | None:
    """What one text takes with the adapter as it was saved, where a budget is kept to."""
    config, rows = job.config, job.roles.train
    if config.budget.max_ms is None:
        return None
    assert rows is not None
    return of_network(classifier, job.tokenizer, rows, job.training.tokens, config.budget.ms_percentile)


def notes(
    job: Job, state: State, found: Metrics, decision: Decision | None, single: Latency | None = None
) -> list[str]:
    """What a reader of the scores should know."""
    said = stopping.warnings(state.history, state.selection, state.step, stopped_early=state.stopped_early)
    if found.validation is not None and (chance_note := chance.note(found.validation, "validation")):
        said.append(chance_note)
    if found.validation is not None and found.floor is None:
        said.append("no TF-IDF floor beside the scores, scikit-learn is missing: pip install 'rankwise[floor]'")
    if decision is not None and decision.note:
        said.append(decision.note)
    if single is not None and (late := over(single, job.config.budget.max_ms)):
        said.append(late)
    if method_of(job.config).solved_at_once:
        said.append(
            f"adapter.method: {job.config.adapter.method} is solved at once: optimizer, schedule and steps of train do not apply"
        )
    return said


def _validation(job: Job, state: State, classifier: Classifier) -> tuple[Scores, Decision | None]:
    """The metrics at the chosen evaluation and the decision fitted there; every row's prediction is kept beside them."""
    examples, rows = job.validation, job.roles.validation
    assert examples is not None
    assert rows is not None
    logits = logits_of(classifier, examples.tokens, job.config.train.eval_batch_size)
    decision = job.goal.decision(logits, examples.labels, job.label_names)
    if not state.history and method_of(job.config).solved_at_once:
        only = judged.reached(job.goal, logits, examples.labels, job.label_names)
        state.selection.observe(state.step, only)
        state.history = [HistoryRow.of(state.step, only, epoch=1.0)]
        job.run.write_history(state.history)
    step = state.selection.step or state.step
    scores, predicted = judged.judge(decision, logits, examples.labels, job.label_names, step=step)
    predictions.write_logits(job.run.path, "validation", job.label_names, rows, logits, predicted)
    return scores, decision


def _out_of_fold(job: Job) -> tuple[Scores, Decision | None]:
    """The metrics of every row by the run that was not fitted on it, and the decision fitted on them."""
    read = predictions.read(job.run.path, "validation")
    decision = job.goal.decision(read.logits, read.labels, job.label_names)
    scores, predicted = judged.judge(decision, read.logits, read.labels, job.label_names)
    scores.folds = job.config.data.folds
    if decision is not None:
        assert job.roles.validation is not None
        rows = job.roles.validation
        predictions.write_logits(job.run.path, "validation", job.label_names, rows, read.logits, predicted)
    return scores, decision


def _last(state: State) -> LastScores:
    """The last evaluation's scores, beside the chosen one's."""
    row = state.history[-1]
    return LastScores(step=row.step, accuracy=row.validation_accuracy, loss=row.validation_loss)


def _train_sample(job: Job, state: State, classifier: Classifier, decision: Decision | None) -> Scores:
    """The metrics of some training rows as they are, without dropout and augmentation; of those that a head was solved on, by what
    the solver knows of them."""
    labels, chance = job.training.labels, np.random.default_rng(job.config.train.seed)
    count = train_sample_rows(len(labels), None if job.validation is None else len(job.validation))
    if state.solved is not None:
        drawn = chance.choice(len(state.solved.rows), min(count, len(state.solved.rows)), replace=False)
        rows, logits = state.solved.rows[drawn], state.solved.logits[drawn]
    else:
        rows = np.sort(chance.choice(len(labels), count, replace=False))
        logits = logits_of(classifier, job.training.tokens.take(rows), job.config.train.eval_batch_size)
    return judged.judge(decision, logits, labels[rows], job.label_names)[0]


def _floor(job: Job) -> Floor | None:
    """The floor's scores on validation; where words are fitted now, those on test rows are kept for when they are asked for."""
    assert job.roles.train is not None
    if job.config.data.folds is not None:
        parts = folds.splits(job.roles.train.labels, job.config.data.folds, job.config.data.split_seed)
        validation = tfidf.out_of_fold(job.roles.train, parts, job.label_names)
        return None if validation is None else Floor(method=tfidf.METHOD, validation=validation)
    named = {role: rows for role, rows in job.roles.named().items() if role != "train"}
    scored = {role: rows for role, rows in named.items() if role == "validation"} or named
    measured = tfidf.scores(job.roles.train, scored, job.label_names, later=named)
    return Floor(method=tfidf.METHOD, validation=measured.get("validation")) if measured else None
