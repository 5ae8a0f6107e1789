"""The report says what the data is like, as values and as tables."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from rankwise import config, data
from rankwise.data.report import token_summary
from rankwise.data.tokens import Tokens


def tokens_of(lengths, max_length):
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(np.zeros(offsets[-1], np.int32), offsets, lengths, max_length, 1)


def shown(report, width):
    """What a terminal of this width shows of a report."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.render())
    return console.export_text()


def test_what_truncation_cuts_is_counted():
    summary = token_summary(tokens_of([10] * 89 + [15] + [20] * 9 + [110], 15))
    assert summary["texts_cut"] == 10
    assert summary["tokens_cut_share"] == pytest.approx((9 * 5 + 95) / (890 + 15 + 180 + 110))
    assert summary["max_length"] == 15
    assert summary["quantiles"] == {
        "0": 10,
        "0.25": 10,
        "0.5": 10,
        "0.75": 10,
        "0.9": 20,
        "0.95": 20,
        "0.99": 110,
        "1": 110,
    }


def test_a_report_as_values_and_as_text(tmp_path):
    texts = [f"the {i} story of number {i} and the people of town {i}" for i in range(100)]
    rows = [{"text": text, "label": "ab"[i % 4 == 0]} for i, text in enumerate(texts)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows[5]["label"] = "b"
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:7]))
    settings = config.from_dict(
        {"data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}}
    ).data
    roles = data.load(settings, ("train", "test"))
    roles.report.add_tokens("train", tokens_of([12] * 99 + [30], 24))

    values = json.loads(json.dumps(roles.report.to_dict()))
    assert values["rows"] == {"train": 100, "test": 2}
    assert values["balance"] == {"train": {"a": 75, "b": 25}, "test": {"a": 1, "b": 1}}
    between = values["duplicates"][1]
    assert between["roles"] == ["train", "test"]
    assert (between["exact"], between["near"], between["conflicts"]) == (2, 0, 1)
    assert between["examples"][0]["ids"] == [5, 0]
    assert values["tokens"]["train"]["texts_cut"] == 1

    printed = shown(roles.report, 200)
    assert "train 100" in printed
    assert "2 of 2 rows of test repeat one of train (2 exactly, 0 nearly; 1 with another label)" in printed
    assert "0.49%" in printed
    assert "of train repeat an earlier one" not in printed


def test_many_classes_are_cut_short(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"text {i},{i % 30}\n" for i in range(90)))
    roles = data.load(config.from_dict({"data": {"train": str(tmp_path / "a.csv")}}).data, ("train",), audit=False)
    assert "and 10 more classes" in shown(roles.report, 100)


def test_names_and_ids_in_brackets_are_shown_as_they_are(tmp_path):
    rows = "".join(f"[/x]{i},text {i % 40},{('[b]', '[/red]')[i % 2]}\n" for i in range(80))
    (tmp_path / "a.csv").write_text("id,text,label\n" + rows)
    roles = data.load(config.from_dict({"data": {"train": str(tmp_path / "a.csv")}}).data, ("train",))
    printed = shown(roles.report, 200)
    assert "[b]" in printed
    assert "[/red]" in printed
    assert "for example [/x]0 and [/x]40" in printed


def test_reading_data_needs_nothing_heavy(tmp_path):
    """pandas, torch, transformers and datasets stay unloaded until they are needed."""
    import subprocess
    import sys

    (tmp_path / "a.csv").write_text("text,label\na b c,0\nd e f,1\n" * 10)
    code = f"""
import sys
from rankwise import config, data
from rankwise.data import batches, tokens, text
data.load(config.from_dict({{"data": {{"train": {str(tmp_path / "a.csv")!r}}}}}).data)
heavy = [name for name in ("torch", "transformers", "datasets", "pandas", "rich", "scipy") if name in sys.modules]
sys.exit(", ".join(heavy) or 0)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
