"""The record of looks at the test set.

A test score counts once. Every further look, and every choice made after it, makes the score a little more of
a validation score; the ledger keeps the number that a reader needs to judge it.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from rankwise.errors import UserError
from rankwise.files import write_text, writing

FILE = "test_looks.jsonl"
# Curves and matrices belong to result.json; a look keeps what a reader would quote.
_KEPT = ("examples", "accuracy", "accuracy_ci95", "loss", "macro_f1", "ece")


def record(
    folder: Path, *, command: str, rows_sha256: str, metrics: Mapping[str, Any], when: datetime | None = None
) -> int:
    """Append one look to a run's ledger and return how many there are now at these rows.

    Two processes that look at once both stay recorded: they take turns at a lock, and the ledger is replaced whole,
    so a reader never meets half a line.

    Args:
        folder: the run's folder.
        command: what the user ran.
        rows_sha256: hash of the rows scored.
        metrics: what was seen (the headline figures are kept).

    Raises:
        UserError: the ledger cannot be written or read.
    """
    entry = {
        "when": (when or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        "command": command,
        "rows_sha256": rows_sha256,
        "metrics": {key: metrics[key] for key in _KEPT if key in metrics},
    }
    path = folder / FILE
    with writing(path):
        if not folder.is_dir():  # the lock would make it
            raise FileNotFoundError(errno.ENOENT, "no such folder")
        with FileLock(folder / f".{FILE}.lock"):
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            write_text(path, before + json.dumps(entry) + "\n")
            return sum(look["rows_sha256"] == rows_sha256 for look in looks(folder))


def looks(folder: Path) -> list[dict[str, Any]]:
    """The looks recorded in a run's folder, oldest first: {when, command, rows_sha256, metrics}.

    Raises:
        UserError: a line is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"line {number} of {path} is damaged: mend or remove that line") from error
    return entries
