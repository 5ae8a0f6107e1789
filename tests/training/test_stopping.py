"""The choice of a checkpoint and the end of patience."""

from rankwise.config import EarlyStopping, Select
from rankwise.records import HistoryRow
from rankwise.training.stopping import Selection, Stopper, warnings
from support import scores_of


def test_the_best_is_the_highest_accuracy_and_ties_go_to_the_lower_loss():
    best = Selection.of(Select())
    assert best.observe(1, scores_of(0.8, 0.5))
    assert not best.observe(2, scores_of(0.8, 0.6))
    assert best.observe(3, scores_of(0.8, 0.4))
    assert not best.observe(4, scores_of(0.7, 0.1))
    assert best.step == 3


def test_selecting_by_loss_takes_the_lowest():
    best = Selection.of(Select(metric="loss"))
    assert best.observe(1, scores_of(0.8, 0.5))
    assert not best.observe(2, scores_of(0.9, 0.6))
    assert best.step == 1


def test_small_improvements_count_as_none_and_patience_ends():
    stopper = Stopper.of(EarlyStopping(patience=2, min_delta=0.01))
    answers = [stopper.observe(scores_of(0.5, loss)) for loss in (1.0, 0.995, 0.98, 0.975, 0.972)]
    assert answers == [False, False, False, False, True]


def test_a_reader_is_told_what_the_curve_left_open():
    history = [HistoryRow.of(10, scores_of(0.8, 1.0)), HistoryRow.of(20, scores_of(0.9, 0.9))]
    best = Selection("accuracy", None, step=20, value=0.9, loss=0.9)
    notes = warnings(history, best, 20, stopped_early=True)
    assert any("still improving" in note for note in notes)
    assert any("the best evaluation was the last" in note for note in notes)
    assert warnings(history, Selection("accuracy", None, step=10), 20, stopped_early=False) == []
