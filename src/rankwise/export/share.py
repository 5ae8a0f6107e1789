"""An adapter put on the Hub, and read back from there before success is said."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import UserError, reason_of
from rankwise.inference import saved as saving
from rankwise.inference.predictor import predictor_of
from rankwise.models.layout import CONFIG, WEIGHTS

_TEXTS = ["", "one text", "another, somewhat longer text that says nothing in particular"]


def share(path: str | Path, name: str, *, dry_run: bool = False, private: bool = False) -> dict[str, Any]:
    """Upload a run's adapter to the Hub as NAME (user/name), download it again and compare its answers.

    dry_run
        Say what would be uploaded, and ask the Hub nothing.

    Returns: name, files (bytes by name), bytes, notes; and unless it is a dry run the address and the commit.
    Raises: UserError when the adapter is not whole, the name is none, the Hub refuses, or the copy answers otherwise.
    """
    _check_name(name)
    saved = saving.read(path)
    folder = saved.folder
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name[0] != "."
    }
    notes = []
    if Path(saved.model.name or "").is_dir() or (saved.model.name or "").startswith("packaged:"):
        notes.append(f"its base is named {saved.model.name}, which the Hub does not have: others must give base=FOLDER")
    if "README.md" not in files:
        notes.append("it has no model card (README.md)")
    told: dict[str, Any] = {"name": name, "files": files, "bytes": sum(files.values()), "notes": notes}
    if dry_run:
        return told
    return told | _uploaded(saved, folder, name, list(files), private)


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"'{name}' is no name on the Hub: {' '.join(str(error).split())}") from error
    if name.count("/") != 1:
        raise UserError(f"'{name}' is no name on the Hub: expected user/name")


def _uploaded(
    saved: saving.SavedClassifier, folder: Path, name: str, files: list[str], private: bool
) -> dict[str, Any]:
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    try:
        address = api.create_repo(name, exist_ok=True, private=private)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=files, commit_message="Adapter by rankwise"
        )
        with tempfile.TemporaryDirectory() as temporary:
            snapshot_download(name, revision=commit.oid, local_dir=temporary)
            _compare(saved, Path(temporary), files)
    except UserError:
        raise
    except Exception as error:  # the Hub's client raises its own, httpx's and OS errors for one and the same refusal
        raise UserError(
            f"the Hub does not take {name}: {reason_of(error)}; log in with  hf auth login , or see what would be sent with --dry-run"
        ) from error
    return {"address": str(address), "commit": commit.oid}


def _compare(saved: saving.SavedClassifier, copy: Path, files: list[str]) -> None:
    """Raises: UserError when a file is not there, or the copy answers otherwise."""
    lacking = [name for name in files if not (copy / name).is_file()]
    if lacking or not {CONFIG, WEIGHTS} <= set(files):
        raise UserError(f"the copy on the Hub lacks {', '.join(lacking) or WEIGHTS}")
    again = saving.read(copy, base=saved.base)
    ours, theirs = (predictor_of(one, precision="fp32").logits(_TEXTS) for one in (saved, again))
    if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
        raise UserError("the copy on the Hub does not answer as the adapter here does: upload it again")
