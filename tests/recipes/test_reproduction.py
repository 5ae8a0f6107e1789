"""The runner of the reproduction and its page: resumable, one look at the test rows, numbers from files alone."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from rankwise.scoring import compare

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, tiny_model, news):
    """Three recipes on a tiny encoder: the folder of result files, and that of the runs."""
    folder = tmp_path_factory.mktemp("reproduction")
    recipe = folder / "small.yaml"
    recipe.write_text(
        "data: {validation_size: 60, max_length: 32}\ntrain: {learning_rate: 1.0e-2}\nengine: reference\n"
    )
    half = folder / "noppe-brandon.yaml"
    half.write_text("data: {validation_size: 60, max_length: 32}\ntrain: {learning_rate: 1.0e-9}\nengine: reference\n")
    words = ["--train", str(news["train"]), "--test", str(news["test"]), "--steps", "60"]
    words += ["--only", f"{tiny_model}={recipe}", f"{tiny_model}={half}"]
    words += ["--runs", str(folder / "runs"), "--results", str(folder / "results"), "data.split_seed=7"]
    return folder, words


def run(monkeypatch, name, words):
    monkeypatch.setattr(sys, "argv", [name, *words])
    script(name).main()


def test_it_runs_goes_on_where_it_was_and_makes_the_page(reproduced, monkeypatch, capsys):
    folder, words = reproduced
    run(monkeypatch, "reproduction", words)
    results = {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}
    assert set(results) == {"tiny-bert-small", "tiny-bert-noppe-brandon"}
    assert all(result["test"]["looks"] == 1 and result["test"]["examples"] == 60 for result in results.values())
    assert str(folder.parent) not in json.dumps({**results["tiny-bert-small"]["config"], "model": None})
    assert {result["config"]["data"]["split_seed"] for result in results.values()} == {7}
    (folder / "results" / "tiny-bert-small.json").unlink()
    run(monkeypatch, "reproduction", words)
    again = json.loads((folder / "results" / "tiny-bert-small.json").read_text())
    assert again == results["tiny-bert-small"], "a finished run was trained or scored again"
    run(monkeypatch, "reproduction_table", ["--results", str(folder / "results"), "--page", str(folder / "page.md")])
    row = next(line for line in (folder / "page.md").read_text().splitlines() if line.startswith("| small"))
    test = again["test"]
    assert f"{100 * test['accuracy']:.2f} | {100 * test['accuracy_ci95'][0]:.2f} to" in row
    expected = compare.run([folder / "runs" / "tiny-bert-small", folder / "runs" / "tiny-bert-noppe-brandon"])
    pair = expected.to_dict()["pairs"][0]
    assert f"({pair['only_a']}:{pair['only_b']}," in row
    assert "*floor*" in (folder / "page.md").read_text()
