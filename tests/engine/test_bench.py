"""The measurement: both sides really run, on the same rows, and what the file says follows from the steps."""

from __future__ import annotations

import argparse
import json
from statistics import median

import pytest

from rankwise import bench
from rankwise.errors import UserError
from support import sentences, write_csv


def arguments(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def data(tmp_path):
    return write_csv(tmp_path / "rows.csv", sentences(40, seed=0))


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "variants", "more"),
    [
        ("train", "papers,engine,products", []),
        ("train", "papers-all-layers,engine-cached", ["--layers", "1"]),
        ("predict", "sorted,engine", []),
        ("train", "engine-scalar,products-scalar", []),
    ],
)
def test_variants_take_turns_and_the_file_adds_up(tmp_path, data, tiny_model, task, variants, more):
    words = [task, "--data", str(data), "--model", str(tiny_model), "--random-weights", "--variants", variants]
    sizes = ["--batch-size", "4", "--steps", "2", "--rounds", "2", "--warmup", "1", "--threads", "1"]
    assert bench.run(arguments(*words, *sizes, *more, "--name", "tiny", "--out", str(tmp_path / "out"))) == 0
    result = json.loads((tmp_path / "out" / "tiny.json").read_text())
    rows = result["variants"]
    assert list(rows) == variants.split(",")
    assert len({row["tokens"] for row in rows.values()}) == 1
    for row in rows.values():
        assert len(row["seconds"]) == 4
        assert row["peak_mb"] > 50
    if "products-scalar" in rows:
        bound, row = rows["products-scalar"], rows["engine-scalar"]
        assert row["share_of_products"] == pytest.approx(
            bound["step_s"] / row["step_s"], rel=0.01, abs=0.0005
        )  # rounded to thousandths
    if "papers" in rows:
        ours, theirs = rows["engine"], rows["papers"]
        assert ours["times_baseline"] == pytest.approx(median(theirs["seconds"]) / median(ours["seconds"]), rel=0.05)
        assert ours["trainable"] == theirs["trainable"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variants", "paper"], "no variant 'paper'"),
        (["--variants", "engine-sse9"], "no variant 'engine-sse9'"),
        (["--variants", "engine-cached"], "need --layers"),
        (["--layers", "top"], "range such as 8-11"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--scope", "querry", "--variants", "engine"], "no layer 'querry'"),
        (["--batch-size", "4000", "--variants", "engine"], "40 rows"),
    ],
)
def test_mistakes_are_told(data, tiny_model, tmp_path, words, message):
    base = ["train", "--data", str(data), "--model", str(tiny_model), "--random-weights", "--out", str(tmp_path)]
    small = ["--batch-size", "2", "--steps", "1", "--rounds", "1"] if "--rounds" not in words else []
    if "--batch-size" in words:
        small = ["--steps", "1", "--rounds", "1"]
    with pytest.raises(UserError, match=message):
        bench.run(arguments(*base, *small, *words))
