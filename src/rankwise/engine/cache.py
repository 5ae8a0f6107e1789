"""The frozen prefix, computed once: what the layers below the lowest adapter make of a text.

With adapters in the upper layers only, the output of the layers below never changes. It is kept in bf16 in a
memory-mapped file, found again by the text's token ids, and reused over epochs and over trials that share a folder.
It is another model than without: in training nothing is dropped in the prefix, and its output is rounded to bf16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankwise.engine.packing import Packed

# One text's entry in the index: digest of its ids, first row in the store, rows.
_RECORD = np.dtype([("digest", "S32"), ("start", "<i8"), ("tokens", "<i8")])


class PrefixCache:
    """Prefix outputs of texts, in one file of a fixed number of rows and an index that grows beside it.

    Texts that no longer fit are computed each time. One process writes; a folder belongs to one prefix of one model.
    """

    def __init__(self, folder: Path, hidden: int, max_mb: float) -> None:
        """
        folder
            Where `rows.bf16` and `index` lie, made when absent.
        max_mb
            Largest size of the rows, in 2^20 bytes; an existing file keeps its size.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._index_path = folder / "index"
        rows_path = folder / "rows.bf16"
        if not rows_path.exists():
            with rows_path.open("wb") as file:  # sparse: takes space as it fills
                file.truncate(int(max_mb * 2**20) // (2 * hidden) * 2 * hidden)
            self._index_path.unlink(missing_ok=True)
        # numpy has no bf16: the bits travel as int16.
        self._rows = np.memmap(rows_path, dtype=np.int16, mode="r+").reshape(-1, hidden)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._used = 0
        if self._index_path.exists():
            whole = self._index_path.stat().st_size // _RECORD.itemsize  # a last record may be cut short
            for digest, start, tokens in np.fromfile(self._index_path, dtype=_RECORD, count=whole):
                self._place(bytes(digest), int(start), int(tokens))

    def fetch(self, texts: Sequence[np.ndarray], compute: Callable[[list[int]], list[Tensor]]) -> list[Tensor]:
        """The prefix output of every text, computed where it is not stored.

        texts
            token ids
        compute
            the outputs of the texts of these numbers. Shape of each: (tokens, hidden), bf16

        Returns. Shape of each: (tokens, hidden), bf16
        """
        digests = [_digest(text) for text in texts]
        missing = [number for number, digest in enumerate(digests) if digest not in self._places]
        found: dict[int, Tensor] = {}
        if missing:
            found = dict(zip(missing, compute(missing), strict=True))
            self._store([(digests[number], output) for number, output in found.items()])
        return [found[number] if number in found else self._read(digest) for number, digest in enumerate(digests)]

    def __len__(self) -> int:
        """How many texts are stored."""
        return len(self._places)

    def _read(self, digest: bytes) -> Tensor:
        start, tokens = self._places[digest]
        return torch.from_numpy(self._rows[start : start + tokens]).view(torch.bfloat16)

    def _store(self, outputs: Sequence[tuple[bytes, Tensor]]) -> None:
        records = []
        for digest, output in outputs:
            tokens = len(output)
            if digest in self._places or self._used + tokens > len(self._rows):
                continue
            self._rows[self._used : self._used + tokens] = output.contiguous().view(torch.int16).numpy()
            records.append((digest, self._used, tokens))
            self._place(digest, self._used, tokens)
        with self._index_path.open("ab") as file:
            file.write(np.array(records, dtype=_RECORD).tobytes())

    def _place(self, digest: bytes, start: int, tokens: int) -> None:
        self._places[digest] = (start, tokens)
        self._used = max(self._used, start + tokens)


def in_packed_order(outputs: Sequence[Tensor], batch: Packed) -> Tensor:
    """Prefix outputs of texts in the order given, laid out as the batch is. Shape: (tokens, hidden)"""
    order = batch.given.argsort().tolist()
    idle = outputs[0].new_zeros(len(batch.ids) - batch.tokens, outputs[0].shape[1])
    return torch.cat([*(outputs[number] for number in order), idle])


def _digest(text: np.ndarray) -> bytes:
    """Hexadecimal, since numpy cuts zero bytes off the end of a string."""
    return hashlib.blake2b(np.ascontiguousarray(text, dtype=np.int64).tobytes(), digest_size=16).hexdigest().encode()
