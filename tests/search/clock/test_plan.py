"""What fits a clock: designs, steps, rows and lengths of texts, and what is forecast of it."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from rankwise.config import load
from rankwise.errors import UserError
from rankwise.search.clock import plan as clock
from rankwise.search.clock.clock import Clock
from rankwise.search.clock.forecast import of_auto
from rankwise.search.clock.speed import Speed
from rankwise.search.sweep.strategies import Round, cost
from rankwise.search.sweep.trial import load_data


def of(seconds, spent=0.0):
    """A clock of which so much is spent."""
    return Clock(time.time() - spent, seconds)


def config_of(batch=16, **train):
    return load({"train": {"batch_size": batch, **train}})


def roles(train, validation, test=0):
    return SimpleNamespace(train=range(train), validation=range(validation), test=range(test) if test else None)


@pytest.mark.parametrize(("minutes", "designs"), [(30, 9), (5, 6), (4, 3), (3, 1), (0.5, 1)])
def test_fewer_designs_compete_when_the_clock_is_short(minutes, designs):
    speed = Speed(step_s=0.2, score_s=0.002, setup_s=0.5)
    schedule = clock.plan_clock(config_of(), speed, roles(2000, 200), of(60 * minutes), available=lambda _: 14)
    assert schedule.designs == designs
    # What is planned, with setting up and the end, is within the clock.
    rungs, evaluations = (3, 9) if designs > 1 else (1, -(-schedule.steps // schedule.eval_every))
    work = cost([Round(0, designs, rungs)], clock.HALVING) * (schedule.steps * 0.2 + evaluations * 200 * 0.002)
    work += min(designs, 2) * 1.3 * 2000 * 0.002  # heads fitted first, on features shared
    assert work == pytest.approx(schedule.train_s, rel=0.02)
    assert work + schedule.reserve_s <= (0.95 if designs > 1 else 1) * 60 * minutes


@pytest.mark.parametrize(("seconds", "evaluations"), [(27, 1), (80, 2), (600, 4)])
def test_a_clock_that_has_hardly_time_to_score_is_spent_on_steps(seconds, evaluations):
    """Of 1,000 rows an evaluation takes two seconds here, and so does a head of 1,000 rows, the least there is."""
    fits = clock.plan_clock(
        config_of(32), Speed(0.1, 0.002, 0.5), roles(30_000, 1_000), of(seconds), available=lambda _: 1
    )
    assert -(-fits.steps // fits.eval_every) == evaluations


def test_more_is_kept_for_the_end_beside_other_programs():
    alone, beside = Speed(0.1, 0.002, 0.5), Speed(0.1, 0.002, 0.5, crowding=3.0)
    plans = [
        clock.plan_clock(config_of(), one, roles(2_000, 200), of(180), available=lambda _: 1) for one in (alone, beside)
    ]
    assert plans[1].reserve_s == pytest.approx(plans[0].reserve_s + 8)
    assert plans[1].end_s == pytest.approx(plans[0].end_s + 4)
    assert beside.at(0.5).crowding == 3.0


@pytest.mark.parametrize(
    ("held_out", "seconds", "score_s", "expected"),
    [
        (2_600, 30, 0.002, 650),
        (2_600, 180, 0.002, 2_600),
        (5_000, 60, 0.0004, 5_000),
        (5_000, 60, 0.001, 1_250),
        (5_000, 180, 0.1, 625),
        (999, 30, 1.0, 999),
    ],
)
def test_no_more_rows_are_held_out_than_a_clock_can_score(held_out, seconds, score_s, expected):
    """On a slow machine, and of long texts, they would take what training has; those that the user has named stay."""
    speed = Speed(0.1, score_s, 0.5)
    assert clock.choosing_rows(config_of(), held_out, speed, of(seconds)) == expected
    for data in ({"validation_size": 0.1}, {"validation": "mine.csv"}):
        assert clock.choosing_rows(load({"data": data}), held_out, speed, of(seconds)) == held_out


def test_rows_that_are_not_held_out_are_planned_for_training():
    speed = Speed(step_s=0.8, score_s=0.01, setup_s=0.5)
    fits = clock.plan_clock(config_of(32), speed, roles(22_500, 2_500, test=25_000), of(180), available=lambda _: 1)
    assert fits.epochs == pytest.approx(fits.steps * 32 / 24_375)
    assert fits.reserve_s < 0.5 * 180, "25,000 test rows would take four minutes, and 2,500 to choose by a second one"
    with pytest.raises(UserError, match="too short"):
        clock.plan_clock(
            load({"data": {"validation_size": 0.1}}),
            speed,
            roles(22_500, 2_500, test=25_000),
            of(100),
            available=lambda _: 1,
        )


@pytest.mark.parametrize(
    ("rows", "share", "expected"), [(1_000, 0.01, None), (10**6, 0.01, 9_000), (10**6, 10.0, 2_048)]
)
def test_heads_are_fitted_on_as_many_rows_as_a_share_of_the_clock_scores(rows, share, expected):
    assert of(900).head_rows(rows, Speed(1.0, share, 1.0)) == expected


@pytest.mark.parametrize(("there", "designs"), [(1, 1), (2, 2), (3, 3), (5, 5), (20, 9)])
def test_time_is_planned_for_no_more_designs_than_there_are(there, designs):
    speed = Speed(step_s=0.2, score_s=0.002, setup_s=0.5)
    schedule = clock.plan_clock(config_of(), speed, roles(2000, 200), of(1800), available=lambda steps: there)
    assert schedule.designs == designs
    alone = clock.plan_clock(config_of(), speed, roles(2000, 200), of(600), available=lambda steps: 1)
    crowd = clock.plan_clock(config_of(), speed, roles(2000, 200), of(600), available=lambda steps: 14)
    assert alone.steps > crowd.steps


def test_a_clock_too_short_for_anything_is_refused():
    with pytest.raises(UserError, match="the clock is too short"):
        clock.plan_clock(config_of(), Speed(2.0, 0.01, 1.0), roles(2000, 200), of(20), available=lambda _: 14)


def lengths_fitted(config, monkeypatch, longest, full_length, second_a_token, steps=None):
    """Lengths that were measured, the configuration and the speed of texts of so many tokens each, and the roles."""
    lengths = []

    def measured(config, roles, seconds):
        lengths.append(config.data.max_length)
        return Speed(step_s=second_a_token * config.data.max_length, score_s=1e-3, setup_s=0.1)

    monkeypatch.setattr(clock, "measure", measured)
    texts = SimpleNamespace(max_length=longest, full_lengths=np.full(240, full_length), positions=512)
    monkeypatch.setattr("rankwise.training.examples.tokenised", lambda *_: texts)
    tree = {**config, "data": {**config["data"], "max_length": None}, "train": {**config["train"], "steps": steps}}
    found = load_data(load(tree).data, ["train", "validation"])
    return lengths, *clock.fit_clock(tree, found, of(30), lambda _: 14), found


@pytest.mark.parametrize(
    ("second_a_token", "steps", "expected"),
    [
        (0.0005, None, [64, 200]),
        (0.0012, None, [64, 128]),
        (0.004, None, [64, 64]),
        (0.002, 24, [64, 200]),
        (0.006, 24, [64, 128]),
    ],
)
def test_long_texts_are_cut_shorter_when_there_is_no_time_for_them(
    config, monkeypatch, second_a_token, steps, expected
):
    lengths, planned, speed, found = lengths_fitted(config, monkeypatch, 200, 400, second_a_token, steps)
    assert lengths == expected, "a moment at the shortest, then at the chosen one"
    assert planned.data.max_length == expected[-1]
    if steps is not None:
        fits = clock.plan_clock(planned, speed, found, of(30), available=lambda _: 14)
        assert fits.steps == steps, "the user's own number of steps is kept"


@pytest.mark.parametrize("longest", [96, 120])
def test_texts_little_longer_than_the_shortest_are_measured_once(config, monkeypatch, longest):
    lengths, planned, speed, _ = lengths_fitted(config, monkeypatch, longest, longest, 0.004)
    assert lengths == [longest]
    assert (planned.data.max_length, speed.score_s) == (64, pytest.approx(1e-3 * 64 / longest))


def test_what_is_left_of_the_clock_is_forecast_to_go_to_the_winner_where_it_is_enough():
    speed = Speed(step_s=0.1, score_s=0.001, setup_s=1.0)
    plan = clock.ClockPlan(designs=1, steps=500, epochs=1.0, eval_every=100, train_s=50.0, reserve_s=20.0)
    most = of_auto(plan, speed, 1000, 100, of(80, spent=10))[0]
    more = of_auto(plan, speed, 1000, 100, of(180, spent=10))[0]
    assert 60 / 60 < most < 75 / 60, "nothing is left that is worth a second run"
    assert 140 / 60 < more < 165 / 60, "a second run takes nine tenths of the rest"
    assert of_auto(plan, speed, 1000, 100, of(60, spent=10))[0] <= 60 / 60, "never beyond the clock"
