"""Answers of a long prediction kept beside its output until it is whole, so that a killed one can go on.

What is kept is what was computed, window by window, under the hash of the texts and of all that answers them: a resumed
prediction writes its file from the first row on, in any format, and computes only what is not there yet.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from rankwise import __version__, files
from rankwise.data.streams import Stream
from rankwise.errors import UserError
from rankwise.records.record import Tree

Arrays = list[np.ndarray]

WINDOW_ROWS = 4096
"""read before any is scored: enough that sorting by length within leaves little padding"""


def check_not_source(source: Any, output: Path) -> None:
    """Refuse to write over the file of texts. Raises: UserError."""
    if isinstance(source, (str, Path)) and output.exists() and Path(source).exists() and output.samefile(source):
        raise UserError(f"{output} is the file of texts itself: name another file to write")


class Progress:
    """The windows that are answered.

    resumed
        Rows whose answers were there.
    """

    def __init__(self, output: Path, rows: int, answered_by: Iterable[Any], *, resume: bool) -> None:
        """
        rows
            Of the input: of a single window nothing is kept.
        answered_by
            All that the answers depend on beside the texts: folders and files by their content, the rest by its text.
        resume
            Take what a killed prediction left; else that is removed.

        Raises: UserError when the folder of what is kept cannot be made.
        """
        self.resumed = 0
        self._folder = output.with_name(f".{output.name}.windows")
        self._keeps = rows > WINDOW_ROWS
        self._identity = hashlib.blake2b(digest_size=16)
        for one in (__version__, *answered_by):
            for piece in _content(one):
                self._identity.update(hashlib.blake2b(piece, digest_size=16).digest())
        if not resume:
            self.forget()
        if self._keeps:
            with files.writing(self._folder):
                self._folder.mkdir(mode=0o700, exist_ok=True)
            self._refuse_link()

    def answers(self, texts: Sequence[str], compute: Callable[[], Arrays]) -> Arrays:
        """A window's arrays, one row a text: those kept, or computed and kept."""
        if not self._keeps:
            return compute()
        place = self._place(texts)
        try:
            with np.load(place, allow_pickle=False) as kept:
                arrays = [kept[name] for name in kept.files]
            self.resumed += len(texts)
            return arrays
        except (OSError, ValueError, EOFError, AttributeError, BadZipFile):  # not there, or damaged: computed anew
            arrays = compute()
        with files.replacing(place, mode=0o600) as handle:
            np.savez(handle, *arrays)
        return arrays

    def outcome(self, batches: Stream, output: Path, rows: int, seconds: float, notes: Sequence[str]) -> Tree:
        """What a prediction that has come to its end says of itself."""
        return {
            "rows": rows,
            "output": str(output),
            "source": batches.line,
            "seconds": round(seconds, 3),
            "texts_per_s": round(rows / seconds, 1),
            "resumed_rows": self.resumed,
            "notes": [*batches.notes, *notes],
        }

    def forget(self) -> None:
        """Remove what is kept."""
        self._refuse_link()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _refuse_link(self) -> None:
        if self._folder.is_symlink():
            raise UserError(f"{self._folder} is a link, expected the folder of a prediction under way: remove it")

    def _place(self, texts: Sequence[str]) -> Path:
        name = self._identity.copy()
        for text in texts:
            content = text.encode("utf-8", "surrogatepass")
            name.update(len(content).to_bytes(8, "little") + content)
        return self._folder / f"{name.hexdigest()}.npz"


def _content(one: Any) -> Iterable[bytes]:
    """What stands for something that answers depend on."""
    if not isinstance(one, Path):
        yield repr(one).encode()
        return
    for path in sorted(one.rglob("*")) if one.is_dir() else [one]:
        if path.is_file():
            yield path.relative_to(one).as_posix().encode()
            yield path.read_bytes()
