"""Models: where their files come from, how a base and an adapter are put together, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise.config import Model
from rankwise.encoders import encoder_of
from rankwise.errors import UserError
from rankwise.models import tokenizer


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in tokenizer.VOCABULARIES)


def tokenizer_of(model: Model | Path, *, rows: int | None = None) -> Any:
    """The fast tokenizer of a model, or of the folder a run or adapter was saved in.

    rows
        Of the word embedding that takes its ids; the model's own by default.

    Raises: UserError: the folder has no fast tokenizer, or one that knows more tokens than the embedding has rows.
    """
    from rankwise.models import sources

    folder = model if isinstance(model, Path) else sources.folder_of(model)
    read = tokenizer.read(folder)
    if rows is None and isinstance(model, Model):
        rows = encoder_of(model).dims.vocabulary
    if rows is not None:
        _check_rows(read, rows, folder)
    return read


def _check_rows(read: Any, rows: int, folder: Path) -> None:
    """Refuse ids beyond the embedding: on a processor they read memory that is not the model's."""
    ids = 1 + max(read.get_vocab().values(), default=-1)
    if ids > rows:
        raise UserError(
            f"the tokenizer in {folder} knows {ids:,} tokens, the model's embedding has {rows:,} rows: give the "
            "tokenizer that the model was saved with, or enlarge the embedding with transformers "
            "(resize_token_embeddings) and save both"
        )
