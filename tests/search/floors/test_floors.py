"""What is solved at once takes part: it is shipped where nothing trained beats it, and a trained design starts from it."""

import json
import time

import numpy as np
import pytest

import rankwise
from conftest import write_csv
from rankwise.baselines import tfidf
from rankwise.cli import main
from rankwise.config import from_dict
from rankwise.deadline import NEVER, Deadline
from rankwise.runs.folder import Run
from rankwise.scoring.goals import goal_of
from rankwise.search.auto import auto
from rankwise.search.chosen import by_trials
from rankwise.search.clock import clock
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.speed import Speed
from rankwise.search.floors import floor as floors
from rankwise.search.floors.floor import Floor, best
from rankwise.search.floors.unspent import spent
from rankwise.search.request import base_tree
from rankwise.search.sweep.trial import load_data
from rankwise.training import frozen_features
from support import scores_of


def floor(accuracy, loss, title="x"):
    return Floor(title, f"floors/{title}", None, scores_of(accuracy, loss), 1, 1.0, accuracy)


def test_the_best_has_most_rows_right_and_then_the_least_loss():
    assert best([floor(0.5, 1.0), floor(0.7, 2.0, "b"), floor(0.7, 1.0, "c")], goal_of("accuracy")).title == "c"
    assert best([], goal_of("accuracy")) is None


@pytest.mark.slow
def test_words_are_shipped_where_no_design_beats_them(tiny_model, tmp_path, capsys):
    """Labels that follow from words which the encoder's vocabulary does not have."""
    chance = np.random.default_rng(0)
    rows = [(f"{chance.choice(['qqx', 'zzk'])} {chance.choice(['the', 'a', 'of'])}", "") for _ in range(240)]
    rows = [(text, "one" if "qqx" in text else "two") for text, _ in rows]
    train, test = write_csv(tmp_path / "train.csv", rows[:180]), write_csv(tmp_path / "test.csv", rows[180:])
    words = [f"model.name={tiny_model}", f"data.test={test}", "engine=reference", "train.steps=2"]
    words.append("data.validation_size=18")
    out = tmp_path / "a"
    assert main(["auto", str(train), *words, "--max-params", "20k", "--max-minutes", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    record = json.loads((out / "search.json").read_text())
    assert record["winner"]["run"] in ("floors/words", "all-rows"), "fitted once more where the clock has room"
    assert record["winner"]["trainable"] <= 20_000
    assert record["winner"]["test"]["accuracy"] == 1.0
    assert record["winner"]["test"]["looks"] == 1
    assert "no trained design beat" in shown
    assert rankwise.load(out).predict(["qqx of", "the zzk"]) == ["one", "two"]
    write_csv(tmp_path / "new.csv", [("qqx", "one"), ("zzk", "two")])
    assert main(["predict", str(out), str(tmp_path / "new.csv"), str(tmp_path / "labels.csv")]) == 0
    assert "two" in (tmp_path / "labels.csv").read_text()
    assert main(["evaluate", str(out), f"data.test={test}", "--json"]) == 0
    assert main(["report", str(out / "floors" / "words")]) == 0
    other = next(out.glob("floors/features-*"))
    assert main(["evaluate", str(other), f"data.test={test}", "--json"]) == 0
    assert main(["compare", str(out), str(other), "--json"]) == 0


def test_nothing_is_trained_where_there_is_no_time_but_something_is_shipped(tiny_model, news, tmp_path, monkeypatch):
    from rankwise.errors import UserError
    from rankwise.search.sweep.trial import load_data

    def too_short(*_, **__):
        raise UserError("the clock is too short")

    monkeypatch.setattr(by_trials, "plan_clock", too_short)
    load_data.__globals__["_loaded"].clear()
    words = [f"model.name={tiny_model}", "data.validation_size=0.1"]
    record = auto(str(news["train"]), words, max_params="20k", max_minutes=0.5, out=tmp_path / "a")
    assert record["winner"]["run"].startswith("floors/") or record["winner"]["refit"]["rows"] == 240
    assert rankwise.load(tmp_path / "a").label_names == ["business", "science", "sport"]


def test_what_nothing_that_trains_fits_into_goes_to_words_and_heads_on_more_rows(config, tmp_path, monkeypatch):
    """A first look at a share of the rows, then a quarter of an hour in which nothing trains."""
    tree = {**config, "model": {**config["model"]}, "head": {"pooling": "mean", "penalty": "auto", "probe_rows": 12}}
    roles = load_data(from_dict(tree).data, ["train", "validation", "test"])
    fit, speed = floors.fit_words, Speed(0.1, 1e-4, 0.1)
    few = roles.train.take(range(12))
    monkeypatch.setattr(floors, "fit_words", lambda own, rows, names, deadline=NEVER: fit(own, few, names, deadline))
    solved = floors.floors(tree, {"head.pooling", "head.probe_rows"}, roles, tmp_path, Clock(time.time(), 900), speed)
    monkeypatch.setattr(floors, "fit_words", fit)
    found = spent(solved, tree, {"head.pooling"}, roles, tmp_path, speed, Deadline.after(900), lambda _: True)
    assert [one.run for one in found[2:4]] == [one.run for one in solved], "what there was stays"
    assert [one.run for one in found[:2]] == ["floors/words-longer", "floors/features-longer"]
    assert Run(tmp_path / found[1].run).config.head.probe_rows == len(roles.train)
    late = spent(solved, tree, {"head.pooling"}, roles, tmp_path, speed, Deadline.after(0), lambda _: True)
    assert [one.run for one in late] == [one.run for one in solved]


@pytest.mark.parametrize(("before", "now", "rows"), [(1.0, 1.0, 90), (1.0, 3.0, 30), (3.0, 3.0, 90), (1.0, 1.05, 90)])
def test_heads_have_fewer_rows_where_other_programs_came_since_the_speed_was_measured(
    config, tmp_path, monkeypatch, before, now, rows
):
    monkeypatch.setattr(clock, "PROBE_FIRST_ROWS", 10)
    monkeypatch.setattr("rankwise.machine.crowding.crowding", lambda: now)
    tree = {**config, "head": {"pooling": "mean", "penalty": "auto"}}
    roles = load_data(from_dict(tree).data, ["train", "validation", "test"])
    assert len(roles.train) > 90
    speed = Speed(0.1, 1.0, 0.0, crowding=before)
    solved = floors.floors(tree, {"head.pooling"}, roles, tmp_path, Clock(time.time(), 900), speed)
    assert tree["head"]["probe_rows"] == rows
    assert Run(tmp_path / solved[1].run).config.head.probe_rows == rows


def test_a_slow_machine_ends_a_head_and_designs_begin_from_its_rows(config, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen_features, "_AT_ONCE", 16)
    config = {**config, "train": {**config["train"], "eval_batch_size": 16}}
    tree = {**config, "head": {"pooling": "mean", "penalty": "auto"}}
    roles = load_data(from_dict(tree).data, ["train", "validation", "test"])
    speed = Speed(step_s=0.1, score_s=1e-9, setup_s=1e9)  # nothing else is there, so a head is fitted however late
    monkeypatch.setattr(floors, "of_words", lambda *_: None)
    (head,) = floors.floors(tree, {"head.pooling"}, roles, tmp_path, Clock(time.time() - 900, 900), speed)
    assert tree["head"]["probe_rows"] == 16
    assert Run(tmp_path / head.run).config.head.probe_rows == 16
    tree["head"]["probe_rows"] = 20
    (again,) = floors.floors(tree, {"head.pooling"}, roles, tmp_path, Clock(time.time(), 900), speed)
    assert tree["head"]["probe_rows"] == 16, "what a stopped session had is gone on with"
    assert again.scores == head.scores
    given = {**config, "head": {"pooling": "mean", "penalty": "auto", "probe_rows": 40}}
    (head,) = floors.floors(
        given, {"head.pooling", "head.probe_rows"}, roles, tmp_path / "b", Clock(time.time() - 900, 900), speed
    )
    assert Run(tmp_path / "b" / head.run).config.head.probe_rows == 40, "as many as were asked for"


def test_a_title_says_how_many_rows_words_were_counted_on(config, tmp_path, monkeypatch):
    from dataclasses import replace

    roles = load_data(from_dict(config).data, ["train", "validation"])
    whole = floors.fit_words(from_dict(config), roles.train, roles.label_names)
    assert whole.fitted_on == len(roles.train)
    monkeypatch.setattr(floors, "fit_words", lambda *_: replace(whole, fitted_on=40))
    assert floors.of_words(config, roles, tmp_path / "words").title.endswith(", on 40 rows")


@pytest.mark.parametrize("megabytes", [0.02, 0.2])
def test_words_are_as_many_as_may_be_shipped(config, news, tmp_path, megabytes):
    tree = {**config, "budget": {"max_trainable": 1_000_000, "max_mb": megabytes}}
    roles = load_data(from_dict(tree).data, ["train", "validation"])
    found = floors.fit_words(from_dict(tree), roles.train, roles.label_names)
    found.save(tmp_path / "words")
    written = sum(path.stat().st_size for path in (tmp_path / "words").iterdir())
    assert written <= 1e6 * megabytes
    assert written <= found.shipped_bytes
    assert floors.fit_words(from_dict({**tree, "budget": {"max_mb": 0.001}}), roles.train, roles.label_names) is None


def test_words_that_auto_has_are_the_floor_that_its_runs_stand_beside(news, tmp_path, monkeypatch):
    """Of 200,000 rows fitting them again took the clock's last minute."""
    tree, _ = base_tree(str(news["train"]), [f"data.test={news['test']}"], "1M")
    roles = load_data(from_dict(tree).data, ["train", "validation", "test"])
    scored = {"validation": roles.validation, "test": roles.test}
    with monkeypatch.context() as patched, tfidf.known_floors():
        own = floors.of_words(tree, roles, tmp_path / "floors" / "words")
        patched.setattr(tfidf, "_fitted", lambda *_: pytest.fail("fitted again"))
        told = tfidf.scores(roles.train, scored, roles.label_names)
    assert told["validation"].accuracy == own.scores.accuracy
    assert told["test"].examples == len(roles.test)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    fitted: list[int] = []
    monkeypatch.setattr(tfidf, "_fitted", lambda *_: fitted.append(1))
    tfidf.scores(roles.train, scored, roles.label_names)
    assert fitted  # a run after the search has a floor of its own


def test_a_head_of_a_stopped_session_with_other_rows_to_choose_by_is_fitted_anew(config, tmp_path):
    for size in (20, 10):
        data = {key: value for key, value in config["data"].items() if key != "validation"} | {"validation_size": size}
        tree = {**config, "data": data, "head": {"pooling": "mean", "penalty": "auto"}}
        found = floors.of_features(tree, {"head.pooling"}, "mean", tmp_path / "head", NEVER)
        assert found is not None
        assert found.scores.examples == size
