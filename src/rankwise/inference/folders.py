"""Which adapter's folder a path stands for, and what a folder is that holds none."""

from __future__ import annotations

from pathlib import Path

from rankwise.baselines import words
from rankwise.errors import UserError, listed
from rankwise.models.layout import CONFIG
from rankwise.runs.folder import Run, is_recorded, open_run

_SHOWN = 5
"""names in an error message at most"""


def adapter_folder(path: str | Path | Run) -> Path:
    """The folder of the adapter that a path stands for.

    path
        A run's folder, a search's (its winner), an adapter's, or a folder around exactly one adapter: PEFT saves a
        named adapter in a folder of its name, a Trainer's checkpoint is a folder in its output.

    Raises: UserError when it is none of these, or of words alone.
    """
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return folder
    if words_folder(path) is not None:
        raise UserError(
            f"{folder} is TF-IDF of words alone, without an encoder and so without an adapter: it is predicted with, "
            "evaluated, compared, calibrated and served, and cannot be exported, shared or merged"
        )
    if not is_run(folder):
        return _around(folder)
    run = open_run(folder)
    if not (run.adapter / CONFIG).is_file():
        raise UserError(
            f"{run.path} has no adapter yet, its status is '{run.result.get('status')}': "
            f"continue it with  rankwise train {run.path / 'config.yaml'} --out {run.path} --resume"
        )
    return run.adapter


def words_folder(path: str | Path | Run) -> Path | None:
    """The folder of a classifier of words alone that a path stands for: its own, a run's, a search's winner's; else None."""
    folder = Path(path)
    if (folder / words.DETAILS).is_file():
        return folder
    if is_recorded(folder):
        inside = open_run(folder).path / words.FOLDER
        return inside if (inside / words.DETAILS).is_file() else None
    return None


def is_run(path: str | Path | Run) -> bool:
    """Whether a path is a run's folder or a search's, not an adapter's, which may lie in one."""
    return is_recorded(path) and not (Path(path) / CONFIG).is_file()


def _around(folder: Path) -> Path:
    """The one adapter inside a folder that is none itself."""
    if not folder.exists():
        raise UserError(f"no run at {folder}: the folder does not exist")
    if folder.is_file():
        raise UserError(f"{folder} is a file, expected the folder of a run, a search or an adapter")
    inside = sorted(file.parent for file in folder.glob(f"*/{CONFIG}"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise UserError(f"{folder} holds {len(inside)} adapters: name one of {listed(inside, _SHOWN)}")
    raise UserError(
        f"{folder} is not a run's folder and holds no adapter_config.json, expected a run, a search or a PEFT adapter"
    )
