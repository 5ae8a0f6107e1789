"""The classifiers of a server, by name, and the one folder that more may come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.errors import UserError
from rankwise.inference.many import Loaded, ManyPredictors
from rankwise.inference.saved import SavedClassifier
from rankwise.records import Metrics, Result, read

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Collection:
    """Classifiers that may be added, replaced and removed while they answer.

    folder
        Where added ones lie, each in a folder of its name; None: nothing may be added.
    """

    def __init__(self, many: ManyPredictors, folder: Path | None = None) -> None:
        self.many = many
        self.folder = None if folder is None else folder.resolve()

    def add(self, name: str) -> Loaded:
        """Load the folder of this name, in place of a classifier that has it already.

        Raises: UserError when nothing may be added, the name is no plain one, or the folder holds no classifier.
        """
        if self.folder is None:
            raise UserError("this server was started without --models-folder: no classifier can be added")
        if not _NAME.fullmatch(name):
            raise UserError("a classifier's name has letters, digits, '.', '_' and '-' alone")
        place = self.folder / name
        if not place.is_dir() or not place.resolve().is_relative_to(self.folder):
            raise UserError(f"the models folder holds no '{name}'")
        try:
            return self.many.add(name, place)
        except UserError as error:  # what a client reads names no place of this machine
            raise UserError(
                str(error).replace(f"{self.folder}/", "").replace(str(self.folder), "the models folder")
            ) from error

    def apply(self, change: Sequence[str]) -> None:
        """Carry out ("add", NAME) or ("remove", NAME). Raises: UserError."""
        verb, *names = change
        for name in names:
            {"add": self.add, "remove": self.many.remove}[verb](name)

    def told(self) -> list[dict[str, Any]]:
        """What is known of each classifier."""
        return [told(loaded) for loaded in self.many.loaded.values()]


def told(loaded: Loaded) -> dict[str, Any]:
    """A classifier as a client may know it."""
    saved = loaded.saved
    base = (saved.model.name or "") if isinstance(saved, SavedClassifier) else ""
    return {
        "name": loaded.name,
        "labels": loaded.label_names,
        "multi_label": saved.multi_label,
        "pair": saved.pair,
        "max_tokens": saved.max_length,
        "truncation": saved.truncation,
        "base": Path(base).name if Path(base).is_absolute() else base,
        "calibrated": loaded.temperature != 1.0,
        "shares_base": loaded.trunk is not None,
        **_scores(saved.folder.parent / "result.json"),
    }


def _scores(path: Path) -> dict[str, Any]:
    """How often it was right, on the test rows or else the validation rows of the run around it."""
    try:
        metrics = read(path, Result).metrics if path.is_file() else Metrics()
    except UserError:
        return {}
    for role, scores in (("test", metrics.test), ("validation", metrics.validation)):
        if scores is not None:
            return {"accuracy": scores.accuracy, "accuracy_ci95": list(scores.accuracy_ci95), "accuracy_of": role}
    return {}
