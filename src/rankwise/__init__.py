"""Fine-tune text classifiers with low-rank adapters under a hard budget.

>>> import rankwise
>>> rankwise.plan({"model": {"name": "roberta-base"}, "data": {"num_labels": 4}}).trainable
999172
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankwise.errors import BudgetError, UserError

if TYPE_CHECKING:
    from rankwise.config import Config, ConfigLike
    from rankwise.estimator import BudgetedTextClassifier
    from rankwise.inference.evaluate import evaluate
    from rankwise.inference.many import ManyPredictors, load_many
    from rankwise.inference.predictor import Predictor, load
    from rankwise.planning import Plan
    from rankwise.reporting.page import report
    from rankwise.runs.folder import Run
    from rankwise.search.auto import auto
    from rankwise.training.job import train

__version__ = "0.1.0"

# Imported at first use: planning then needs no torch, and predicting no peft.
_HOMES = {
    "BudgetedTextClassifier": "rankwise.estimator",
    "Config": "rankwise.config",
    "ManyPredictors": "rankwise.inference.many",
    "Plan": "rankwise.planning",
    "Predictor": "rankwise.inference.predictor",
    "Run": "rankwise.runs.folder",
    "auto": "rankwise.search.auto",
    "evaluate": "rankwise.inference.evaluate",
    "load": "rankwise.inference.predictor",
    "load_many": "rankwise.inference.many",
    "report": "rankwise.reporting.page",
    "train": "rankwise.training.job",
}


def plan(config: ConfigLike, overrides: Sequence[str] = (), *, num_labels: int | None = None) -> Plan:
    """The exact cost of a configuration: counts by group, the largest rank that fits, bytes; no torch, no weights.

    config
        A recipe's name, a YAML path, a dict or a `Config`.
    num_labels
        Classes, when data.num_labels does not say.

    Raises: UserError when an option cannot apply. A plan over budget is returned, with `fits` false.
    """
    from rankwise import config as configuration
    from rankwise import planning

    return planning.plan(configuration.load(config, overrides), num_labels)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rankwise' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "BudgetError",
    "BudgetedTextClassifier",
    "Config",
    "ManyPredictors",
    "Plan",
    "Predictor",
    "Run",
    "UserError",
    "__version__",
    "auto",
    "evaluate",
    "load",
    "load_many",
    "plan",
    "report",
    "train",
]
