"""A model's fast tokenizer, as transformers makes it of its files; made once, and read by `tokenizers` alone from then on.

transformers may build another tokenizer than the `tokenizer.json` in a folder says (by the class that is named beside it),
and takes a second to import. So what it makes is kept as it saves it, found by the contents of the files that it was
made of and by the versions of both libraries.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.errors import UserError, reason_of
from rankwise.files import check_no_pointer
from rankwise.machine import caches

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model")
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "bpe.codes")
_BACKEND, _FACTS = "tokenizer.json", "facts.json"


class Tokenizer:
    """Texts to ids by `tokenizers`; whatever else is asked of a tokenizer, transformers' own answers.

    folder
        Of the cache: as transformers saves it, with what is asked of it in `facts.json`.
    source
        The folder that it was made of.

    Raises: OSError, ValueError or KeyError when the folder is not whole.
    """

    is_fast = True

    def __init__(self, folder: Path, source: Path) -> None:
        import tokenizers

        self._folder, self._source = folder, source
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        self.pad_token: str | None = facts["pad_token"]
        self.pad_token_id: int | None = facts["pad_token_id"]
        self.model_max_length: int = facts["model_max_length"]
        content = (folder / _BACKEND).read_text(encoding="utf-8")
        try:
            self.backend_tokenizer = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises no kind of its own
            raise ValueError(str(error)) from error

    @cached_property
    def whole(self) -> Any:
        """transformers' own."""
        return _by_transformers(self._folder if self._folder.is_dir() else self._source)

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, those that were added too."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    def save_pretrained(self, folder: str | Path) -> None:
        """Write its files as transformers does."""
        saved = [path for path in self._folder.glob("*") if path.name != _FACTS] if self._folder.is_dir() else []
        for path in saved:
            shutil.copyfile(path, Path(folder) / path.name)
        if not saved:  # the cache was emptied meanwhile
            self.whole.save_pretrained(str(folder))

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def __call__(self, *texts: Any, **options: Any) -> Any:
        return self.whole(*texts, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole, name)


def read(folder: Path) -> Any:
    """The tokenizer of a folder: kept, or made by transformers and kept.

    Raises: UserError when the folder has no fast tokenizer, or one that cannot be read.
    """
    vocabularies = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    if not vocabularies:  # transformers would make up an empty one
        raise UserError(f"{folder} holds no tokenizer, expected a tokenizer.json beside the model")
    for path in vocabularies:
        check_no_pointer(path)
    kept = caches.cache("tokenizers") / _key(folder)
    try:
        tokenizer = Tokenizer(kept, folder)
        caches.used(kept)
        return tokenizer
    except (OSError, ValueError, KeyError, TypeError):
        made = _by_transformers(folder)
    with caches.optional():
        _keep(made, kept)
    return made


def _key(folder: Path) -> str:
    """A name for what transformers makes of a folder's files."""
    digest = hashlib.sha256(f"{version('transformers')} {version('tokenizers')}\n".encode())
    for name in (*VOCABULARIES, *_BESIDE, "config.json"):
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def _by_transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from rankwise.models.base import quiet

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers' own, and whatever its readers meet in JSON of another shape
        raise UserError(f"{folder} holds a tokenizer that cannot be read: {reason_of(error)}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no fast tokenizer, expected a tokenizer.json")
    return tokenizer


def _keep(made: Any, kept: Path) -> None:
    """Keep a tokenizer under its own name, and under that of its saved files where they make the same one: adapters are
    saved with them.
    """
    _write(made, kept)
    saved = kept.parent / _key(kept)
    if not saved.is_dir():
        from rankwise.data.tokens import tokenizer_identity

        again = _by_transformers(kept)
        if _facts(again) == _facts(made) and tokenizer_identity(again) == tokenizer_identity(made):
            _write(made, saved)


def _write(made: Any, folder: Path) -> None:
    with files.new_folder(folder) as temporary:
        made.save_pretrained(str(temporary))
        files.write_json(temporary / _FACTS, _facts(made))


def _facts(tokenizer: Any) -> Mapping[str, Any]:
    return {name: getattr(tokenizer, name) for name in ("pad_token", "pad_token_id", "model_max_length")}
