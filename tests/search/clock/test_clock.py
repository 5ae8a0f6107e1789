"""What each stage has of the minutes of auto."""

import pytest

from rankwise import deadline
from rankwise.search.clock.clock import SLOWER, Clock
from rankwise.search.clock.speed import Speed


@pytest.fixture
def clock(monkeypatch):
    """A hundred seconds, of which twenty are spent."""
    monkeypatch.setattr(deadline.time, "time", lambda: 1020.0)
    return Clock(1000.0, 100.0)


def test_a_stage_is_over_in_time_for_what_follows(clock):
    assert (clock.spent_s, clock.left_s) == (20.0, 80.0)
    assert clock.deadline().left_s() == 80.0
    assert clock.deadline(15.0).left_s() == 65.0
    slower = clock.deadline(15.0, step_s=0.1)
    assert slower.left_s(SLOWER * 0.1) == 65.0
    assert slower.left_s(2 * SLOWER * 0.1) == 50.0, "of steps twice as slow as may be, twice as much is kept"
    assert clock.a_floor().left_s() == 32.0
    assert clock.floors().at() == 1040.0
    assert clock.choosing(25.0).at() == 1060.0
    assert clock.choosing(50.0).at() == 1040.0
    assert clock.choosing(200.0).has_passed, "test rows that take longer than the clock leave nothing to choose in"
    assert clock.spare().at() < clock.deadline(clock.margin_s).at()


@pytest.mark.parametrize(("crowding", "kept_s"), [(1.0, 25.0), (4.0, 25.0), (6.0, 30.0), (9.0, 35.0)])
def test_few_rows_keep_a_quarter_of_the_clock_and_more_beside_other_programs(clock, crowding, kept_s):
    assert clock.end_of_few_s(crowding) == kept_s
    assert clock.end_of_few_s(crowding, tested_s=10.0) == kept_s
    assert clock.end_of_few_s(crowding, tested_s=40.0) == max(kept_s, 30.0), (
        "a quarter of the clock for test rows, at most"
    )


def test_how_long_test_rows_take_is_asked_where_it_may_matter(clock):
    assert not clock.are_many(100)
    assert clock.are_many(101)


def test_what_comes_last_is_part_of_what_comes_after_training(clock):
    speed = Speed(0.1, 0.01, 0.5)
    assert clock.last_s(speed, 100) == pytest.approx(0.5 + SLOWER + 2.0 + 2.0)
    assert clock.last_s(speed, 10_000) == pytest.approx(0.5 + 25.0 + 2.0 + 2.0)
    assert clock.testing().left_s() == 76.0
    assert clock.after_training_s(speed, 300, 100) == pytest.approx(clock.last_s(speed, 100) + 0.5 + 3 * SLOWER + 2.0)
