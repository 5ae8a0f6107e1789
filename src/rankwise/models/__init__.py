"""Models: where their files come from, how a base and an adapter are put together, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise.config import Model
from rankwise.encoders import encoder_of
from rankwise.errors import UserError
from rankwise.files import check_no_pointer

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model")


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in _VOCABULARIES)


def tokenizer_of(model: Model | Path, *, rows: int | None = None) -> Any:
    """The fast tokenizer of a model, or of the folder a run or adapter was saved in.

    rows
        Of the word embedding that takes its ids; the model's own by default.

    Raises:
        UserError: the folder has no fast tokenizer, or one that knows more tokens than the embedding has rows.
    """
    from transformers import AutoTokenizer

    from rankwise.models import sources
    from rankwise.models.base import quiet

    folder = model if isinstance(model, Path) else sources.folder_of(model)
    vocabularies = [folder / name for name in _VOCABULARIES if (folder / name).is_file()]
    if not vocabularies:  # transformers would make up an empty one
        raise UserError(f"{folder} holds no tokenizer, expected a tokenizer.json beside the model")
    for path in vocabularies:
        check_no_pointer(path)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers' own, and whatever its readers meet in JSON of another shape
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} holds a tokenizer that cannot be read: {reason}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no fast tokenizer, expected a tokenizer.json")
    if rows is None and isinstance(model, Model):
        rows = encoder_of(model).dims.vocabulary
    if rows is not None:
        _check_rows(tokenizer, rows, folder)
    return tokenizer


def _check_rows(tokenizer: Any, rows: int, folder: Path) -> None:
    """Refuse ids beyond the embedding: on a processor they read memory that is not the model's."""
    ids = 1 + max(tokenizer.get_vocab().values(), default=-1)
    if ids > rows:
        raise UserError(
            f"the tokenizer in {folder} knows {ids:,} tokens, the model's embedding has {rows:,} rows: give the "
            "tokenizer that the model was saved with, or enlarge the embedding with transformers "
            "(resize_token_embeddings) and save both"
        )
