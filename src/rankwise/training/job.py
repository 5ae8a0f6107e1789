"""A training job from configuration to run folder: set up, fit, save, prove the file, score, record.

Order matters: the budget is checked before data is read when it can be, always before a weight is; and success is
reported only after the saved adapter, loaded into a fresh base, has given the live model's logits.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from rich.console import Console

from rankwise import config as configuration
from rankwise import data, files, planning
from rankwise.config import Config, ConfigLike
from rankwise.data.tokens import Tokens, tokenise
from rankwise.errors import UserError
from rankwise.models import adapter_file, assemble, tokenizer_of
from rankwise.models.classifier import Classifier, ReferenceClassifier, classifier_of, compiles, logits_of, precision_of
from rankwise.models.sources import locate
from rankwise.runs import calibrate, card, environment, floor, tracking
from rankwise.runs.folder import Run
from rankwise.scoring import metrics, predictions
from rankwise.scoring.calibration import apply_temperature
from rankwise.training import allocation, probe, proof, stopping
from rankwise.training.examples import Augmentation, Examples
from rankwise.training.interrupt import StopRequest, stop_requests
from rankwise.training.loop import Loop, State, total_steps
from rankwise.training.objective import Objective, objective
from rankwise.training.optimizers import check_optimizer, optimizer
from rankwise.training.progress import Progress
from rankwise.training.schedules import Schedule, warmup_steps

# Training rows scored without dropout at the end, beside validation: how far apart the two are is overfitting.
TRAIN_SAMPLE_ROWS = 1_000
# Texts whose activations EVA decomposes, and how many at a time.
EVA_ROWS, EVA_BATCH = 512, 32


def train(
    source: ConfigLike,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    stop_at_step: int | None = None,
    deadline: float | None = None,
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
        `time.time()` at which training ends as an early stop, the best weights so far kept.
    load_data
        `data.load`, or what stands in for it where many runs share their rows.

    Started on several processes (torchrun, accelerate launch), they share each step's rows; one of them writes.

    Raises: UserError for anything the user can mend, BudgetError before any weight is read.
    """
    console = console or Console(stderr=True)
    config = configuration.load(source, overrides)
    processes = PartialState()
    if not processes.is_main_process:
        console = Console(quiet=True)
    run = _open_folder(config, out, resume=resume)
    if resume and _ended(run):
        console.print(f"{run.path} is finished already")
        return run
    job = _set_up(config, run, console, load_data)
    console.print(job.plan.text(), highlight=False)
    console.print(job.roles.report.render())
    processes.wait_for_everyone()  # nobody writes before all have looked at the folder
    return _Recorder(job).run(resume=resume, stop_at_step=stop_at_step, deadline=deadline)


@dataclass
class Job:
    """What is settled before training starts. `config` is resolved: it has numbers for rank, alpha and lengths."""

    config: Config
    run: Run
    plan: planning.Plan
    roles: data.Roles
    tokenizer: Any
    training: Examples
    validation: Examples | None
    objective: Objective
    total_steps: int
    console: Console

    @property
    def label_names(self) -> list[str]:
        return self.roles.label_names


# --- set up -------------------------------------------------------------------------------------------


def _open_folder(config: Config, out: str | Path | None, *, resume: bool) -> Run:
    """The run's folder, refused when it holds another run; nothing is made yet."""
    short = config.model.name.rstrip("/").rpartition("/")[2].removeprefix("packaged:")
    run = Run(Path(out) if out else Path("runs") / f"{short}-{configuration.config_hash(config)}")
    if not (run.path / "config.yaml").exists():
        if run.path.is_dir() and any(run.path.iterdir()):
            raise UserError(f"{run.path} exists and is not a run's folder: choose another with --out")
        return run
    if not resume:
        raise UserError(f"{run.path} holds a run already: continue it with --resume, or choose another with --out")
    return run


def _ended(run: Run) -> bool:
    return (run.path / "result.json").exists() and run.result["status"] in ("finished", "stopped_early")


def _set_up(config: Config, run: Run, console: Console, load_data: Callable[..., data.Roles]) -> Job:
    """Everything before training, cheapest checks first."""
    if config.data.train is None:
        raise UserError("data.train is missing: name a file, a folder, a Hub data set or packaged:bbc-news")
    if config.data.num_labels is not None:
        planning.require_fit(planning.plan(config))
    names = ["train"] + (["validation"] if config.train.evaluate else [])
    roles = load_data(config.data, roles=[*names, "test"])
    plan = planning.plan(config, num_labels=len(roles.label_names))
    planning.require_fit(plan)
    if not config.model.random_weights:
        locate(config.model)  # checks the files before anything is tokenised or written
    tokenizer = tokenizer_of(config.model)
    assert roles.train is not None
    steps = total_steps(len(roles.train), config.train)
    loss = _check_options(plan, roles.train, steps)
    training = _training(roles.train, tokenizer, plan)
    length = training.tokens.max_length
    validation = None
    if roles.validation is not None:
        validation = Examples(_tokens(roles.validation, tokenizer, length, plan), roles.validation.labels)
        roles.report.add_tokens("validation", validation.tokens)
    roles.report.add_tokens("train", training.tokens)
    sizes = msgspec.structs.replace(plan.config.data, num_labels=len(roles.label_names), max_length=length)
    resolved = msgspec.structs.replace(plan.config, data=sizes)
    _same_as_before(run, resolved, roles)
    return Job(resolved, run, plan, roles, tokenizer, training, validation, loss, steps, console)


def _check_options(plan: planning.Plan, train: data.Rows, steps: int) -> Objective:
    """The loss, after refusing what the plan cannot know to be impossible: before texts are tokenised or weights read.

    Raises: UserError.
    """
    config = plan.config
    precision_of(config.model.precision, plan.engine)
    compiles(config.train.compile, plan.engine, steps)
    allocation.check(plan)
    check_optimizer(config.train)
    warmup_steps(config.train, steps)
    return objective(config.train, train.labels, plan.num_labels, multi_label=config.data.multi_label)


def _tokens(rows: data.Rows, tokenizer: Any, max_length: int | None, plan: planning.Plan) -> Tokens:
    """Tokenised rows, from the cache when these texts met this tokenizer before."""
    return tokenise(rows.texts, tokenizer, max_length, files.cache("tokens"), positions=plan.positions)


def _training(rows: data.Rows, tokenizer: Any, plan: planning.Plan) -> Examples:
    """The training rows, which alone are augmented."""
    config = plan.config
    tokens = _tokens(rows, tokenizer, config.data.max_length, plan)
    if not config.data.augment:
        return Examples(tokens, rows.labels)
    changes = Augmentation(rows.texts, config.data.augment, tokenizer, tokens.max_length, config.train.seed)
    return Examples(tokens, rows.labels, changes)


def _same_as_before(run: Run, resolved: Config, roles: data.Roles) -> None:
    """A resume must be of the same run: the schedule, the order of rows and the model depend on every key and row."""
    if not (run.path / "config.yaml").exists():
        return
    before, now = configuration.to_dict(run.config), configuration.to_dict(resolved)
    changed = [
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in now.items()
        for key in (value if isinstance(value, dict) else [section])
        if (before[section][key] != value[key] if isinstance(value, dict) else before[section] != value)
    ]
    if changed:
        raise UserError(f"{run.path} was started with another {changed[0]}: resume with the same configuration")
    recorded = run.result["data"] if (run.path / "result.json").exists() else {}
    for role, rows in roles.named().items():
        if role != "test" and role in recorded and recorded[role]["sha256"] != rows.sha256:
            raise UserError(f"{run.path} was started with other {role} rows: resume with the data as they were")


# --- run ----------------------------------------------------------------------------------------------


class _Recorder:
    """Runs a job and keeps result.json true at every moment."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = time.time()
        self.main = PartialState().is_main_process
        self.tracker: tracking.Tracker | None = None

    def run(self, *, resume: bool, stop_at_step: int | None = None, deadline: float | None = None) -> Run:
        job = self.job
        files.make_writable_folder(job.run.path)
        if self.main:
            job.run.write_config(job.config)
            self.tracker = tracking.open_tracker(job.config, job.run)
        self._write("running")
        try:
            state = self._fit_and_finish(resume=resume, stop_at_step=stop_at_step, deadline=deadline)
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        except BaseException as error:
            self._write("failed", error=f"{type(error).__name__}: {error}")
            raise
        PartialState().wait_for_everyone()
        if state is None:
            raise KeyboardInterrupt
        return job.run

    def _fit_and_finish(self, *, resume: bool, stop_at_step: int | None, deadline: float | None) -> State | None:
        """Train and finish, or pause; None when the user stopped it, with a checkpoint saved."""
        job = self.job
        accelerator = Accelerator(mixed_precision="fp16" if job.config.model.precision == "fp16" else "no")
        model = assemble.build(
            job.config,
            len(job.label_names),
            job.label_names,
            total_steps=job.total_steps,
            batches=lambda: _activation_batches(job),
        )
        classifier = self._classifier(model, accelerator.device)
        if job.config.adapter.method == "probe":
            state = self._probe(model, classifier)
        else:
            loop = self._loop(model, classifier, accelerator)
            state = self._fit(loop, model, resume=resume, stop_at_step=stop_at_step, deadline=deadline)
            if state.step < job.total_steps and not state.stopped_early:
                self._write("interrupted", state, reached=_reached(state))
                return state if state.step == stop_at_step else None
            if self.main and state.best:
                loop.load_best()
            del loop
        if not self.main:
            return state
        adapter_file.save(model, job.run.adapter, tokenizer=job.tokenizer, label_names=job.label_names)
        sample = self._sample()
        live = logits_of(classifier, sample, job.config.train.eval_batch_size)
        del classifier, model
        gc.collect()
        reloaded = self._reload(accelerator.device)
        again = logits_of(reloaded, sample, job.config.train.eval_batch_size)
        difference = proof.prove_equal(live, again, proof.tolerance_of(job.config, job.plan.engine))
        self._score_and_write(state, reloaded, difference)
        return state

    def _loop(self, model: Any, classifier: Any, accelerator: Accelerator) -> Loop:
        job, train = self.job, self.job.config.train
        named = [(name, value) for name, value in classifier.named_parameters() if value.requires_grad]
        optimizing = optimizer(named, train)
        return Loop(
            classifier,
            optimizing,
            Schedule(optimizing, train, job.total_steps),
            job.objective,
            train,
            training=job.training,
            validation=job.validation,
            label_names=job.label_names,
            total_steps=job.total_steps,
            checkpoints=job.run.checkpoints,
            accelerator=accelerator,
            allocation=allocation.allocation_of(model),
            on_evaluation=self._on_evaluation,
        )

    def _on_evaluation(self, state: State) -> None:
        """Keep the history, and send its newest row to the tracker if there is one."""
        if self.main:
            self.job.run.write_history(state.history)
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
        cache = classifier.cache_prefix(files.cache("prefix"), max_mb=megabytes)
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
        if job.config.head.probe_first and not resumed:
            self._fit_projection(loop.state, model, loop.classifier, probe.PROBE_FIRST_ROWS)
        with stop_requests() as stop, self._prefix_cached(loop.state, loop.classifier, stop):
            return loop.fit(Progress(job.console, job.total_steps), stop, until=stop_at_step, deadline=deadline)

    def _probe(self, model: Any, classifier: Any) -> State:
        """Solve the linear probe; its one evaluation stands at the solver's last iteration."""
        job = self.job
        state = State(stopping.Selection.of(job.config.train.select), None)
        state.step = self._fit_projection(state, model, classifier, None)
        state.rows_seen = len(job.training)
        state.tokens_seen = int(job.training.tokens.lengths.sum())
        if job.validation is not None:
            started = time.perf_counter()
            logits = logits_of(classifier, job.validation.tokens, job.config.train.eval_batch_size)
            scores = metrics.evaluate(logits, job.validation.labels, job.label_names)
            state.eval_s = time.perf_counter() - started
            state.selection.observe(state.step, scores)
            row = {f"validation_{name}": scores[name] for name in ("loss", "accuracy", "macro_f1")}
            state.history = [{"step": state.step, "epoch": 1.0, **row}]
            job.run.write_history(state.history)
        return state

    def _fit_projection(self, state: State, model: Any, classifier: Any, rows: int | None) -> int:
        """Fit the head's projection on frozen features, on the state's clock; returns the solver's iterations."""
        job, started = self.job, time.perf_counter()
        train = job.config.train
        iterations = probe.fit_projection(
            classifier, model, job.training, job.objective, train.eval_batch_size, train.seed, rows
        )
        for parameter in probe.projection_of(model):  # rounding may differ between processes, weights must not
            parameter.data = broadcast(parameter.data)
        state.train_s += time.perf_counter() - started
        return iterations

    # --- finish ---------------------------------------------------------------------------------------

    def _sample(self) -> Sequence[np.ndarray]:
        rows = (self.job.validation or self.job.training).tokens
        return [rows[row] for row in range(min(proof.ROWS, len(rows)))]

    def _reload(self, device: torch.device) -> Any:
        """The classifier as a user will load it: a fresh base and the saved file."""
        return self._classifier(adapter_file.load(self.job.run.adapter), device)

    def _classifier(self, model: torch.nn.Module, device: torch.device) -> Any:
        job, pad = self.job, self.job.tokenizer.pad_token_id
        return classifier_of(model, job.plan, job.config, pad_token_id=pad, steps=job.total_steps).to(device)

    def _score_and_write(self, state: State, classifier: Classifier, difference: float) -> None:
        job = self.job
        scores: dict[str, Any] = {}
        started = time.perf_counter()
        if job.validation is not None and job.roles.validation is not None:
            logits = logits_of(classifier, job.validation.tokens, job.config.train.eval_batch_size)
            scores["validation"] = {
                "step": state.selection.step or state.step,
                **metrics.evaluate(logits, job.validation.labels, job.label_names),
            }
            scores["validation_last"] = _last(state)
            predictions.write(
                job.run.path,
                "validation",
                job.label_names,
                rows_sha256=job.roles.validation.sha256,
                ids=job.roles.validation.ids,
                labels=job.validation.labels,
                probabilities=apply_temperature(logits, 1.0, multi_label=job.config.data.multi_label),
            )
        scores["train_sample"] = self._train_sample(classifier)
        state.eval_s += time.perf_counter() - started
        floors = self._floor()
        scores |= floors
        status = "stopped_early" if state.stopped_early else "finished"
        notes = stopping.warnings(state.history, state.selection, state.step, stopped_early=state.stopped_early)
        if not floors and "validation" in scores:
            notes.append("no TF-IDF floor beside the scores, scikit-learn is missing: pip install 'rankwise[floor]'")
        if job.config.adapter.method == "probe":
            notes.append("adapter.method: probe is solved at once: optimizer, schedule and steps of train do not apply")
        # A run killed before its status is written goes on to its end again, calibration included.
        self._write("running", state, metrics=scores, reload={"max_logit_difference": difference}, notes=notes)
        if "validation" in scores:
            calibrate.calibrate(job.run)
        job.run.write_result(job.run.result | {"status": status})
        card.write(job.run)
        if self.tracker is not None:
            self.tracker.finish(scores, state.step)

    def _train_sample(self, classifier: Classifier) -> dict[str, Any]:
        """The metrics of some training rows as they are, without dropout and augmentation."""
        job = self.job
        count = min(TRAIN_SAMPLE_ROWS, len(job.training))
        rows = np.sort(np.random.default_rng(job.config.train.seed).choice(len(job.training), count, replace=False))
        logits = logits_of(classifier, job.training.tokens.take(rows), job.config.train.eval_batch_size)
        return metrics.evaluate(logits, job.training.labels[rows], job.label_names)

    def _floor(self) -> dict[str, Any]:
        """`floor` with the scores on validation; those on test rows wait in the cache until they are asked for."""
        job = self.job
        others = {role: rows for role, rows in job.roles.named().items() if role != "train"}
        assert job.roles.train is not None
        found = floor.scores(job.roles.train, others, job.label_names)
        found.pop("test", None)
        return {"floor": found} if found else {}

    def _write(self, status: str, state: State | None = None, **more: Any) -> None:
        """Replace result.json by what is known now."""
        if not self.main:
            return
        job = self.job
        train_s = state.train_s if state else 0.0
        result: dict[str, Any] = {
            "status": status,
            "parameters": {
                "trainable": job.plan.trainable,
                "budget": job.plan.budget,
                **job.plan.groups,
                "frozen": job.plan.frozen,
                "adapter_bytes": job.plan.adapter_bytes,
            },
            "metrics": {},
            "timing": {
                "train_s": round(train_s, 3),
                "eval_s": round(state.eval_s, 3) if state else 0.0,
                "total_s": round(time.time() - self.started, 3),
                "steps": state.step if state else 0,
                "examples_per_s": round(state.rows_seen / train_s, 2) if state and train_s else None,
                "tokens_per_s": round(state.tokens_seen / train_s, 1) if state and train_s else None,
            },
            "memory": {"peak_mb": environment.peak_mb()},
            "seed": job.config.train.seed,
            "config_hash": configuration.config_hash(job.config),
            "labels": job.label_names,
            "engine": {
                "path": job.plan.engine,
                "reason": job.plan.engine_reason,
                "precision": precision_of(job.config.model.precision, job.plan.engine),
                "compiled": compiles(job.config.train.compile, job.plan.engine, job.total_steps),
            },
            "data": {role: {"rows": len(rows), "sha256": rows.sha256} for role, rows in job.roles.named().items()},
            "texts": job.roles.report.to_dict(),
            "environment": environment.describe(),
            **more,
        }
        job.run.write_result(result)


def _reached(state: State) -> dict[str, Any]:
    """Where a run stands that is not finished: its step, its best evaluation so far and its last."""
    scores = [
        {name: row[f"validation_{name}"] for name in ("accuracy", "loss", "macro_f1")} | {"step": row["step"]}
        for row in state.history
    ]
    # AdaLoRA chooses no weights before its ranks are final: until then the last evaluation stands for it.
    best = [score for score in scores if score["step"] == state.selection.step] or scores[-1:]
    return {"step": state.step, "best": best[-1] if best else None, "last": scores[-1] if scores else None}


def _activation_batches(job: Job) -> list[dict[str, torch.Tensor]]:
    """Batches of training texts, drawn by the seed, for an initialisation that looks at activations."""
    rows = np.random.default_rng(job.config.train.seed).permutation(len(job.training))[:EVA_ROWS]
    collate = ReferenceClassifier(
        torch.nn.Identity(), pad_token_id=job.tokenizer.pad_token_id, precision="fp32"
    ).collate
    starts = range(0, len(rows), EVA_BATCH)
    return [collate(job.training.tokens.take(rows[start : start + EVA_BATCH])) for start in starts]


def _last(state: State) -> dict[str, Any]:
    """The last evaluation's scores, beside the chosen one's."""
    row = state.history[-1]
    return {"step": row["step"], "accuracy": row["validation_accuracy"], "loss": row["validation_loss"]}
