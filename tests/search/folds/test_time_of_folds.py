"""Where rows are few: what the clock, the machine and the test rows leave folds to choose in."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import rankwise
from rankwise import deadline
from rankwise.deadline import NEVER
from rankwise.search.clock import plan
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.speed import Speed
from rankwise.search.designs.contenders import PAIRS, Contender, configured, contenders
from rankwise.search.folds import comparison
from rankwise.search.request import base_tree as _base
from rankwise.search.sweep.trial import load_data


def test_another_base_has_the_folds_of_the_likeliest_where_the_clock_has_the_time(
    tiny_model, larger, news, monkeypatch
):
    """Judged by the same folds, after all that costs less; its head is held back by its own width."""
    tree, _ = _base(str(news["train"]), [f"model.name={tiny_model}"], "20k")
    rows = load_data(rankwise.config.from_dict(tree).data, ["train"]).train.take(np.arange(40))
    judged_with = []

    def answers(contender, tree, kept, out, names, deadline, *, longer):
        judged_with.append(configured(tree, contender.design, np.zeros(64)) if contender.design else None)
        return [np.eye(len(names), dtype=np.float32)[out.labels]] * max(len(contender.lengths), 1)

    monkeypatch.setattr(comparison, "_answers", answers)
    names = [str(name) for name in range(rows.labels.max() + 1)]
    found = comparison.judged(tree, set(), rows, names, Clock(time.time(), 600).choosing(150.0), [str(larger)])
    titles = [one.contender.title for one in found]
    assert titles[0] == "contrastive steps, then logistic regression"
    assert f"contrastive steps, then logistic regression, on {larger}" in titles
    (of_larger,) = {own["head"]["penalty"] for own in judged_with if own and own["model"]["name"] == str(larger)}
    config = rankwise.config.load({"model": {"name": str(larger)}})
    assert of_larger == rankwise.planning.encoder_of(config.model).pooled_width
    monkeypatch.setattr(comparison.bases, "times_as_slow", lambda *_: 1e9)
    found = comparison.judged(tree, set(), rows, names, Clock(time.time(), 600).choosing(150.0), [str(larger)])
    assert [one.contender.title for one in found] == [title for title in titles if str(larger) not in title]


def test_the_machine_is_measured_where_something_depends_on_it(tiny_model, news, monkeypatch):
    """Test rows have the time that they take; runs read fewer tokens of long texts where whole ones would leave them no time."""
    tree, _ = _base(str(news["train"]), [f"model.name={tiny_model}", f"data.test={news['test']}"], "20k")
    config = rankwise.config.from_dict(tree)
    roles, asked = load_data(config.data, ["train", "validation", "test"]), []

    def measured(config, roles, seconds):
        asked.append(config.data.max_length)
        return Speed(step_s=0.5, score_s=0.01, setup_s=0.1)

    monkeypatch.setattr(plan, "measure", measured)
    clock = Clock(time.time(), 100.0)
    assert plan.fit_few(config, roles, clock, 16, 2) == (None, None)
    assert asked == []
    many = roles.test.take(np.resize(np.arange(len(roles.test)), 20 * len(roles.test)))
    assert plan.fit_few(config, replace(roles, test=many), clock, 16, 2) == (None, Speed(0.5, 0.01, 0.1))
    tokens = SimpleNamespace(max_length=512, full_lengths=np.full(40, 600))
    monkeypatch.setattr("rankwise.training.examples.tokenised", lambda *_: tokens)
    for seconds, length in ((100.0, 128), (200.0, 256), (400.0, None), (10.0, 64)):
        found, speed = plan.fit_few(config, roles, Clock(time.time(), seconds), 16, 2)
        assert (found, speed.score_s) == (length, pytest.approx(0.08)), "frozen features read whole texts"
    assert set(asked[1:]) == {64}
    own = rankwise.config.load({**tree, "data": {**tree["data"], "max_length": 512}})
    tokens.max_length = 512
    assert plan.fit_few(own, roles, clock, 16, 2) == (None, None), "the user's own length is kept"


def test_runs_alone_read_fewer_tokens(tiny_model, news):
    tree, fixed = _base(str(news["train"]), [f"model.name={tiny_model}"], "20k")
    cut = {
        one.title: (one.design or {}).get("data.max_length")
        for one in contenders(rankwise.config.from_dict(tree), fixed, 40, length=64)
    }
    assert {title for title, length in cut.items() if length == 64} == {PAIRS, "LoRA from a fitted head"}
    assert set(cut.values()) == {64, None}


def test_the_shortest_run_has_the_time_of_all_folds_that_choose(tiny_model, news, monkeypatch):
    """Where a third of the time would end the first fold before any answer, and half of it would not."""
    roles = load_data(rankwise.config.from_dict(_base(str(news["train"]), [], "20k")[0]).data, ["train"])
    parts = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    clock, asked = SimpleNamespace(now=0.0, time=lambda: clock.now), []

    def answers(contender, tree, kept, out, names, deadline, *, longer):
        asked.append((deadline.left_s(), longer.left_s()))
        clock.now += 4.0
        return [np.zeros((len(out), len(names)), dtype=np.float32)]

    monkeypatch.setattr(comparison, "_answers", answers)
    for module in (comparison, deadline):
        monkeypatch.setattr(module, "time", clock)
    contender = Contender("pairs", {"train.steps": 32}, (16, 24, 32))
    standing = comparison._judged(contender, {}, roles.train, roles.label_names, parts, Clock(0.0, 10.0).deadline())
    assert asked == [(5.0, 3.0), (6.0, 6.0)]
    assert standing.contender.lengths == (16,)


def judged_where_folds_take(tiny_model, news, monkeypatch, clock_s, *, quick_s, slow_s):
    """Standings, the clock and the titles that were begun, where a fold of what is solved, and of what trains, takes so many seconds."""
    clock, begun = SimpleNamespace(now=0.0, time=lambda: clock.now), set()

    def answers(contender, tree, kept, out, names, deadline, *, longer):
        begun.add(contender.title)
        started, clock.now = clock.now, clock.now + (quick_s if contender.is_quick else slow_s)
        if clock.now > deadline.at():
            clock.now = max(started, deadline.at())
            return []
        return [np.zeros((len(out), len(names)), dtype=np.float32)] * max(1, len(contender.lengths))

    monkeypatch.setattr(comparison, "_answers", answers)
    for module in (comparison, deadline):
        monkeypatch.setattr(module, "time", clock)
    tree, fixed = _base(str(news["train"]), [f"model.name={tiny_model}"], "20k", "accuracy")
    roles = load_data(rankwise.config.from_dict(tree).data, ["train"])
    own = Clock(0.0, clock_s).choosing(0.25 * clock_s)
    return comparison.judged(tree, fixed, roles.train, roles.label_names, own), clock, begun


@pytest.mark.parametrize(("seconds", "folds", "count"), [(1, 5, 7), (25, 3, 6), (100, 5, 5)])
def test_on_a_slow_machine_all_contenders_are_compared_by_the_same_rows(
    tiny_model, news, monkeypatch, seconds, folds, count
):
    """seconds: what a fold takes that trains; what is solved takes one"""
    found, clock, begun = judged_where_folds_take(tiny_model, news, monkeypatch, 200.0, quick_s=1, slow_s=seconds)
    assert clock.now <= 0.6 * 200
    assert len({one.scores.examples for one in found}) == 1
    assert ({one.folds for one in found}, len(found)) == ({folds}, count)
    if seconds < 100:  # what has no time for the folds of the likeliest, by its steps, is not begun
        assert begun == {one.contender.title for one in found}
    else:
        assert not [title for title in begun if "LoRA" in title], "nor has what takes more steps the time"
    assert found[0].contender.title.startswith("contrastive") is (seconds < 100)


def test_what_is_solved_at_once_leaves_time_for_the_likeliest(tiny_model, news, monkeypatch):
    found, _, _ = judged_where_folds_take(tiny_model, news, monkeypatch, 150.0, quick_s=5, slow_s=5)
    assert found[0].contender.title.startswith("contrastive")
    assert {one.folds for one in found} == {2}


def test_what_is_solved_at_once_has_the_folds_that_nothing_else_has_time_for(tiny_model, news, monkeypatch):
    found, clock, _ = judged_where_folds_take(tiny_model, news, monkeypatch, 650.0, quick_s=8, slow_s=1000)
    assert not found[0].contender.title.startswith("contrastive")
    assert {one.folds for one in found} == {5}, "two, before it was known that nothing trains"
    assert clock.now <= 0.6 * 650


def test_asked_to_stop_while_what_is_solved_has_more_folds_the_ones_that_it_has_answer(tiny_model, news, monkeypatch):
    monkeypatch.setattr(comparison, "_short_of_folds", lambda standings, *_: (stopped.append(1), dict(standings))[1])
    monkeypatch.setattr(comparison, "requested", lambda: bool(stopped))
    stopped = []
    found, _, _ = judged_where_folds_take(tiny_model, news, monkeypatch, 650.0, quick_s=8, slow_s=1000)
    assert stopped
    assert {one.folds for one in found} == {2}


def test_where_nothing_that_trains_fits_the_budget_nothing_is_measured(tiny_model, news, monkeypatch):
    tree, _ = _base(str(news["train"]), [f"model.name={tiny_model}", f"data.test={news['test']}"], "200")
    config = rankwise.config.from_dict(tree)
    monkeypatch.setattr(Clock, "are_many", lambda *_: True)
    roles = load_data(config.data, ["train", "validation", "test"])
    assert plan.fit_few(config, roles, Clock(time.time(), 100.0), 16, 2) == (None, None)


def test_an_answer_is_there_whatever_the_clock_leaves(tiny_model, news, monkeypatch):
    (only,), _, _ = judged_where_folds_take(tiny_model, news, monkeypatch, 60.0, quick_s=500, slow_s=500)
    assert (only.contender.is_quick, only.folds) == (True, 2)


def test_later_folds_go_no_further_than_the_first(tiny_model, news, monkeypatch):
    roles = load_data(rankwise.config.from_dict(_base(str(news["train"]), [], "20k")[0]).data, ["train"])
    parts = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    asked = []

    def answers(contender, tree, kept, out, names, deadline, *, longer):
        asked.append((contender.lengths, contender.steps))
        return [np.zeros((len(out), len(names)), dtype=np.float32)] * 2

    monkeypatch.setattr(comparison, "_answers", answers)
    contender = Contender("pairs", {"train.steps": 32}, (16, 24, 32))
    comparison._judged(contender, {}, roles.train, roles.label_names, parts, NEVER)
    assert asked == [((16, 24, 32), 32), ((16, 24), 24)]


def test_what_takes_least_answers_on_a_machine_that_has_slowed_down(tiny_model, news):
    """Choosing should have ended before the first contender."""
    tree, fixed = _base(str(news["train"]), [f"model.name={tiny_model}"], "20k", "accuracy")
    roles = load_data(rankwise.config.from_dict(tree).data, ["train"])
    (only,) = comparison.judged(tree, fixed, roles.train, roles.label_names, Clock(time.time() - 90, 60).choosing(15.0))
    assert only.contender.title == "TF-IDF and logistic regression"
    assert only.folds == 2
