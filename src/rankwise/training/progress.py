"""The live bar of a run: nothing is printed when nobody watches."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from rankwise.training.state import State


class Progress:
    """A bar with loss, accuracy, examples a second and time left; a line for each evaluation.

    console
        Where to draw; quiet when it is not a terminal.
    """

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._visible = console.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._visible,
        )
        self._task = self._bar.add_task("train", total=total_steps, numbers="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, state: State, learning_rate: float) -> None:
        """Move the bar to the state's step."""
        if not self._visible:
            return
        interval = state.interval
        loss = interval.loss / max(interval.weight, 1e-9)
        accuracy = interval.correct / max(interval.rows, 1)
        rate = state.rows_seen / max(state.train_s, 1e-9)
        numbers = f"loss {loss:.3f}  accuracy {accuracy:.3f}  {rate:.1f} examples/s"
        self._bar.update(self._task, completed=state.step, numbers=numbers)

    def evaluation(self, state: State) -> None:
        """Print the newest row of the history."""
        if not self._visible:
            return
        row = state.history[-1]
        best = "  best so far" if state.selection.step == row.step else ""
        self._console.print(
            f"step {row.step:>6}  validation loss {row.validation_loss:.4f}  "
            f"accuracy {row.validation_accuracy:.4f}  learning rate {row.learning_rate:.2e}[dim]{best}[/dim]",
            highlight=False,
        )
