"""Near the end of a clock fewer go on, and none is begun after it."""

from types import SimpleNamespace

from rankwise.deadline import NEVER, Deadline
from rankwise.search.clock import plan as clock
from rankwise.search.driver import Sweep
from rankwise.search.sweep.trial import Task, carry_out


def test_near_the_end_of_the_clock_fewer_go_on(tmp_path):
    def affordable(seconds_left):
        outcome = SimpleNamespace(step=10, seconds=10.0)  # a second a step
        ranked = [SimpleNamespace(total_steps=90, eval_every=10, outcome=outcome) for _ in range(9)]
        deadline = NEVER if seconds_left is None else Deadline.after(seconds_left)
        sweep = SimpleNamespace(trials=ranked, deadline=deadline, halving=clock.HALVING)
        return Sweep._affordable(sweep, ranked, 0, 3)

    # Each to step 30, and the best of them to step 90: 20 s a trial, and 60 s.
    assert [affordable(seconds) for seconds in (None, 1000, 110, 50)] == [3, 3, 2, 1]
    late = Task(0, {}, str(tmp_path / "late"), stop_at_step=10, deadline=Deadline.after(-1), optional=True)
    assert carry_out(late).status == "late"
    assert not (tmp_path / "late").exists()
