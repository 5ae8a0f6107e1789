"""The training loop: every step of it, in order, in one place.

`fit` repeats `_train_step`, evaluates every so many steps, keeps the best weights, and saves a checkpoint from
which a resumed run goes on as if it had never stopped: the order of rows and the dropout masks are functions of
(seed, step), and everything else that changes is in `State`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from rankwise.config import Train
from rankwise.data.batches import batch_order, grouped_order, micro_batches
from rankwise.data.tokens import Tokens
from rankwise.deadline import NEVER, Deadline
from rankwise.machine.processes import agreed, summed, this_process
from rankwise.machine.transfer import Reading, sent
from rankwise.methods.adalora import Allocation
from rankwise.models.classifier import Classifier, computing, logits_of
from rankwise.planning.steps import eval_every, steps_per_epoch
from rankwise.records import HistoryRow, Scores
from rankwise.scoring import judged
from rankwise.scoring.goals import Goal
from rankwise.training import checkpoint, stopping
from rankwise.training.average import Average
from rankwise.training.examples import Examples
from rankwise.training.interrupt import StopRequest
from rankwise.training.objective import Contrastive, Objective
from rankwise.training.progress import Progress
from rankwise.training.schedules import Schedule
from rankwise.training.state import Interval, State
from rankwise.training.stopping import Diverged
from rankwise.training.update import Update

# A killed run loses no more than this, however far apart its evaluations are, which keep a checkpoint each.
CHECKPOINT_S = 300.0
_LATELY = 32
"""steps, by whose time is told how fast the machine is now: texts differ in length, so a few say little"""
_TELLING = 4
"""steps, after which it is told whether there is time for all"""


@dataclass(frozen=True)
class FittedHead:
    """A head that no step trains: it is fitted on what the adapters give, whenever it is to answer.

    aside
        Lets the classifier return what the head reads instead of logits.
    fit
        Fits it, on the state's clock.
    """

    aside: Callable[[], AbstractContextManager[None]]
    fit: Callable[[State], object]


@dataclass(frozen=True)
class _Told:
    """What a step's forward passes came to, on its way from the device.

    sums
        Loss and rows right of every micro-batch. Shape: (micro-batches, 2)
    weight, rows
        Of all of them, as `Interval` counts.
    learning_rate
        Of the step.
    """

    step: int
    sums: Reading
    weight: float
    rows: int
    learning_rate: float


class Loop:
    """One run's training: the parts, and the steps that use them."""

    def __init__(
        self,
        classifier: Classifier,
        update: Update,
        schedule: Schedule,
        objective: Objective | Contrastive,
        train: Train,
        *,
        training: Examples,
        validation: Examples | None,
        label_names: Sequence[str],
        goal: Goal,
        total_steps: int,
        checkpoints: Path,
        allocation: Allocation | None = None,
        on_evaluation: Callable[[State], None] = lambda state: None,
        fitted_head: FittedHead | None = None,
    ) -> None:
        self.classifier = classifier
        self._module = cast("nn.Module", classifier)
        self.objective = objective
        self.train = train
        self.training = training
        self.validation = validation
        self.label_names = label_names
        self.goal = goal
        self.total_steps = total_steps
        self.checkpoints = checkpoints
        self.update = update
        self.processes = this_process()
        self.allocation = allocation
        self.on_evaluation = on_evaluation
        self.fitted_head = fitted_head
        """of steps that do not train the head"""
        self.average = None if train.average_from is None else Average(self._named_trainable(), train.average_from)
        self.schedule = schedule
        rule = train.early_stopping
        self.state = State(stopping.Selection.of(train.select), stopping.Stopper.of(rule) if rule else None)
        self.eval_every = eval_every(train, total_steps, self.steps_per_epoch)
        self._orders: dict[int, list[np.ndarray]] = {}
        self._saved = time.monotonic()
        self._lately: deque[float] = deque(maxlen=_LATELY)
        self._told: deque[_Told] = deque()
        self.reads_behind = self.processes.device.type != "cpu"
        """whether a step's loss is read while the next one computes: a device that is asked at once has nothing to do meanwhile"""
        self.asked_to_stop = False

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every training row once."""
        return steps_per_epoch(len(self.training), self.train)

    def fit(
        self,
        progress: Progress,
        stop: StopRequest,
        *,
        stop_at_step: int | None = None,
        deadline: Deadline = NEVER,
        wholly: bool = False,
    ) -> State:
        """Train until the last step, an early stop, a pause, or a request to stop.

        stop_at_step
            To pause there, with a checkpoint; the schedule stays that of all steps.
        deadline
            After which the run is evaluated and ends as an early stop, sooner where steps have become slow; or pauses, where
            it was to pause anyway: whether it is worth ending is then for others to judge.
        wholly
            Whether fewer steps are worth nothing: it ends as soon as its steps say that it will not come there by the deadline.

        Raises: Diverged.
        """
        if self.average is not None:
            self.average.take_back()
        self._take_steps(progress, stop, stop_at_step, deadline, wholly)
        if self.average is not None and self.state.step:
            self.average.put()
        if self.fitted_head is not None and self.state.step and not self.state.best:  # which has a fitted one
            self.fitted_head.fit(self.state)
        return self.state

    def _take_steps(
        self, progress: Progress, stop: StopRequest, stop_at_step: int | None, deadline: Deadline, wholly: bool
    ) -> None:
        """Those of `fit`."""
        last = self.total_steps if stop_at_step is None else min(stop_at_step, self.total_steps)
        pausing = last < self.total_steps

        def is_late() -> bool:
            if wholly and len(self._lately) >= _TELLING:
                return deadline.left_s() <= (last - self.state.step) * statistics.median(self._lately)
            return deadline.left_s(0.0 if pausing else self._pace()) <= 0

        if self._can_end() and any(agreed(is_late())):  # gone on with after the deadline: to be ended as it is
            self.state.stopped_early = not pausing
            return
        if stop.requested:
            self.asked_to_stop = True
            return
        with progress, computing(self.classifier):
            while self.state.step < last and not self.state.stopped_early:
                self._train_step()
                progress.step(self.state, self._learning_rate())
                asked, late, due = agreed(stop.requested, is_late(), time.monotonic() - self._saved >= CHECKPOINT_S)
                self.state.stopped_early = late and not pausing and self.state.step < self.total_steps
                if self._evaluation_due() or (late and self.validation is not None):
                    self._evaluate(progress)
                    self.save_checkpoint()
                elif asked or late or due or self.state.step == last:
                    self.save_checkpoint()
                self.asked_to_stop = asked
                if asked or (late and pausing):
                    break

    def _can_end(self) -> bool:
        """Whether there is something to end with: a step, and its scores where scores are wanted."""
        begun = 0 < self.state.step < self.total_steps
        return begun and (self.validation is None or bool(self.state.history))

    # --- one step -------------------------------------------------------------------------------------

    def _train_step(self) -> None:
        """Forward and backward over the step's micro-batches, then one update.

        Raises: Diverged when the loss is not finite, before anything is updated; or, of a loss that is read behind its step, before
            anything is scored or saved.
        """
        started = time.perf_counter()
        rows = self._rows_of(self.state.step)
        normaliser = self.objective.normaliser(self.training.labels[rows])
        pieces = self._micro_batches(rows)
        self._module.train()
        sums = []
        for number, piece in enumerate(pieces):
            self.classifier.set_step(self._dropout_step(number, len(pieces)))
            sums.append(self._forward_backward(piece, normaliser))
        self._tell(pieces, sums)
        if self.allocation is not None:  # once a step, whatever it is cut into
            self.update.backward(self.allocation.penalty() / self.processes.num_processes)
        self.update.apply()
        self.state.step += 1
        if self.average is not None:
            self.average.step(self.state.step)
        if self.allocation is not None:
            self.allocation.step(self.state.step)
        self.update.clear()
        self.schedule.step()
        self.state.rows_seen += len(rows)
        self.state.tokens_seen += int(self.training.tokens.lengths[rows].sum())
        self._lately.append(time.perf_counter() - started)
        self.state.train_s += self._lately[-1]

    def _pace(self) -> float:
        """Seconds of a step by now; none before enough have been taken."""
        return sum(self._lately) / _LATELY if len(self._lately) == _LATELY else 0.0

    def _forward_backward(self, rows: np.ndarray, normaliser: float) -> Tensor:
        """Add the gradient of some rows' share of the step's loss. Returns: the loss, and how many are right. Shape: (2,)"""
        labels = sent(torch.from_numpy(self.training.labels[rows]), self.processes.device)
        texts = self.training.take(rows, self.state.step // self.steps_per_epoch)
        with self.fitted_head.aside() if self.fitted_head else nullcontext():
            logits = self.classifier(self.classifier.collate(texts))
        total = self.objective.total(logits, labels)
        self.update.backward(total / normaliser)  # which spans all processes
        return torch.stack([total.detach(), self.objective.correct(logits.detach(), labels).to(total.dtype)])

    def _tell(self, pieces: Sequence[np.ndarray], sums: Sequence[Tensor]) -> None:
        """Count what a step's micro-batches came to: at once, or, where it is read behind, what the step before came to.

        Raises: Diverged.
        """
        weight = sum(self.objective.normaliser(self.training.labels[rows]) for rows in pieces)
        # A process may have no row of a short last batch.
        reading = Reading(torch.stack(list(sums)) if sums else torch.zeros(0, 2))
        rate = self._learning_rate()
        self._told.append(_Told(self.state.step + 1, reading, weight, sum(map(len, pieces)), rate))
        self._listen(but=1 if self.reads_behind else 0)

    def _listen(self, *, but: int = 0) -> None:
        """Count what steps came to, all but the last so many.

        Raises: Diverged for a loss that is not finite.
        """
        while len(self._told) > but:
            told = self._told.popleft()
            sums = told.sums.read()
            if any(agreed(not math.isfinite(sum(loss for loss, _ in sums)))):
                self._told.clear()
                self.state.step = told.step - 1
                raise self._diverged("the loss is not finite", told.step, told.learning_rate, trained=told.step > 1)
            interval = self.state.interval
            for loss, correct in sums:
                interval.loss += loss
                interval.correct += int(correct)
            interval.weight += told.weight
            interval.rows += told.rows

    def _catch_up(self) -> None:
        """Count what all steps came to; waiting for the last of them is training.

        Raises: Diverged.
        """
        started = time.perf_counter()
        self._listen()
        self.state.train_s += time.perf_counter() - started

    def _diverged(self, what: str, step: int, rate: float, *, trained: bool = True) -> Diverged:
        """The sentence for a run that cannot go on: at which step, and at what rate."""
        if not trained:
            return Diverged(
                f"training diverged at step {step}: {what} before anything was trained, so that no rate helps: a weight of the "
                "base is no number, or too large for model.precision"
            )
        return Diverged(
            f"training diverged at step {step}: {what}; lower train.learning_rate, which is "
            f"{self.train.learning_rate:g} ({rate:.3g} at that step)"
        )

    def _rows_of(self, step: int) -> np.ndarray:
        """The training rows of an optimizer step, over all processes. Shape: (rows,)"""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:
            size = self.train.batch_size * self.train.accumulate
            self._orders = {epoch: self._order(size, epoch)}
        return self._orders[epoch][within]

    def _order(self, size: int, epoch: int) -> list[np.ndarray]:
        """The rows of every step of an epoch."""
        if self.fitted_head is not None:  # its steps compare texts of a class, which must meet
            return grouped_order(self.training.labels, size, self.train.seed, epoch)
        return batch_order(len(self.training), size, self.train.seed, epoch)

    def _micro_batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """This process's share of a step's rows, cut into forward passes."""
        return micro_batches(rows, self.train.batch_size, self.processes.process_index, self.processes.num_processes)

    def _dropout_step(self, micro_batch: int, of: int) -> int:
        step = self.state.step * max(of, self.train.accumulate) + micro_batch
        return int(step * self.processes.num_processes + self.processes.process_index)

    def _learning_rate(self) -> float:
        """The adapter's rate; the head's where nothing else trains."""
        groups = self.update.optimizer.param_groups
        return float(next((group for group in groups if group.get("role") != "head"), groups[0])["lr"])

    # --- evaluation -----------------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        step = self.state.step
        due = step % self.eval_every == 0 or step == self.total_steps or step in self.train.evaluate_at
        return self.validation is not None and due

    def _evaluate(self, progress: Progress) -> None:
        """Score validation, write a history row, keep the weights if they are the best, and maybe stop."""
        assert self.validation is not None
        self._catch_up()
        if self.average is not None:
            self.average.put()
        if self.fitted_head is not None:
            self.fitted_head.fit(self.state)
        started = time.perf_counter()
        logits = self._logits(self.validation.tokens)
        if not np.isfinite(logits).all():
            raise self._diverged("validation's logits are not finite", self.state.step, self._learning_rate())
        scores = judged.reached(self.goal, logits, self.validation.labels, self.label_names)
        self._sum_interval()
        self.state.eval_s += time.perf_counter() - started
        self.state.history.append(self._history_row(scores))
        self.state.interval = Interval()
        self.schedule.observe(scores.loss)
        if self.allocation is None or self.allocation.settled:
            self._choose_or_stop(scores)
        if self.average is not None:
            self.average.take_back()
        self.on_evaluation(self.state)
        progress.evaluation(self.state)

    def _choose_or_stop(self, scores: Scores) -> None:
        """Keep these weights if no evaluation was better, and stop when patience is at its end."""
        if self.state.selection.observe(self.state.step, scores):
            self.state.best = {name: value.detach().cpu().clone() for name, value in self._named_trainable()}
        if self.state.stopper is not None and self.state.stopper.observe(scores):
            self.state.stopped_early = self.state.step < self.total_steps

    def _logits(self, tokens: Tokens) -> np.ndarray:
        """Every text's logits, each process scoring its share. Shape: (texts, classes)"""
        world, rank = self.processes.num_processes, self.processes.process_index
        if world == 1 or len(tokens) < world:
            return logits_of(self.classifier, tokens, self.train.eval_batch_size)
        own = logits_of(self.classifier, tokens.take(range(rank, len(tokens), world)), self.train.eval_batch_size)
        whole = np.empty((len(tokens), own.shape[1]), dtype=own.dtype)
        for process, piece in enumerate(gather_object([own])):
            whole[process::world] = piece
        return whole

    def _sum_interval(self) -> None:
        """Add up the interval over all processes; the first one keeps the sum, the others go on from nothing."""
        if self.processes.num_processes == 1:
            return
        mine = self.state.interval
        values = torch.tensor([mine.loss, mine.weight, mine.correct, mine.rows], dtype=torch.float64)
        loss, weight, correct, rows = summed(values.to(self.processes.device)).tolist()
        total = Interval(loss, weight, int(correct), int(rows))
        self.state.interval = total if self.processes.is_main_process else Interval()

    def _history_row(self, scores: Scores) -> HistoryRow:
        """What this evaluation says, beside the training rows of its interval."""
        interval = self.state.interval
        return HistoryRow.of(
            self.state.step,
            scores,
            train_loss=interval.loss / interval.weight if interval.weight else None,
            train_accuracy=interval.correct / interval.rows if interval.rows else None,
            learning_rate=self._learning_rate(),
            epoch=self.state.rows_seen / len(self.training),
        )

    def _named_trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self._module.named_parameters() if value.requires_grad]

    def load_best(self) -> None:
        """Put the best evaluation's weights into the model."""
        self.put(self.state.best)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights into the model by their names."""
        own = dict(self._named_trainable())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)

    # --- checkpoints ----------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Save all that a resume needs: what trains, and what trains it; the frozen encoder is no part of it.

        Raises: Diverged for weights that nothing can go on from.
        """
        self._catch_up()
        named = self._named_trainable()
        if not all(bool(value.isfinite().all()) for _, value in named):
            raise self._diverged("the weights are not finite", self.state.step, self._learning_rate())
        self._sum_interval()  # one process writes the state, for all of them
        if self.processes.is_main_process:
            weights = {name: value.detach() for name, value in named}
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            checkpoint.save(self.checkpoints, self.state.step, {"weights": weights, **parts})
        self.processes.wait_for_everyone()
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Go on from the newest checkpoint; False when there is none."""
        with checkpoint.newest(self.checkpoints, self.processes.device) as saved:
            if saved is None:
                return False
            self.put(saved["weights"])
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
        if not self.processes.is_main_process:
            self.state.interval = Interval()
        return True

    def _parts(self) -> dict[str, checkpoint.Part]:
        """What keeps a state of its own, by its name in a checkpoint."""
        parts: dict[str, checkpoint.Part] = {"update": self.update, "schedule": self.schedule, "state": self.state}
        own: dict[str, checkpoint.Part | None] = {"allocation": self.allocation, "average": self.average}
        return parts | {name: part for name, part in own.items() if part is not None}
