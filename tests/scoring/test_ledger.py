"""The record of looks at the test set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest

from rankwise.errors import UserError
from rankwise.scoring import ledger

METRICS = {"examples": 10, "accuracy": 0.9, "accuracy_ci95": [0.6, 0.98], "confusion": [[9, 1], [0, 0]]}


def test_looks_are_counted_and_kept_in_order(tmp_path):
    assert ledger.looks(tmp_path) == []
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    first = ledger.record(tmp_path, command="evaluate r", rows_sha256="ab", metrics=METRICS, when=when)
    second = ledger.record(tmp_path, command="evaluate r\u2028x", rows_sha256="cd", metrics={})
    third = ledger.record(tmp_path, command="again", rows_sha256="ab", metrics={})
    assert (first, second, third) == (1, 1, 2), "looks at the same rows"
    entries = ledger.looks(tmp_path)
    assert entries[0] == {
        "when": "2026-01-02T03:04:05+00:00",
        "command": "evaluate r",
        "rows_sha256": "ab",
        "metrics": {"examples": 10, "accuracy": 0.9, "accuracy_ci95": [0.6, 0.98]},
    }
    assert entries[1]["command"] == "evaluate r\u2028x"


def test_looks_at_the_same_moment_are_all_recorded(tmp_path):
    def look(i):
        return ledger.record(tmp_path, command=str(i), rows_sha256="ab", metrics=METRICS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(64)))
    assert sorted(int(entry["command"]) for entry in ledger.looks(tmp_path)) == list(range(64))


def test_damage_and_a_missing_folder_are_said(tmp_path):
    (tmp_path / ledger.FILE).write_text('{"when": 1}\n{"wh')
    with pytest.raises(UserError, match=r"line 2 of .* is damaged"):
        ledger.looks(tmp_path)
    with pytest.raises(UserError, match="does not exist, create it first"):
        ledger.record(tmp_path / "none", command="", rows_sha256="", metrics={})
