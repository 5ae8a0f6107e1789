"""The record of looks at test rows.

A test score counts once. Every further look, and every choice made after it, makes the score a little more of a
validation score. A run's folder keeps its own looks, and the user's ledger those of all runs: thirty runs that look once
each have looked thirty times. Rows are known by their texts, in whatever order they come and whatever file they lie in.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

import msgspec

from rankwise import files
from rankwise.errors import UserError
from rankwise.records.record import Record, Tree, Upgrade, locked, of_tree
from rankwise.records.result import Interval, Scores

FILE = "test_looks.jsonl"
"""in a run's folder"""


class Seen(Record, kw_only=True):
    """The headline figures of a look; curves and matrices belong to result.json."""

    OMITTED = None

    examples: int | None = None
    accuracy: float | None = None
    accuracy_ci95: Interval | None = None
    loss: float | None = None
    macro_f1: float | None = None
    ece: float | None = None


def _by_content(tree: Tree) -> None:
    """Version 1 knew rows by a hash of texts and labels in their order."""


class Look(Record, kw_only=True):
    """One look.

    when
        ISO 8601, in UTC.
    command, run
        What the user ran, and the folder of the run that was scored.
    rows_sha256, texts_sha256
        As in `data.Rows`; the second one is what looks are counted by, and empty in files of version 1.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("run", "texts_sha256")
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = (_by_content,)

    version: int = 2
    when: str = ""
    command: str = ""
    run: str | None = None
    rows_sha256: str = ""
    texts_sha256: str | None = None
    metrics: Seen = msgspec.field(default_factory=Seen)

    def is_at(self, rows_sha256: str, texts_sha256: str) -> bool:
        """Whether these rows were looked at."""
        return self.texts_sha256 == texts_sha256 if self.texts_sha256 else self.rows_sha256 == rows_sha256


@dataclass(frozen=True)
class Count:
    """How often rows were looked at: by this run, and by all runs of this user (None where that is not known)."""

    this_run: int
    all_runs: int | None


def sentence(this_run: int, all_runs: int | None) -> str:
    """Both figures in words."""
    said = f"this run looked at these test rows {_times(this_run)}"
    if all_runs is None:
        return f"{said}; looks of other runs are not known"
    return f"{said}, all runs of this user together {_times(all_runs)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def record(
    folder: Path,
    *,
    command: str,
    rows_sha256: str,
    texts_sha256: str,
    scores: Scores,
    when: datetime | None = None,
    in_folder: bool = True,
) -> Count:
    """Add one look to a run's ledger and to the user's, and return how many there are now at these rows.

    in_folder
        Whether the folder has a ledger, as a run's does; an adapter's looks stand in the user's alone.

    Processes that look at once all stay recorded: they take turns at a lock, and a ledger is replaced whole, so a reader
    never meets half a line.

    Raises: UserError: the run's ledger cannot be written or read. The user's may be out of reach: then it is not counted.
    """
    look = Look(
        when=(when or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        command=command,
        run=str(folder.resolve()),
        rows_sha256=rows_sha256,
        texts_sha256=texts_sha256,
        metrics=msgspec.convert(scores, Seen, from_attributes=True),
    )
    this_run, all_runs = [look], None
    if in_folder:
        with files.writing(folder / FILE):
            if not folder.is_dir():  # the lock would make it
                raise FileNotFoundError(errno.ENOENT, "no such folder")
        this_run = _added(folder / FILE, look)
    with contextlib.suppress(UserError):
        all_runs = _added(user_ledger(texts_sha256), look, mode=0o600)
    if all_runs is not None and not in_folder:
        this_run = [one for one in all_runs if one.run == look.run]
    return Count(_at(this_run, look), None if all_runs is None else _at(all_runs, look))


def looks(folder: Path) -> list[Look]:
    """The looks recorded in a run's folder, oldest first.

    Raises: UserError: a line is damaged.
    """
    return _read(folder / FILE)


def user_ledger(texts_sha256: str) -> Path:
    """The file of all looks of this user at rows, in a folder that nobody else can read.

    It lies beside the user's settings rather than in the cache, which people empty; RANKWISE_CACHE moves it too.

    Raises: UserError: the folder cannot be written to.
    """
    named, state = os.environ.get("RANKWISE_CACHE"), os.environ.get("XDG_STATE_HOME")
    root = Path(named) if named else (Path(state) if state else Path.home() / ".local" / "state") / "rankwise"
    with files.writing(root / "looks"):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / "looks").mkdir(exist_ok=True, mode=0o700)
    return root / "looks" / f"{texts_sha256}.jsonl"


def _added(path: Path, look: Look, mode: int = 0o666) -> list[Look]:
    """All looks of a ledger, this one written last."""
    with locked(path):
        every = [*_read(path), look]
        before = _text(path)
        files.write_text(path, f"{before}{json.dumps(look.to_dict())}\n", mode=mode)
        return every


def _at(all_looks: Sequence[Look], look: Look) -> int:
    assert look.texts_sha256 is not None
    return sum(one.is_at(look.rows_sha256, look.texts_sha256) for one in all_looks)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is no text") from error


def _read(path: Path) -> list[Look]:
    entries = []
    # Split at newlines alone: a command may hold any other separator of lines.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            entries.append(of_tree(Look, json.loads(line)))
        except (UserError, ValueError, TypeError) as error:
            raise UserError(f"line {number} of {path} is damaged: mend or remove that line") from error
    return entries
