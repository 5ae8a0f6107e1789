"""Several bases: the larger is taken where the clock has the steps for it and its frozen features say more."""

import time

import numpy as np
import pytest

import rankwise
from rankwise import packaged
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.machine import caches
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.plan import ClockPlan
from rankwise.search.clock.speed import Speed
from rankwise.search.designs import bases
from rankwise.search.sweep.trial import load_data
from support import scores_of

PLENTY = ClockPlan(1, 4_000, 5.0, 100, 60.0, 10.0)


@pytest.fixture
def choose(config, tiny_model, larger, monkeypatch):
    """What is chosen of the two, their features scored as told."""
    tree = {**config, "train": {**config["train"], "steps": None, "select": {"metric": "accuracy"}}, "head": {}}
    roles = load_data(rankwise.config.from_dict(config).data, ["train", "validation"])
    measured = []

    def fit_clock(tree, *_):
        measured.append(tree["model"]["name"])
        return rankwise.config.from_dict(tree), Speed(0.01, 1e-3, 0.1)

    monkeypatch.setattr(bases, "fit_clock", fit_clock)

    def chosen(plan, small, large):
        scores = {str(tiny_model): scores_of(*small), str(larger): scores_of(*large)}
        monkeypatch.setattr(bases, "plan_alone", lambda *_: plan)
        monkeypatch.setattr(bases, "_frozen", lambda config, *_: scores[config.model.name])
        names = [str(larger), str(tiny_model)]
        base, _, lines = bases.chosen(tree, names, roles, Clock(time.time(), 60), set())
        return base.model.name, lines, measured

    return chosen


def test_the_larger_is_taken_where_its_features_say_more(choose, larger):
    name, lines, measured = choose(PLENTY, (0.8, 0.5), (0.9, 0.4))
    assert name == str(larger)
    assert measured[-1] == str(larger)
    assert "frozen features" in lines[0]
    assert "is taken, which takes 1.0 times as long a text; model.name=" in lines[1]


@pytest.mark.parametrize("features", [(0.8, 0.4), (0.9, 0.6)])
def test_features_that_are_no_better_or_less_sure_leave_the_smaller(choose, tiny_model, features):
    assert choose(PLENTY, (0.8, 0.5), features)[0] == str(tiny_model)


@pytest.mark.parametrize("plan", [None, ClockPlan(1, 100, 5.0, 9, 9.0, 9.0), ClockPlan(1, 4_000, 0.4, 9, 9.0, 9.0)])
def test_one_that_the_clock_is_too_short_for_is_not_even_measured(choose, tiny_model, plan):
    name, lines, measured = choose(plan, (0.8, 0.5), (0.9, 0.4))
    assert name == str(tiny_model)
    assert measured == [str(tiny_model)]
    assert "left out: the clock has" in lines[0]


def test_features_are_those_of_the_base(config, larger):
    tree = {**config, "model": {"name": str(larger)}}
    roles = load_data(rankwise.config.from_dict(config).data, ["train", "validation"])
    assert bases._frozen(rankwise.config.from_dict(tree), roles, np.arange(120)).examples == 40


def test_names_are_the_users_or_the_packaged_ones_that_are_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr(caches, "cache", lambda kind: tmp_path)
    assert bases.named(None, set()) == ["packaged:all-MiniLM-L6-v2"], "nothing is fetched for this"
    kept = packaged.ASSETS["all-mpnet-base-v2"].sha256[:12]
    (tmp_path / f"all-mpnet-base-v2-{kept}").mkdir()
    assert bases.named(None, set()) == ["packaged:all-MiniLM-L6-v2", "packaged:all-mpnet-base-v2"]
    assert bases.named(None, {"model.name"}) == []
    assert bases.named("a, b,a", set()) == ["a", "b"]
    with pytest.raises(UserError, match="names no base"):
        bases.named(" , ", set())


def test_two_ways_of_naming_are_refused(news, tiny_model, tmp_path, capsys):
    words = [str(news["train"]), f"model.name={tiny_model}", "--models", "a,b", "--out", str(tmp_path / "a")]
    assert main(["auto", *words]) == 2
    assert "model.name and --models are both given" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
