"""auto reads both ends of texts that are too long where frozen features of training rows say more by them."""

import json
import random
import time

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.runs.folder import Run
from rankwise.search.clock.clock import Clock
from rankwise.search.designs import truncation as ends
from rankwise.search.sweep.trial import load_data
from support import COMMON, TOPICS, sentences, write_csv

MOST = 15


def letters(count: int, seed: int, *, first: bool = False) -> list[tuple[str, str]]:
    """Five words that say all behind thirty that say nothing, or before them."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        topic = ("sport", "business")[number % 2]
        parts = [chance.choices(COMMON, k=30), chance.choices(TOPICS[topic], k=5)]
        made.append((" ".join(word for part in (parts[::-1] if first else parts) for word in part), topic))
    return made


@pytest.fixture
def choose(tiny_model, tmp_path):
    """What is chosen for rows, and what is said of it."""

    def chosen(rows, *, fixed=frozenset(), clock_s=600.0, score_s=1e-3, length=MOST, truncation="head"):
        tree = {
            "model": {"name": str(tiny_model)},
            "data": {
                "train": str(write_csv(tmp_path / f"{len(rows)}.csv", rows)),
                "max_length": length,
                "truncation": truncation,
            },
        }
        config = rankwise.config.from_dict(tree)
        return ends.chosen(config, load_data(config.data, ["train"]), set(fixed), Clock(time.time(), clock_s), score_s)

    return chosen


@pytest.mark.parametrize("score_s", [1e-3, None], ids=["speed measured", "few rows"])
def test_both_ends_are_read_where_they_say_more(choose, score_s):
    taken, (line,) = choose(letters(150, 0), score_s=score_s)
    assert taken == "head_and_tail"
    assert line.startswith("ends      100% of the texts are longer than 15 tokens; frozen features of 150 of them: ")
    assert line.endswith("first and last are read, data.truncation=head keeps the others")


def test_the_first_tokens_are_read_where_they_decide(choose):
    taken, (line,) = choose(letters(150, 0, first=True))
    assert taken == "head"
    assert "the first are read, data.truncation=head_and_tail keeps the others" in line


def test_it_is_not_asked_where_few_texts_are_cut(choose, monkeypatch):
    monkeypatch.setattr(ends, "logits_of_heads", lambda *_: pytest.fail("features were computed"))
    short = sentences(150, 0)
    assert choose(short, length=24) == ("head", [])
    assert choose([*short, *letters(15, 0)], length=24) == ("head", [])
    assert choose(short, length=None) == ("head", []), "the automatic length cuts a hundredth"


@pytest.mark.parametrize("own", ["head", "head_and_tail"])
def test_the_users_own_key_wins(choose, own):
    assert choose(letters(60, 0), fixed={"data.truncation"}, truncation=own) == (own, [])


@pytest.mark.parametrize(
    ("clock_s", "score_s", "rows"), [(600, 0.5, 60), (600, 0.6, 50), (600, 0.7, 0), (600, 0.06, 300), (600, 0.01, 350)]
)
def test_it_takes_a_share_of_the_clock(choose, monkeypatch, clock_s, score_s, rows):
    """Of 0.03, for features by both cuts, and of a tenth for 300 rows: as many rows as that has time for, or none."""
    asked = []

    def logits_of_heads(config, rows, parts, names):
        asked.append((config.data.truncation, len(rows)))
        return np.zeros((len(rows), len(names)), np.float32)

    monkeypatch.setattr(ends, "logits_of_heads", logits_of_heads)
    taken, lines = choose(letters(350, 0), clock_s=clock_s, score_s=score_s)
    assert taken == "head"
    assert asked == ([("head", rows), ("head_and_tail", rows)] if rows else [])
    assert bool(rows) is ("no time to ask" not in lines[0])


@pytest.mark.parametrize(("second_a_row", "expected"), [(0.1, 140), (1.1, 54), (2.0, 0)])
def test_few_rows_are_timed_by_the_fewest(choose, monkeypatch, second_a_row, expected):
    """Whose features are needed anyway: a tenth of 600 s is for those by the other cut."""
    passed, asked, counted = [], [], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: counted() + sum(passed))

    def logits_of_heads(config, rows, parts, names):
        passed.append(second_a_row * len(rows))
        asked.append(len(rows))
        return np.zeros((len(rows), len(names)), np.float32)

    monkeypatch.setattr(ends, "logits_of_heads", logits_of_heads)
    assert choose(letters(140, 0), score_s=None)[0] == "head"
    assert asked == [50] + [expected] * (2 if expected else 0)


def test_rows_of_which_none_can_be_held_out_are_left_as_they_are(choose):
    rows = [(text, f"class {number}") for number, (text, _) in enumerate(letters(60, 0))]
    assert choose([*rows, (rows[0][0], "class 1")]) == ("head", [])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["few rows", "trials"])
@pytest.mark.usefixtures("measured_soon")
def test_auto_ships_what_reads_both_ends(tiny_model, tmp_path, capsys, way):
    rows, test = write_csv(tmp_path / "m.csv", letters(90, 0)), write_csv(tmp_path / "test.csv", letters(60, 1))
    words = [f"model.name={tiny_model}", f"data.test={test}", f"data.max_length={MOST}", "train.steps=16"]
    if way == "trials":
        words.append(f"data.validation={write_csv(tmp_path / 'validation.csv', letters(60, 2))}")
    out = tmp_path / "a"
    assert main(["auto", str(rows), *words, "--max-params", "20k", "--max-minutes", "10", "--out", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ends      ") for line in shown) == 1
    record = json.loads((out / "search.json").read_text())
    assert (record["auto"].get("folds") is None) is (way == "trials")
    assert record["winner"]["test"]["accuracy"] > 0.9
    for run in (Run(path.parent) for path in out.rglob("result.json")):
        assert run.config.data.truncation == "head_and_tail"
    if way == "trials":
        assert "tokens of both ends" in "".join(record["auto"]["explanation"])
