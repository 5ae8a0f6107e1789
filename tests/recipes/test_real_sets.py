"""The benchmark over a folder of sets: same rows, resumable, no label seen by a contestant, the page from files alone."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import rankwise
from rankwise import files
from rankwise.scoring import predictions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, name, words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    return script(name).main()


@pytest.fixture
def sets(tmp_path, news):
    """A folder of one set, and one that is none."""
    for role in ("train", "test"):
        (tmp_path / "sets" / "news").mkdir(parents=True, exist_ok=True)
        shutil.copy(news[role], tmp_path / "sets" / "news" / f"{role}.csv")
    (tmp_path / "sets" / "notes").mkdir()
    return tmp_path / "sets"


@pytest.fixture
def auto_folder(tmp_path, config, news):
    """What `auto` leaves: its winner's run, scored once, under a search.json."""
    folder = tmp_path / "auto" / "news"
    trained = rankwise.train(config, [f"data.test={news['test']}"], out=folder / "again")
    rankwise.evaluate(trained)
    winner = {
        "run": "again",
        "point": {"design": "one"},
        "peak": 0.5,
        "chosen": 0.5,
        "chosen_ci95": [0.4, 0.6],
        "final": 0.5,
    }
    files.write_json(
        folder / "search.json", {"version": 2, "status": "finished", "winner": winner, "auto": {"minutes": 0.5}}
    )
    return folder


def test_cells_are_made_once_and_the_page_of_their_files(sets, auto_folder, tmp_path, tiny_model, monkeypatch, capsys):
    words = [sets, "--base", tiny_model, "--peers", "auto", "tfidf", "frozen-mean", "static", "--seeds", "0", "1"]
    words += ["--minutes", "0.5", "--results", tmp_path / "results", "--auto-runs", auto_folder.parent]
    shutil.copytree(auto_folder, auto_folder.with_name("news-auto-seed1"))
    run(monkeypatch, "real_sets", words)
    said = capsys.readouterr().out
    assert "news-static-seed0: skipped" in said
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert set(cells) == {"news-auto-seed0", "news-auto-seed1", "news-tfidf-seed0", "news-frozen-mean-seed0"}
    kept = predictions.read(auto_folder / "again", "test")
    ours = cells["news-auto-seed0"]
    assert ours["accuracy"] == pytest.approx(float(kept.correct.mean()))
    hits = np.unpackbits(np.frombuffer(bytes.fromhex(ours["hits"]), dtype=np.uint8), count=60).astype(bool)
    assert np.array_equal(hits, kept.correct)
    assert cells["news-tfidf-seed0"]["accuracy"] > 0.9, "TF-IDF reads the topic's words"
    assert len({cell["test_sha256"] for cell in cells.values()}) == 1

    (tmp_path / "results" / "news-auto-seed1.json").unlink()
    run(monkeypatch, "real_sets", words)
    assert capsys.readouterr().out.count("done already") == 3
    page = tmp_path / "page.md"
    made = ["--results", tmp_path / "results", "--page", page]
    assert run(monkeypatch, "real_sets_table", made) == 0
    assert "| TF-IDF and logistic regression |" in page.read_text()
    assert "Not run: static embeddings" in page.read_text()
    assert run(monkeypatch, "real_sets_table", [*made, "--check"]) == 0
    page.write_text(page.read_text().replace("240 rows", "241 rows"))
    assert run(monkeypatch, "real_sets_table", [*made, "--check"]) == 1


def test_a_set_that_is_not_there_is_named(sets, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="holds no set notes"):
        run(monkeypatch, "real_sets", [sets, "--sets", "notes", "--results", tmp_path / "results"])
