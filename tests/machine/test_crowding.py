"""How much of a core other programs leave is seen by a thread's own time."""

import pytest

from rankwise.machine import crowding


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.25, 4.0), (0.01, 5.0)])
def test_a_thread_that_waits_for_its_core_is_crowded(monkeypatch, share, expected):
    ticks = iter(range(10**6))
    now = [0.0]

    def wall():
        now[0] = 0.001 * next(ticks)
        return now[0]

    monkeypatch.setattr(crowding.time, "perf_counter", wall)
    monkeypatch.setattr(crowding.time, "thread_time", lambda: share * now[0])
    assert crowding.crowding() == pytest.approx(expected)
