"""Models: where their files come from, how a base and an adapter are put together, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise.config import Model
from rankwise.errors import UserError

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model")


def tokenizer_of(model: Model | Path) -> Any:
    """The fast tokenizer of a model, or of the folder a run or adapter was saved in.

    Raises:
        UserError: the folder has no fast tokenizer.
    """
    from transformers import AutoTokenizer

    from rankwise.models import sources
    from rankwise.models.base import quiet

    folder = model if isinstance(model, Path) else sources.folder_of(model)
    if not any((folder / name).is_file() for name in _VOCABULARIES):  # transformers would make up an empty one
        raise UserError(f"{folder} holds no tokenizer, expected a tokenizer.json beside the model")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} holds a tokenizer that cannot be read: {reason}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no fast tokenizer, expected a tokenizer.json")
    return tokenizer
