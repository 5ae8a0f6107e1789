"""Everything that changes while a run trains, apart from weights and optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import msgspec
from torch import Tensor
from torch.optim.optimizer import StateDict

from rankwise.records import HistoryRow
from rankwise.training import stopping
from rankwise.training.probe import Fitted


@dataclass
class Interval:
    """Sums over the training rows since the last evaluation; validation rows never enter."""

    loss: float = 0.0
    weight: float = 0.0
    correct: int = 0
    rows: int = 0


@dataclass
class State:
    """How far a run is, what its evaluations said, and the best weights so far."""

    selection: stopping.Selection
    stopper: stopping.Stopper | None
    step: int = 0
    rows_seen: int = 0
    tokens_seen: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    stopped_early: bool = False
    interval: Interval = field(default_factory=Interval)
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    solved: Fitted | None = None
    """of a run that is solved at once, which keeps no checkpoint"""

    def state_dict(self) -> StateDict:
        """Plain values and tensors only, so that loading never unpickles code."""
        plain = {name: value for name, value in self.__dict__.items() if isinstance(value, int | float | bool)}
        return {
            "plain": plain,
            "selection": asdict(self.selection),
            "stopper": asdict(self.stopper) if self.stopper else None,
            "interval": asdict(self.interval),
            "history": msgspec.to_builtins(self.history),
            "best": self.best,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken."""
        for name, value in state["plain"].items():
            setattr(self, name, value)
        stopping.restore(self.selection, state["selection"])
        if self.stopper is not None:
            stopping.restore(self.stopper, state["stopper"])
        self.interval = Interval(**state["interval"])
        self.history = msgspec.convert(state["history"], list[HistoryRow])
        self.best = state["best"]
