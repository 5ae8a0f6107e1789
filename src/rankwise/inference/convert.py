"""An adapter's pickle made into safetensors, through torch's reader of weights alone: nothing in it is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise import files
from rankwise.errors import UserError
from rankwise.inference.adapter import AdapterFiles
from rankwise.inference.folders import adapter_folder
from rankwise.models.layout import PICKLED, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor


def convert(path: str | Path) -> dict[str, Any]:
    """Write adapter_model.safetensors beside the adapter_model.bin of a PEFT adapter's folder, which stays.

    Returns: file, tensors, bytes.
    Raises: UserError when there is no such file, it holds anything but tensors by name, or the safetensors are there
    already.
    """
    from safetensors.torch import save

    folder = adapter_folder(path)
    source, target = folder / PICKLED, folder / WEIGHTS
    if target.is_file():
        raise UserError(f"{target} is there already: rankwise reads that")
    if not source.is_file():
        raise UserError(f"{folder} holds no {PICKLED}, there is nothing to convert")
    tensors = _read(source)
    content = save(tensors, metadata={"format": "pt"})
    with files.replacing(target) as file:
        file.write(content)
    try:
        AdapterFiles.open(folder)
    except UserError:
        target.unlink()
        raise
    return {"file": str(target), "tensors": len(tensors), "bytes": len(content)}


def _read(source: Path) -> dict[str, Tensor]:
    """The tensors by name, each with memory of its own, which safetensors ask for."""
    import torch

    files.check_no_pointer(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{source} holds more than tensors, which could run code when opened: it is not converted"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{source} is damaged or no file of torch's: copy it again") from error
    named = isinstance(content, Mapping) and all(isinstance(key, str) for key in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{source} holds no tensors by name, expected the weights that PEFT saves")
    return {key: value.detach().contiguous().clone() for key, value in content.items()}
