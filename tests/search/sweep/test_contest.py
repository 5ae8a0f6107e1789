"""Of classifiers that validation rows do not tell apart, the surest wins; what they do tell apart wins by the goal."""

import numpy as np
import pytest

from rankwise.scoring.goals import goal_of
from rankwise.search.sweep.contest import Contestant, winner_of

ROWS = 100


def having(right, loss, *, shifted=0):
    answers = np.roll(np.arange(ROWS) < right, shifted)
    return Contestant(right / ROWS, answers, loss)


@pytest.mark.parametrize(
    ("goal", "found", "expected"),
    [
        ("accuracy", [having(80, 0.5), having(79, 0.3)], 1),  # by one row: nothing
        ("accuracy", [having(80, 0.5), having(60, 0.3)], 0),  # by twenty
        ("accuracy", [having(70, 0.3), having(80, 0.5), having(75, 0.4, shifted=-3)], 2),  # of those near the best
        ("accuracy", [having(80, 0.5), having(80, 0.3)], 1),
        ("macro_f1", [having(80, 0.5), having(79, 0.3)], 0),
        ("macro_f1", [having(80, 0.5), having(80, 0.3)], 1),
        ("loss", [Contestant(0.5, np.ones(ROWS, bool), 0.5), Contestant(0.4, np.zeros(ROWS, bool), 0.6)], 1),
    ],
)
def test_who_wins(goal, found, expected):
    assert winner_of(found, goal_of(goal)) == expected
