"""`rankwise compare` on real runs."""

from __future__ import annotations

import csv
import json

import pytest

import rankwise
from rankwise.cli import main


@pytest.fixture(scope="module")
def pair(tiny_model, news, tmp_path_factory):
    """Two runs of different strength on the same validation rows."""
    folder = tmp_path_factory.mktemp("pair")
    for name, steps in (("short", 2), ("long", 80)):
        config = {
            "model": {"name": str(tiny_model)},
            "adapter": {"scope": ["query", "value"], "rank": 4},
            "data": {role: str(news[role]) for role in ("train", "validation")} | {"max_length": 32},
            "train": {"steps": steps, "batch_size": 16, "learning_rate": 2e-2},
        }
        rankwise.train(config, out=folder / name)
    return [str(folder / "short"), str(folder / "long")]


def test_rows_they_disagree_on_show_their_texts(pair, news, capsys):
    assert main(["compare", *pair, "--role", "validation", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    texts = [row["text"] for row in csv.DictReader(news["validation"].open(encoding="utf-8"))]
    examples = compared["disagreements"]
    assert examples
    for example in examples:
        assert example["text"] == texts[example["row"]]
    assert main(["compare", *pair, "--role", "validation"]) == 0
    assert examples[0]["text"] in capsys.readouterr().out


def test_texts_can_be_left_out(pair, capsys):
    assert main(["compare", *pair, "--role", "validation", "--json", "--no-texts"]) == 0
    assert all("text" not in example for example in json.loads(capsys.readouterr().out)["disagreements"])
