"""A run's checkpoints: one file each, of what trains and what it takes to go on; the newest alone is kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rankwise import files
from rankwise.errors import UserError

FILE = "training.pt"
_FULL_BELOW = 2**20
"""bytes left on a disk that a failed write leaves full"""


def save(checkpoints: Path, step: int, parts: Mapping[str, Any]) -> None:
    """Save a step's parts, plain values and tensors; the folder appears whole, and only then do older ones go.

    Raises: UserError when the disk is full.
    """
    checkpoints.mkdir(exist_ok=True)
    target = checkpoints / f"step-{step:08d}"
    with files.new_folder(target) as folder:
        try:
            with (folder / FILE).open("wb") as file:  # our own, so that it is closed when it cannot be filled
                torch.save(dict(parts), file)
        except (OSError, RuntimeError) as error:  # torch says of a full disk that a position is unexpected
            if shutil.disk_usage(folder).free > _FULL_BELOW:
                raise
            raise UserError(
                f"the checkpoint {target} cannot be written: no space is left; make room and resume"
            ) from error
    for older in checkpoints.glob("step-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def newest(checkpoints: Path, device: torch.device) -> dict[str, Any] | None:
    """The parts of the newest checkpoint, its tensors on a device; None when there is none.

    Raises: UserError for one that another version wrote.
    """
    kept = sorted(checkpoints.glob("step-*"))
    if not kept:
        return None
    file = kept[-1] / FILE
    if not file.is_file():
        raise UserError(f"{kept[-1]} is another version's checkpoint: remove {checkpoints} to begin anew")
    parts: dict[str, Any] = torch.load(file, map_location=device.type, weights_only=True)
    return parts
