"""Evaluations of a run sent to a tracker, through accelerate: one key, `track`, and everything stays on this machine.

Where the tracker's own environment variables name a server (MLFLOW_TRACKING_URI, WANDB_MODE=online), it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rankwise import config as configuration
from rankwise.config import Config
from rankwise.errors import missing_extra
from rankwise.machine.processes import this_process
from rankwise.records import HistoryRow
from rankwise.runs.folder import Run

FOLDER = "tracking"
_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}


class Tracker:
    """An open tracker; made by `open_tracker`. Only the main process of a run writes."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def evaluation(self, row: HistoryRow) -> None:
        """Send a row of history.csv; what a row lacks is left out."""
        values = {name: value for name, value in row.values().items() if name != "step" and value is not None}
        self._tracker.log(values, step=row.step)

    def finish(self, metrics: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Send the final scores, named `validation/accuracy` and so on, and close the tracker."""
        values = {
            f"{role}/{name}": value
            for role, scores in metrics.items()
            for name, value in scores.items()
            if isinstance(value, int | float) and name != "step"
        }
        if values:
            self._tracker.log(values, step=step)
        self._tracker.finish()


def open_tracker(config: Config, run: Run) -> Tracker | None:
    """The tracker that `track` names, with the configuration recorded; None when it names none.

    Files go to the run's folder, `tracking`.

    Raises: UserError when the tracker's package is not installed.
    """
    if config.track is None:
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    try:
        __import__(_PACKAGES[config.track])
    except ImportError as error:
        raise missing_extra(_PACKAGES[config.track], f"track-{config.track}") from error
    this_process()  # accelerate's trackers ask it which process this is
    options = _options(config.track, run)
    tracker = LOGGER_TYPE_TO_CLASS[config.track](**options)
    tracker.start()
    tracker.store_init_configuration(dict(_flat(configuration.to_dict(config))))
    return Tracker(tracker)


def _options(name: str, run: Run) -> dict[str, Any]:
    """What accelerate's tracker of this name is made with."""
    folder = run.path.resolve() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    title = run.path.resolve().name
    if name == "tensorboard":
        return {"run_name": title, "logging_dir": str(folder)}
    if name == "wandb":
        return {
            "run_name": "rankwise",
            "name": title,
            "dir": str(folder),
            "mode": os.environ.get("WANDB_MODE", "offline"),
        }
    where = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    import mlflow

    mlflow.set_tracking_uri(where)
    return {"experiment_name": "rankwise", "logging_dir": folder.as_uri(), "run_name": title}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys; lists and mappings in words, as trackers want them."""
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)))
    return pairs
