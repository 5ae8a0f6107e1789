"""A classifier of words behind the same object as any other: `rankwise.load` does not say which it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankwise.baselines import words
from rankwise.records import read as read_record
from rankwise.records.words import WordsRecord
from rankwise.runs.folder import Run, is_recorded, open_run
from rankwise.scoring.writers import LABEL_SEPARATOR


def folder_of(path: str | Path | Run) -> Path | None:
    """The folder of words that a path stands for: its own, a run's, a search's winner's; None where it is none."""
    folder = Path(path)
    if (folder / words.DETAILS).is_file():
        return folder
    if is_recorded(folder):
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
    details = read_record(folder / words.DETAILS, WordsRecord)
    return SavedWords(folder, details.labels, details.text, label=details.label)
