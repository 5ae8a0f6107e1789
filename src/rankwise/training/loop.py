"""The training loop: every step of it, in order, in one place.

`fit` repeats `_train_step`, evaluates every so many steps, keeps the best weights, and saves a checkpoint from
which a resumed run goes on as if it had never stopped: the order of rows and the dropout masks are functions of
(seed, step), and everything else that changes is in `State`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from rankwise import files
from rankwise.config import Train
from rankwise.data.batches import batch_order, micro_batches
from rankwise.data.tokens import Tokens
from rankwise.errors import UserError
from rankwise.methods.adalora import Allocation
from rankwise.models.classifier import Classifier, logits_of
from rankwise.scoring import metrics
from rankwise.training import stopping
from rankwise.training.examples import Examples
from rankwise.training.interrupt import StopRequest
from rankwise.training.objective import Objective
from rankwise.training.progress import Progress
from rankwise.training.schedules import Schedule

# A killed run loses no more than this, however far apart its evaluations are, which keep a checkpoint each.
CHECKPOINT_S = 300.0


_FULL_BELOW = 2**20
"""bytes left on a disk that a failed write leaves full"""


@dataclass
class Interval:
    """Sums over the training rows since the last evaluation; validation rows never enter."""

    loss: float = 0.0
    weight: float = 0.0
    correct: int = 0
    rows: int = 0


@dataclass
class State:
    """Everything that changes while training, apart from weights and optimizer."""

    selection: stopping.Selection
    stopper: stopping.Stopper | None
    step: int = 0
    rows_seen: int = 0
    tokens_seen: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    stopped_early: bool = False
    interval: Interval = field(default_factory=Interval)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors only, so that loading never unpickles code."""
        plain = {name: value for name, value in self.__dict__.items() if isinstance(value, int | float | bool)}
        return {
            "plain": plain,
            "selection": asdict(self.selection),
            "stopper": asdict(self.stopper) if self.stopper else None,
            "interval": asdict(self.interval),
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name, value in state["plain"].items():
            setattr(self, name, value)
        stopping.restore(self.selection, state["selection"])
        if self.stopper is not None:
            stopping.restore(self.stopper, state["stopper"])
        self.interval = Interval(**state["interval"])
        self.history = state["history"]
        self.best = state["best"]


class Loop:
    """One run's training: the parts, and the steps that use them."""

    def __init__(
        self,
        classifier: Classifier,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        objective: Objective,
        train: Train,
        *,
        training: Examples,
        validation: Examples | None,
        label_names: Sequence[str],
        total_steps: int,
        checkpoints: Path,
        accelerator: Accelerator,
        allocation: Allocation | None = None,
        on_evaluation: Callable[[State], None] = lambda state: None,
    ) -> None:
        self.classifier = classifier
        self.objective = objective
        self.train = train
        self.training = training
        self.validation = validation
        self.label_names = label_names
        self.total_steps = total_steps
        self.checkpoints = checkpoints
        self.accelerator = accelerator
        self.allocation = allocation
        self.on_evaluation = on_evaluation
        self.schedule = schedule
        rule = train.early_stopping
        self.state = State(stopping.Selection.of(train.select), stopping.Stopper.of(rule) if rule else None)
        self.model, self.optimizer = accelerator.prepare(classifier, optimizer)
        self.eval_every = eval_every(train, total_steps, self.steps_per_epoch)
        self._orders: dict[int, list[np.ndarray]] = {}
        self._saved = time.monotonic()
        accelerator.register_for_checkpointing(self.schedule, self.state, *([allocation] if allocation else []))
        accelerator.register_save_state_pre_hook(self._keep_trainable_only)
        accelerator.register_load_state_pre_hook(self._load_trainable)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every training row once."""
        return steps_per_epoch(len(self.training), self.train)

    def fit(
        self, progress: Progress, stop: StopRequest, *, until: int | None = None, deadline: float | None = None
    ) -> State:
        """Train until the last step, an early stop, or a request to stop.

        until
            A step to pause at, with a checkpoint; the schedule stays that of all steps.
        deadline
            `time.time()` after which the run is evaluated and ends as an early stop.
        """
        last = self.total_steps if until is None else min(until, self.total_steps)
        with progress:
            while self.state.step < last and not self.state.stopped_early:
                self._train_step()
                progress.step(self.state, self._learning_rate())
                asked, late, due = self._agreed(
                    stop.requested,
                    deadline is not None and time.time() >= deadline,
                    time.monotonic() - self._saved >= CHECKPOINT_S,
                )
                self.state.stopped_early = late and self.state.step < self.total_steps
                if self._evaluation_due() or (late and self.validation is not None):
                    self._evaluate(progress)
                    self.save_checkpoint()
                elif asked or due or self.state.step == last:
                    self.save_checkpoint()
                if asked:
                    break
        return self.state

    def _agreed(self, *flags: bool) -> list[bool]:
        """Each flag, set when any process has it set: all of them must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        mine = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(count) for count in self.accelerator.reduce(mine, "sum").tolist()]

    # --- one step -------------------------------------------------------------------------------------

    def _train_step(self) -> None:
        """Forward and backward over the step's micro-batches, then one update."""
        started = time.perf_counter()
        rows = self._rows_of(self.state.step)
        normaliser = self.objective.normaliser(self.training.labels[rows])
        pieces = self._micro_batches(rows)
        self.model.train()
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            self.classifier.set_step(self._dropout_step(number, len(pieces)))
            if last:
                self._forward_backward(piece, normaliser, penalised=True)
            else:
                with self.accelerator.no_sync(self.model):
                    self._forward_backward(piece, normaliser)
        if not pieces:
            self._join_without_rows(rows)
        if self.train.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self._trainable(), self.train.max_grad_norm)
        self.optimizer.step()
        self.state.step += 1
        if self.allocation is not None:
            self.allocation.step(self.state.step)
        self.optimizer.zero_grad()
        self.schedule.step()
        self.state.rows_seen += len(rows)
        self.state.tokens_seen += int(self.training.tokens.lengths[rows].sum())
        self.state.train_s += time.perf_counter() - started

    def _forward_backward(self, rows: np.ndarray, normaliser: float, *, penalised: bool = False) -> None:
        """Add the gradient of some rows' share of the step's loss; count loss and hits on the way.

        penalised
            Add the adapter's own penalty, where it has one: once a step, however many pieces it is cut into.
        """
        labels = torch.from_numpy(self.training.labels[rows]).to(self.accelerator.device)
        texts = self.training.take(rows, self.state.step // self.steps_per_epoch)
        logits = self.model(self.classifier.collate(texts))
        total = self.objective.total(logits, labels)
        # DistributedDataParallel averages gradients over processes; the normaliser already spans them all.
        loss = total * (self.accelerator.num_processes / normaliser)
        if penalised and self.allocation is not None:
            loss = loss + self.allocation.penalty()
        self.accelerator.backward(loss)
        interval = self.state.interval
        interval.loss += total.item()
        interval.weight += self.objective.normaliser(self.training.labels[rows])
        interval.correct += self.objective.correct(logits.detach(), labels)
        interval.rows += len(rows)

    def _join_without_rows(self, rows: np.ndarray) -> None:
        """Take part in the exchange of gradients when a short last batch has no row for this process."""
        logits = self.model(self.classifier.collate(self.training.tokens.take(rows[:1])))
        self.accelerator.backward(logits.sum() * 0.0)

    def _rows_of(self, step: int) -> np.ndarray:
        """The training rows of an optimizer step, over all processes. Shape: (rows,)"""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:
            size = self.train.batch_size * self.train.accumulate
            self._orders = {epoch: batch_order(len(self.training), size, self.train.seed, epoch)}
        return self._orders[epoch][within]

    def _micro_batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """This process's share of a step's rows, cut into forward passes."""
        return micro_batches(
            rows, self.train.batch_size, self.accelerator.process_index, self.accelerator.num_processes
        )

    def _dropout_step(self, micro_batch: int, of: int) -> int:
        step = self.state.step * max(of, self.train.accumulate) + micro_batch
        world, rank = int(self.accelerator.num_processes), int(self.accelerator.process_index)
        return step * world + rank

    def _learning_rate(self) -> float:
        """The adapter's rate; the head's where nothing else trains."""
        groups = self.optimizer.param_groups
        return float(next((group for group in groups if group.get("role") != "head"), groups[0])["lr"])

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    # --- evaluation -----------------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        step = self.state.step
        return self.validation is not None and (step % self.eval_every == 0 or step == self.total_steps)

    def _evaluate(self, progress: Progress) -> None:
        """Score validation, write a history row, keep the weights if they are the best, and maybe stop."""
        assert self.validation is not None
        started = time.perf_counter()
        logits = self._logits(self.validation.tokens)
        scores = metrics.evaluate(logits, self.validation.labels, self.label_names)
        self._sum_interval()
        self.state.eval_s += time.perf_counter() - started
        self.state.history.append(self._history_row(scores))
        self.state.interval = Interval()
        self.schedule.observe(scores["loss"])
        if self.allocation is None or self.allocation.settled:
            self._choose_or_stop(scores)
        self.on_evaluation(self.state)
        progress.evaluation(self.state)

    def _choose_or_stop(self, scores: dict[str, Any]) -> None:
        """Keep these weights if no evaluation was better, and stop when patience is at its end."""
        if self.state.selection.observe(self.state.step, scores):
            self.state.best = {name: value.detach().cpu().clone() for name, value in self._named_trainable()}
        if self.state.stopper is not None and self.state.stopper.observe(scores):
            self.state.stopped_early = self.state.step < self.total_steps

    def _logits(self, tokens: Tokens) -> np.ndarray:
        """Every text's logits, each process scoring its share. Shape: (texts, classes)"""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        if world == 1 or len(tokens) < world:
            return logits_of(self.classifier, tokens, self.train.eval_batch_size)
        own = logits_of(self.classifier, tokens.take(range(rank, len(tokens), world)), self.train.eval_batch_size)
        whole = np.empty((len(tokens), own.shape[1]), dtype=own.dtype)
        for process, piece in enumerate(gather_object([own])):
            whole[process::world] = piece
        return whole

    def _sum_interval(self) -> None:
        """Add up the interval over all processes; the first one keeps the sum, the others go on from nothing."""
        if self.accelerator.num_processes == 1:
            return
        mine = self.state.interval
        values = torch.tensor([mine.loss, mine.weight, mine.correct, mine.rows], dtype=torch.float64)
        loss, weight, correct, rows = self.accelerator.reduce(values.to(self.accelerator.device), "sum").tolist()
        summed = Interval(loss, weight, int(correct), int(rows))
        self.state.interval = summed if self.accelerator.is_main_process else Interval()

    def _history_row(self, scores: dict[str, Any]) -> dict[str, Any]:
        """A row of history.csv; the train columns are of this interval's training rows, as seen with dropout."""
        interval = self.state.interval
        train_loss = interval.loss / interval.weight if interval.weight else None
        train_accuracy = interval.correct / interval.rows if interval.rows else None
        row: dict[str, Any] = {
            "step": self.state.step,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "validation_loss": scores["loss"],
            "validation_accuracy": scores["accuracy"],
            "validation_macro_f1": scores["macro_f1"],
            "learning_rate": self._learning_rate(),
            "epoch": self.state.rows_seen / len(self.training),
        }
        if train_loss is not None and train_accuracy is not None:
            row["loss_spread"] = scores["loss"] - train_loss
            row["loss_ratio"] = scores["loss"] / train_loss if train_loss else None
            row["accuracy_spread"] = train_accuracy - scores["accuracy"]
            row["accuracy_ratio"] = train_accuracy / scores["accuracy"] if scores["accuracy"] else None
        return row

    def _named_trainable(self) -> list[tuple[str, nn.Parameter]]:
        module: nn.Module = self.accelerator.unwrap_model(self.model)
        return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]

    def load_best(self) -> None:
        """Put the best evaluation's weights into the model."""
        own = dict(self._named_trainable())
        with torch.no_grad():
            for name, value in self.state.best.items():
                own[name].copy_(value)

    # --- checkpoints ----------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Save all that a resume needs; the folder appears whole, and only then do older ones go."""
        self._sum_interval()  # one process writes the state, for all of them
        if self.accelerator.is_main_process:
            self._save_checkpoint()
        self.accelerator.wait_for_everyone()
        self._saved = time.monotonic()

    def _save_checkpoint(self) -> None:
        self.checkpoints.mkdir(exist_ok=True)
        target = self.checkpoints / f"step-{self.state.step:08d}"
        with files.new_folder(target) as folder:
            try:
                self.accelerator.save_state(str(folder))
            except (OSError, RuntimeError) as error:  # torch says of a full disk that a position is unexpected
                if shutil.disk_usage(folder).free > _FULL_BELOW:
                    raise
                raise UserError(
                    f"the checkpoint {target} cannot be written: no space is left; make room and resume"
                ) from error
        for older in self.checkpoints.glob("step-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)

    def resume(self) -> bool:
        """Load the newest checkpoint; False when there is none."""
        found = sorted(self.checkpoints.glob("step-*"))
        if not found:
            return False
        self.accelerator.load_state(str(found[-1]))
        if not self.accelerator.is_main_process:
            self.state.interval = Interval()
        return True

    def _keep_trainable_only(self, models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        """Accelerate's hook: the frozen encoder is not part of a checkpoint."""
        weights[:] = [{name: parameter.detach() for name, parameter in self._named_trainable()}]

    def _load_trainable(self, models: list[nn.Module], folder: str) -> None:
        """Accelerate's hook: load what `_keep_trainable_only` kept, and leave it nothing to load."""
        from safetensors.torch import load_file

        models.clear()
        saved = load_file(Path(folder) / "model.safetensors")
        own = dict(self._named_trainable())
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])


def eval_every(train: Train, total_steps: int, steps_per_epoch: int) -> int:
    """Steps between evaluations; twelve over the run when nothing is said, as the papers have."""
    if train.eval_every == "epoch":
        return steps_per_epoch
    return train.eval_every or max(1, -(-total_steps // 12))


def steps_per_epoch(rows: int, train: Train) -> int:
    """Optimizer steps that see every row once; the last may be short."""
    return max(1, -(-rows // (train.batch_size * train.accumulate)))


def total_steps(rows: int, train: Train) -> int:
    """Optimizer steps of the whole run."""
    if train.steps is not None:
        return train.steps
    epochs = train.epochs if train.epochs is not None else 3
    return max(1, round(epochs * steps_per_epoch(rows, train)))
