"""The record of looks at the test set."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest

from rankwise.errors import UserError
from rankwise.records import Scores
from rankwise.scoring import looks

SCORES = Scores(
    examples=10, accuracy=0.9, accuracy_ci95=(0.6, 0.98), loss=0.2, macro_f1=0.9, ece=0.1, confusion=[[9, 1]]
)


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def look(folder, rows="ab", texts="t1", **options):
    folder.mkdir(exist_ok=True)
    return looks.record(folder, **{"command": "c", "scores": SCORES, **options}, rows_sha256=rows, texts_sha256=texts)


def test_looks_are_kept_in_order_with_their_headline_figures(tmp_path):
    assert looks.looks(tmp_path) == []
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    look(tmp_path, command="evaluate r\u2028x", when=when)
    look(tmp_path, command="again", rows="cd", texts="t2")
    first, second = looks.looks(tmp_path)
    assert (first.when, first.command, first.rows_sha256) == ("2026-01-02T03:04:05+00:00", "evaluate r\u2028x", "ab")
    assert (first.metrics.accuracy, first.metrics.accuracy_ci95) == (0.9, (0.6, 0.98))
    assert "confusion" not in first.metrics.to_dict()
    assert second.command == "again"


def test_rows_are_known_in_any_order_and_all_runs_are_counted(tmp_path):
    """Thirty runs that look once each have looked thirty times."""
    counts = [look(tmp_path / f"run{number}", rows=f"order {number}") for number in range(30)]
    assert (counts[0].this_run, counts[0].all_runs) == (1, 1)
    assert (counts[-1].this_run, counts[-1].all_runs) == (1, 30)
    assert look(tmp_path / "run0", rows="another order").this_run == 2
    assert look(tmp_path / "run0", texts="other rows") == looks.Count(1, 1)
    assert (
        looks.sentence(counts[-1].this_run, counts[-1].all_runs)
        == "this run looked at these test rows once, all runs of this user together 30 times"
    )


def test_a_look_of_an_earlier_version_counts_by_its_rows(tmp_path):
    old = {"when": "2026-01-01T00:00:00+00:00", "command": "c", "rows_sha256": "ab", "metrics": {"accuracy": 0.5}}
    (tmp_path / looks.FILE).write_text(json.dumps(old) + "\n", encoding="utf-8")
    assert look(tmp_path, rows="ab").this_run == 2
    assert look(tmp_path, rows="other", texts="t2").this_run == 1


def test_the_ledger_of_all_runs_is_the_owner_s_alone_and_outlives_the_run(tmp_path):
    look(tmp_path / "run")
    path = looks.user_ledger("t1")
    assert path.is_file()
    assert not path.is_relative_to(tmp_path / "run")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_a_place_for_the_user_s_ledger_the_run_s_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "file"))
    assert look(tmp_path) == looks.Count(1, None)
    assert looks.sentence(1, None).endswith("looks of other runs are not known")


def test_looks_at_the_same_moment_are_all_recorded(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: look(tmp_path, command=str(number)), range(64)))
    assert sorted(int(entry.command) for entry in looks.looks(tmp_path)) == list(range(64))


def test_damage_and_a_missing_folder_are_said(tmp_path):
    (tmp_path / looks.FILE).write_text('{"when": "1"}\n{"wh')
    with pytest.raises(UserError, match=r"line 2 of .* is damaged"):
        looks.looks(tmp_path)
    with pytest.raises(UserError, match="does not exist, create it first"):
        looks.record(tmp_path / "none", command="", rows_sha256="", texts_sha256="", scores=SCORES)
