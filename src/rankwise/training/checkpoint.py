"""A run's checkpoints: one file each, of what trains and what it takes to go on; the newest alone is kept."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from torch.optim.optimizer import StateDict

from rankwise import files
from rankwise.errors import UserError

FILE = "training.pt"
VERSION = 1
"""of what a checkpoint holds, which files without one are of; another that cannot be read as this one takes the next"""
_DAMAGED = (
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(msgspec.MsgspecError, pickle.UnpicklingError),
)
"""what torch raises of a file that is none of its own, and parts of values that are not theirs"""
_FULL_BELOW = 2**20
"""bytes left on a disk that a failed write leaves full"""


class Part(Protocol):
    """What keeps a state of its own."""

    def state_dict(self) -> StateDict:
        """Plain values and tensors."""

    def load_state_dict(self, state: StateDict) -> None:
        """Go on from such a state."""


def save(checkpoints: Path, step: int, parts: Mapping[str, Any]) -> None:
    """Save a step's parts, plain values and tensors; the folder appears whole, and only then do older ones go.

    Raises: UserError when the disk is full.
    """
    checkpoints.mkdir(exist_ok=True)
    target = checkpoints / f"step-{step:08d}"
    with files.new_folder(target) as folder:
        try:
            with (folder / FILE).open("wb") as file:  # our own, so that it is closed when it cannot be filled
                torch.save({"version": VERSION, **parts}, file)
        except (OSError, RuntimeError) as error:  # torch says of a full disk that a position is unexpected
            if shutil.disk_usage(folder).free > _FULL_BELOW:
                raise
            raise UserError(
                f"the checkpoint {target} cannot be written: no space is left; make room and resume"
            ) from error
    for older in checkpoints.glob("step-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


@contextmanager
def newest(checkpoints: Path, device: torch.device) -> Iterator[StateDict | None]:
    """The parts of the newest checkpoint, its tensors on a device, to be put back in the block; None when there is none.

    Raises: UserError for one that another version wrote, or that is damaged.
    """
    kept = sorted(checkpoints.glob("step-*"))
    if not kept:
        yield None
        return
    file = kept[-1] / FILE
    anew = f"remove {checkpoints} to begin anew"
    if not file.is_file():
        raise UserError(f"{kept[-1]} is another version's checkpoint: {anew}")
    try:
        parts: StateDict = torch.load(file, map_location=device.type, weights_only=True)
        version = parts.get("version", 1)
        if version > VERSION:
            raise UserError(f"{file} is of version {version}, this reads up to {VERSION}: {anew}, or update rankwise")
        yield parts
    except _DAMAGED as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}): {anew}") from error
