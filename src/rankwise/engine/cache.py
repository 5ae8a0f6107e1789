"""The frozen prefix, computed once: what the layers below the lowest adapter make of a text.

With adapters in the upper layers only, the output of the layers below never changes. It is kept in bf16 in a
memory-mapped file, found again by the text's token ids, and reused over epochs and over trials that share a folder.
It is another model than without: in training nothing is dropped in the prefix, and its output is rounded to bf16.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from rankwise.engine.packing import Packed
from rankwise.machine import caches

# One text's entry in the index: digest of its ids, first row in the store, rows.
_RECORD = np.dtype([("digest", "S32"), ("start", "<i8"), ("tokens", "<i8")])


class PrefixCache:
    """Prefix outputs of texts, in one file of a fixed number of rows and an index that grows beside it.

    Texts that no longer fit are computed each time. A folder belongs to one prefix of one model. Of those who open it
    at a time, the first writes, until it is closed; the others read what it has stored, and compute the rest.

    The files lie in a numbered folder within it. Starting over takes the next number, so that a reader's mapping never
    shows rows that its index does not know.
    """

    def __init__(self, folder: Path, hidden: int, max_mb: float) -> None:
        """
        folder
            Where the numbered folder of `rows.bf16` and `index` lies, made when absent.
        max_mb
            Largest size of the rows, in 2^20 bytes; an existing file may grow to it, and never shrinks.
        """
        folder.mkdir(parents=True, exist_ok=True)
        caches.used(folder)
        self._folder, self._hidden = folder, hidden
        self._size = int(max_mb * 2**20) // (2 * hidden) * 2 * hidden
        self._lock = FileLock(folder / ".lock")  # let go by the system when the process ends, however it ends
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self.writes = False
        else:
            self.writes = True
        self._open(max(_numbered(folder), default=0))

    def _open(self, number: int) -> None:
        """Read, and as the writer make, the files of this number."""
        place = self._folder / str(number)
        self._number = number
        self._index_path, self._rows_path = place / "index", place / "rows.bf16"
        self._places: dict[bytes, tuple[int, int]] = {}
        self._used = self._known = 0
        self._full = False
        if self.writes:
            self._make()
        self._rows = self._mapped()
        self._read_index()

    def make_room(self, texts: Sequence[np.ndarray]) -> None:
        """Forget what is stored, when it is of other texts too and leaves these no room.

        texts
            token ids of everything that will be fetched
        """
        if not self.writes:
            return
        wanted = {_digest(text): len(text) for text in texts}
        missing = sum(tokens for digest, tokens in wanted.items() if digest not in self._places)
        if self._used + missing > len(self._rows) and any(digest not in wanted for digest in self._places):
            old = self._rows_path.parent
            self._open(self._number + 1)
            shutil.rmtree(old, ignore_errors=True)  # those who read it keep their mapping

    def fetch(self, texts: Sequence[np.ndarray], compute: Callable[[list[int]], list[Tensor]]) -> list[Tensor]:
        """The prefix output of every text, computed where it is not stored.

        texts
            token ids
        compute
            the outputs of the texts of these numbers. Shape of each: (tokens, hidden), bf16

        Returns. Shape of each: (tokens, hidden), bf16
        """
        digests = [_digest(text) for text in texts]
        missing = self._missing(digests)
        if missing and not self.writes:
            self._read_index()
            missing = self._missing(digests)
        found: dict[int, Tensor] = {}
        if missing:
            found = dict(zip(missing, compute(missing), strict=True))
            self._store([(digests[number], output) for number, output in found.items()])
        return [found[number] if number in found else self._read(digest) for number, digest in enumerate(digests)]

    @property
    def has_room(self) -> bool:
        """Whether this process stores what it computes: it is the one that writes, and no text was left out yet."""
        return self.writes and not self._full

    def close(self) -> None:
        """Let another write."""
        self.writes = False
        self._lock.release()

    def __len__(self) -> int:
        """How many texts are stored."""
        return len(self._places)

    def _make(self) -> None:
        """The files as a writer needs them: rows of the budget's size at least, an index of whole records."""
        self._rows_path.parent.mkdir(exist_ok=True)
        if not self._rows_path.exists():
            self._index_path.unlink(missing_ok=True)
        with self._rows_path.open("ab") as file:
            if file.tell() < self._size:
                file.truncate(self._size)  # sparse: takes space as it fills
        with self._index_path.open("ab") as file:  # a killed writer may have cut the last record short
            file.truncate(file.tell() // _RECORD.itemsize * _RECORD.itemsize)

    def _mapped(self) -> npt.NDArray[np.int16]:
        """The store in memory; numpy has no bf16, so its bits travel as int16. Shape: (rows, hidden)"""
        try:
            # Copy on write: torch takes no read-only memory, and nobody writes here.
            return np.memmap(self._rows_path, dtype=np.int16, mode="c").reshape(-1, self._hidden)
        except (FileNotFoundError, ValueError):  # a writer has not made it yet, or it is empty
            return np.empty((0, self._hidden), dtype=np.int16)

    def _read_index(self) -> None:
        """Learn of the texts stored since it was last read."""
        try:
            whole = self._index_path.stat().st_size // _RECORD.itemsize
            unread = np.fromfile(
                self._index_path, dtype=_RECORD, count=whole - self._known, offset=self._known * _RECORD.itemsize
            )
        except FileNotFoundError:  # the writer has not made it yet, or started over elsewhere
            return
        self._known = whole
        for digest, start, tokens in unread:
            if start + tokens <= len(self._rows):
                self._place(bytes(digest), int(start), int(tokens))

    def _missing(self, digests: Sequence[bytes]) -> list[int]:
        return [number for number, digest in enumerate(digests) if digest not in self._places]

    def _read(self, digest: bytes) -> Tensor:
        start, tokens = self._places[digest]
        return torch.from_numpy(self._rows[start : start + tokens]).view(torch.bfloat16)

    def _store(self, outputs: Sequence[tuple[bytes, Tensor]]) -> None:
        """Rows first, then the index that names them; written, not mapped, so that a full disk is an error."""
        if not self.writes:
            return
        records = []
        try:
            with self._rows_path.open("r+b") as file:
                for digest, output in outputs:
                    tokens = len(output)
                    if digest in self._places:
                        continue
                    if self._used + tokens > len(self._rows):
                        self._full = True
                        continue
                    file.seek(self._used * 2 * self._hidden)
                    file.write(output.contiguous().view(torch.int16).numpy().tobytes())
                    records.append((digest, self._used, tokens))
                    self._place(digest, self._used, tokens)
            with self._index_path.open("ab") as file:
                file.write(np.array(records, dtype=_RECORD).tobytes())
        except OSError:  # the disk is full: go on with what is stored, and compute the rest
            for digest, _, _ in records:
                del self._places[digest]
            self.close()

    def _place(self, digest: bytes, start: int, tokens: int) -> None:
        self._places[digest] = (start, tokens)
        self._used = max(self._used, start + tokens)


def in_packed_order(outputs: Sequence[Tensor], batch: Packed) -> Tensor:
    """Prefix outputs of texts in the order given, laid out as the batch is. Shape: (tokens, hidden)"""
    idle = outputs[0].new_zeros(len(batch.ids) - batch.tokens, outputs[0].shape[1])
    return torch.cat([*(outputs[number] for number in batch.order), idle])


def _numbered(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _digest(text: np.ndarray) -> bytes:
    """Hexadecimal, since numpy cuts zero bytes off the end of a string."""
    return hashlib.blake2b(np.ascontiguousarray(text, dtype=np.int64).tobytes(), digest_size=16).hexdigest().encode()
