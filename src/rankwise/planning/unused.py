"""Keys that were set and that another choice leaves without a use.

They are told, not refused: a search over methods or schedules shares one base, in which each of them has its keys.
What contradicts something else is refused (`config.checking`, `methods`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rankwise.config import Config
from rankwise.methods import method_of

# key, the key that decides, and the values of that one with which the first has an effect
_USES: tuple[tuple[str, str, Collection[Any]], ...] = (
    ("head.rank", "head.kind", ("low_rank",)),
    ("train.betas", "train.optimizer", ("adamw", "adam", "muon")),
    ("train.epsilon", "train.optimizer", ("adamw", "adam", "rmsprop", "adagrad", "muon")),
    ("train.cycles", "train.schedule", ("cosine_restarts", "step")),
    ("train.decay", "train.schedule", ("step", "plateau")),
    ("train.power", "train.schedule", ("polynomial",)),
    ("train.plateau_patience", "train.schedule", ("plateau",)),
    ("head.probe_first", "train.objective", ("cross_entropy",)),
    ("train.eval_every", "train.evaluate", (True,)),
    ("train.evaluate_at", "train.evaluate", (True,)),
    ("train.select", "train.evaluate", (True,)),
    ("data.validation", "train.evaluate", (True,)),
    ("data.validation_size", "train.evaluate", (True,)),
    ("data.label_separator", "data.multi_label", (True,)),
)


def unused(config: Config) -> list[str]:
    """A sentence for each key that differs from its default and has no effect."""
    default = Config()
    useless = [(f"adapter.{key}", "adapter.method") for key, read in method_of(config).keys().items() if not read]
    useless += [(key, other) for key, other, values in _USES if _value(config, other) not in values]
    return [
        f"{key} has no effect with {other}: {_shown(_value(config, other))}"
        for key, other in useless
        if _value(config, key) != _value(default, key)
    ]


def _value(config: Config, dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    return getattr(getattr(config, section), key)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
