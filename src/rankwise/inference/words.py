"""A classifier of words behind the same object as any other: `rankwise.load` does not say which it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rankwise.baselines import words
from rankwise.baselines.words import WordClassifier
from rankwise.errors import UserError
from rankwise.files import read_json
from rankwise.inference.predictor import Predictor
from rankwise.runs.folder import Run, open_run
from rankwise.scoring.writer import LABEL_SEPARATOR


@dataclass
class WordPredictor(Predictor):
    """`Predictor` of a `WordClassifier`."""

    words: WordClassifier | None = field(default=None)

    def logits_of_cleaned(self, texts: Sequence[str]) -> np.ndarray:
        """Shape: (texts, classes)"""
        assert self.words is not None
        if not texts:
            return np.zeros((0, len(self.label_names)), dtype=np.float32)
        return self.words.logits(list(texts))


def folder_of(path: str | Path | Run) -> Path | None:
    """The folder of words that a path stands for: its own, a run's, a search's winner's; None where it is none."""
    folder = Path(path)
    if (folder / words.DETAILS).is_file():
        return folder
    if any((folder / name).is_file() for name in ("result.json", "search.json")):
        inside = open_run(folder).path / words.FOLDER
        return inside if (inside / words.DETAILS).is_file() else None
    return None


@dataclass(frozen=True)
class SavedWords:
    """What is known of a folder of words before its numbers are read: `SavedClassifier`'s names."""

    folder: Path
    label_names: list[str]
    text: list[str]
    pair: bool = False
    label: str = "label"
    separator: str = LABEL_SEPARATOR
    notes: tuple[str, ...] = ()


def read(path: str | Path | Run) -> SavedWords | None:
    """What a path stands for, if it is a classifier of words."""
    folder = folder_of(path)
    if folder is None:
        return None
    details = read_json(folder / words.DETAILS)
    return SavedWords(folder, list(details["labels"]), list(details["text"]), label=str(details["label"]))


def predictor_of(folder: Path, *, calibrated: bool = False, again: Callable[[], Predictor] | None = None) -> Predictor:
    """The predictor of a folder of words.

    Raises: UserError when it is damaged, or a temperature is asked for.
    """
    if calibrated:
        raise UserError(f"{folder} has no temperature: classifiers of words are not calibrated")
    found = WordClassifier.load(folder)
    return WordPredictor(
        classifier=None,
        tokenizer=None,
        label_names=found.label_names,
        max_length=0,
        multi_label=found.multi_label,
        preprocess=found.preprocess,
        again=again,
        words=found,
    )
