"""Texts as token ids: made once, kept in a file that is mapped into memory, cut where they are too long.

The cache is keyed by the content of the texts and of the tokenizer, so a changed row, another model or
another cleaning never meets old tokens; runs of a search that share their data share one file.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rankwise import files
from rankwise.data.cleaning import PAIR
from rankwise.data.text import mended
from rankwise.errors import UserError
from rankwise.machine import caches, segments

_VERSION = 3  # of the files below; a change of their layout, or of the ids, needs another
_CHUNK_TEXTS = 2048
_QUANTILE = 0.99
_MULTIPLE = 8
_KEPT_SETS = 3
"""that are remembered of one tokenizer"""


@dataclass(eq=False)
class Tokens(Sequence[NDArray[np.int32]]):
    """Token ids of texts, special tokens included; `[i]` is int32 (tokens,) of text i, cut to `max_length`.

    Attributes:
        ids, offsets: of all texts end to end, int32 (tokens,), and where each begins, int64 (texts + 1,).
        full_lengths: tokens of each text before anything was cut, int64 (texts,).
        max_length: tokens kept of a text at most.
        specials_behind: special tokens behind a text.
        truncation: which tokens are kept, `segments.HEAD` or `HEAD_AND_TAIL`.
        lengths: tokens of each text as `[i]` gives it, int64 (texts,).
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    full_lengths: NDArray[np.int64]
    max_length: int
    specials_behind: int
    truncation: str = segments.HEAD

    def __post_init__(self) -> None:
        self.lengths: NDArray[np.int64] = np.minimum(self.full_lengths, self.max_length)

    def __len__(self) -> int:
        return len(self.full_lengths)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.int32]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.int32] | list[NDArray[np.int32]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        stored = self.ids[self.offsets[index] : self.offsets[index + 1]]
        return segments.cut(stored, self.max_length, self.specials_behind, self.truncation)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """The token ids of several rows. Shape of each: (tokens,)"""
        return [self[int(row)] for row in rows]


def tokenise(
    texts: Sequence[str],
    tokenizer: Any,
    max_length: int | None,
    cache_dir: Path | None,
    *,
    positions: int | None = None,
    truncation: str = segments.HEAD,
) -> Tokens:
    """Token ids of texts, from the cache when these texts met this tokenizer before.

    Args:
        texts: as cleaned.
        tokenizer: a fast tokenizer of `transformers`.
        max_length: tokens kept of a text; None takes `automatic_max_length` of these texts, so tokenise train
            first and give its `max_length` to the other roles.
        cache_dir: folder of the token files; None keeps the tokens in memory.
        positions: tokens that the model can take; the tokens are kept up to there, so runs that differ in
            `max_length` or `truncation` share a file. None stands for `max_length`.
        truncation: what is kept of a longer text, `segments.HEAD` or `HEAD_AND_TAIL`.

    Raises: UserError when `max_length` leaves no room for text or exceeds `positions`.
    """
    limit = positions or max_length or _positions_of(tokenizer)
    before, behind = special_tokens(tokenizer)
    if max_length is not None and max_length > limit:
        raise UserError(f"data.max_length is {max_length:,}, but the model takes {limit:,} tokens: lower it")
    if (max_length or limit) <= before + behind:
        raise UserError(f"data.max_length: {max_length} leaves no room beside {before + behind} special tokens")
    if cache_dir is None:
        arrays = _in_memory(texts, tokenizer, limit, behind)
    else:
        arrays = _cached(texts, tokenizer, limit, behind, Path(cache_dir))
    _remember(texts, tokenizer, limit, arrays)
    kept = automatic_max_length(arrays[2], limit) if max_length is None else max_length
    return Tokens(*arrays, max_length=kept, specials_behind=behind, truncation=truncation)


def encode(
    texts: Sequence[str], tokenizer: Any, max_length: int, truncation: str = segments.HEAD
) -> list[NDArray[np.int32]]:
    """Token ids of a few texts, without a cache: for prediction and for augmented rows.

    max_length, truncation
        As `tokenise` takes them.

    Returns: int32 ids, special tokens included. Shape of each: (tokens,)
    """
    _, behind = special_tokens(tokenizer)
    return [segments.cut(ids, max_length, behind, truncation) for ids in _encode(texts, tokenizer)]


def automatic_max_length(full_lengths: NDArray[np.int64], positions: int) -> int:
    """The 99th percentile of the lengths rounded up to a multiple of eight, at most what the model takes.

    full_lengths: tokens of each text. Shape: (texts,)
    """
    if not len(full_lengths):
        return positions
    quantile = int(np.quantile(full_lengths, _QUANTILE, method="higher"))
    return min(-(-quantile // _MULTIPLE) * _MULTIPLE, positions)


def special_tokens(tokenizer: Any) -> tuple[int, int]:
    """How many special tokens stand before and behind a text."""
    mask = _plain_backend(tokenizer).encode("a").special_tokens_mask
    before = next((i for i, special in enumerate(mask) if not special), len(mask))
    behind = next((i for i, special in enumerate(reversed(mask)) if not special), 0)
    return before, behind


def _positions_of(tokenizer: Any) -> int:
    """What the tokenizer says of the model; tokenizers that don't know say 1e30."""
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < 1_000_000 else 512


def _plain_backend(tokenizer: Any) -> Any:
    """The `tokenizers.Tokenizer` inside, without the truncation and padding its file may ask for.

    all-MiniLM's and roberta-base's files do. transformers sets both anew with every call of its own, so
    nothing has to be put back. What is changed already is left alone: threads may share a tokenizer, and none of them may
    change it while another encodes.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return backend


def _encode(texts: Sequence[str], tokenizer: Any) -> Iterator[NDArray[np.int32]]:
    backend = _plain_backend(tokenizer)
    for start in range(0, len(texts), _CHUNK_TEXTS):
        chunk = [mended(text) for text in texts[start : start + _CHUNK_TEXTS]]
        if not any(PAIR in text for text in chunk):
            for encoding in backend.encode_batch_fast(chunk):
                yield np.array(encoding.ids, dtype=np.int32)
            continue
        pairs = [(first, second) for first, _, second in (text.partition(PAIR) for text in chunk)]
        _, behind = special_tokens(tokenizer)
        for encoding in backend.encode_batch(pairs):
            yield segments.marks_of(encoding, behind)


# --- storage ------------------------------------------------------------------------------------------

Arrays = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]
"""Flat ids (tokens,) as `segments.storable` leaves them, offsets (texts + 1,) and full lengths (texts,)."""
Sets = dict[tuple[str, int], deque[tuple[Sequence[str], Arrays]]]
"""Texts and their tokens, by tokenizer and positions."""
_sets: ContextVar[Sets | None] = ContextVar("remembered tokens", default=None)
"""None outside of `remembered`: a process that lives on keeps nothing"""


def _in_memory(texts: Sequence[str], tokenizer: Any, limit: int, behind: int) -> Arrays:
    pieces = [np.empty(0, dtype=np.int32)]
    full, stored = _each(texts, tokenizer, limit, behind, pieces.append)
    return np.concatenate(pieces), _offsets(stored), full


def _each(
    texts: Sequence[str], tokenizer: Any, limit: int, behind: int, keep: Callable[[NDArray[np.int32]], Any]
) -> NDArray[np.int64]:
    """Give the ids of each text to `keep` as they are stored; full and stored lengths. Shape: (2, texts)"""
    lengths = np.empty((2, len(texts)), dtype=np.int64)
    known = _known(tokenizer, limit)
    new = _encode([text for text in texts if text not in known], tokenizer)
    for row, text in enumerate(texts):
        if (place := known.get(text)) is None:
            ids = next(new)
            full, stored = len(ids), segments.storable(ids, limit, behind)
        else:
            (flat, offsets, full_lengths), at = place
            full, stored = full_lengths[at], flat[offsets[at] : offsets[at + 1]]
        lengths[:, row] = full, len(stored)
        keep(stored)
    return lengths


@contextmanager
def remembered() -> Iterator[None]:
    """Within it, texts that have been tokenised once are tokens in every other set of them: of roles that are split anew, of folds,
    of all rows together."""
    token = _sets.set({})
    try:
        yield
    finally:
        _sets.reset(token)


def _remember(texts: Sequence[str], tokenizer: Any, limit: int, arrays: Arrays) -> None:
    """Keep the tokens of a set, unless all of its texts are kept already."""
    sets, there = _sets.get(), tuple(texts)
    if sets is None:
        return
    kept = sets.setdefault((tokenizer_identity(tokenizer), limit), deque(maxlen=_KEPT_SETS))
    # The set itself is told at once; to look each text up takes a second of a million.
    if any(there == one for one, _ in kept) or all(map(_known(tokenizer, limit).__contains__, there)):
        return
    kept.append((there, arrays))


def _known(tokenizer: Any, limit: int) -> dict[str, tuple[Arrays, int]]:
    """Texts whose tokens are kept, and where they lie."""
    sets = _sets.get()
    kept = sets.get((tokenizer_identity(tokenizer), limit), ()) if sets else ()
    return {text: (arrays, row) for texts, arrays in kept for row, text in enumerate(texts)}


def _offsets(stored: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(stored)]).astype(np.int64)


def _cached(texts: Sequence[str], tokenizer: Any, limit: int, behind: int, cache_dir: Path) -> Arrays:
    folder = cache_dir / _key(texts, tokenizer, limit)
    arrays = _read(folder)
    if arrays is None:
        with caches.optional():
            _write(folder, texts, tokenizer, limit, behind)
        arrays = _read(folder)
    else:
        caches.used(folder)
    # A disk that takes no more, or a cache that is emptied at this moment: memory does.
    return _in_memory(texts, tokenizer, limit, behind) if arrays is None else arrays


def _key(texts: Sequence[str], tokenizer: Any, limit: int) -> str:
    digest = hashlib.sha256(f"{_VERSION} {limit} {tokenizer_identity(tokenizer)} {len(texts)}\n".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()[:32]


def tokenizer_identity(tokenizer: Any) -> str:
    """sha256 of all that decides which ids a text gets."""
    written = tokenizer.backend_tokenizer.to_str()
    whole = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
    if whole not in _identities:
        tree = json.loads(written)
        for passing in ("truncation", "padding"):
            tree.pop(passing, None)
        _identities[whole] = hashlib.sha256(
            json.dumps(tree, sort_keys=True).encode("utf-8", "surrogatepass")
        ).hexdigest()
    return _identities[whole]


_identities: dict[str, str] = {}
"""by the hash of what a tokenizer writes of itself: to read and write 30,000 words again takes a tenth of a second"""


def _read(folder: Path) -> Arrays | None:
    """The arrays of a cached folder; None when it is not there or not whole."""
    try:
        full_lengths, stored = np.load(folder / "lengths.npy", allow_pickle=False)
        offsets = _offsets(stored)
        size = (folder / "ids.int32").stat().st_size
        if size != 4 * int(offsets[-1]):
            return None
        ids = np.memmap(folder / "ids.int32", dtype="<i4", mode="r") if size else np.empty(0, dtype=np.int32)
        return ids, offsets, full_lengths
    except (OSError, ValueError, EOFError):
        return None


def _write(folder: Path, texts: Sequence[str], tokenizer: Any, limit: int, behind: int) -> None:
    """When several processes make the same tokens, the first to finish wins, whose file others have mapped by then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), files.new_folder(folder, durable=False) as making:
        with (making / "ids.int32").open("wb") as file:
            lengths = _each(
                texts, tokenizer, limit, behind, lambda ids: file.write(ids.astype("<i4", copy=False).tobytes())
            )
        np.save(making / "lengths.npy", lengths, allow_pickle=False)
        if _read(folder) is not None:
            raise FileExistsError(folder)
