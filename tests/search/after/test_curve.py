"""What twice the labels would bring: a power law through held-out errors, with a band; what is not told apart is not claimed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from rankwise import deadline
from rankwise.deadline import Deadline
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.search.after import curve
from rankwise.training import probe
from rankwise.training.job import train
from rankwise.training.objective import Objective
from training.runs import with_keys

PLAIN = Objective(smoothing=0.0, class_weights=None, multi_label=False)


def answers(errors, rows, seed=0):
    """Rows answered wrongly as often as said, by a quarter, a half and all, and their folds."""
    chance = np.random.default_rng(seed)
    return 1.0 * (chance.random(rows)[:, None] >= np.array(errors)), np.arange(rows) % 4


def test_a_power_law_goes_on():
    gain = curve.of_twice_the_labels(*answers([0.4, 0.3, 0.225], 8_000))
    assert gain.low < gain.mean < gain.high
    at_rows = 0.225 * 0.75 ** np.log2(4 / 3)  # three quarters of the rows were trained on
    without_a_floor = at_rows * 0.25
    assert 0.6 * without_a_floor < gain.mean < 1.05 * without_a_floor
    fewer = curve.of_twice_the_labels(*answers([0.4, 0.3, 0.225], 500))
    assert fewer.high - fewer.low > gain.high - gain.low


def test_what_is_not_told_apart_is_not_claimed():
    flat = curve.of_twice_the_labels(*answers([0.2, 0.2, 0.2], 400))
    assert flat.low <= 0
    assert "cannot tell" in curve.labels_in_words(flat)
    assert "cannot tell" in curve.labels_in_words(None)
    assert curve.labels_in_words(curve.Gain(0.012, 0.004, 0.02)) == (
        "twice the labels: +1.2 points (80% +0.4 to +2.0) of frozen features"
    )


def test_every_row_is_answered_by_heads_that_have_not_seen_it():
    chance = np.random.default_rng(0)
    labels = np.arange(120) % 3
    found = torch.from_numpy(np.eye(3, 8)[labels] * 3 + chance.normal(size=(120, 8))).float()
    right, folds = curve.held_out_right(found, labels, 3, PLAIN, 10.0, 0, Deadline.after(60))
    assert right.shape == (120, 3)
    assert sorted(np.bincount(folds)) == [30, 30, 30, 30]
    assert right[:, 2].mean() > 0.85
    random = torch.from_numpy(chance.normal(size=(120, 200))).float()
    by_heart, _ = curve.held_out_right(random, labels, 3, PLAIN, 1.0, 0, Deadline.after(60))
    assert by_heart.mean() < 0.6, "learnt by heart, they would all be right"
    assert curve.held_out_right(found, labels, 3, PLAIN, 10.0, 0, Deadline.after(-1)) is None


def test_no_head_is_begun_that_would_end_after_the_clock(monkeypatch):
    """A machine that takes a second a row: a head of all rows takes twice as long as one of half of them."""
    own, now = curve.probe.solve, [0.0]

    def slow(found, *words, **named):
        now[0] += len(found)
        return own(found, *words, **named)

    for module in (curve, deadline):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setattr(curve.probe, "solve", slow)
    found, labels = torch.eye(3, 8)[torch.arange(120) % 3], np.arange(120) % 3
    assert curve.held_out_right(found, labels, 3, PLAIN, 10.0, 0, Deadline(240.0)) is None
    assert now[0] == 180, "quarters and halves of the first fold"
    monkeypatch.setattr(curve, "requested", lambda: True)
    assert curve.held_out_right(found, labels, 3, PLAIN, 10.0, 0, Deadline(1e6)) is None
    assert now[0] == 180


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_features_that_a_head_was_solved_on_are_found_again(config, tmp_path, monkeypatch, pooling):
    tree = with_keys(config, adapter__method="probe", head__pooling=pooling, head__penalty="auto")
    tree |= {"engine": "fast", "adapter": {"method": "probe"}}
    run = train(tree, out=tmp_path / "r", console=Console(quiet=True))
    with monkeypatch.context() as patched:
        patched.setattr(probe, "best_penalty", lambda *_, **__: pytest.fail("the head's penalty is known"))
        gain = curve.of_floor(Run(run.path), Deadline.after(600))
    assert gain.low <= gain.mean <= gain.high
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "empty"))
    assert curve.of_floor(Run(run.path), Deadline.after(600)) is None


def test_the_head_is_asked_where_words_have_the_same_configuration(config, tmp_path):
    tree = with_keys(config, head__pooling="mean", head__penalty="auto") | {"adapter": {"method": "probe"}}
    head = train(tree, out=tmp_path / "floors" / "features-mean", console=Console(quiet=True))
    words = Run(tmp_path / "floors" / "words")
    words.path.mkdir()
    words.write_config(head.config)
    words.write_record(head.record)
    with words.changing() as result:
        result.engine.kernels = "scipy"
    scores = head.record.metrics.validation
    floors = [Winner.at_once(f"floors/{name}", name, scores, 0.5, 1) for name in ("words", "features-mean")]
    own = Deadline.after(600)
    assert curve.of_labels(floors, tmp_path, own) == curve.labels_in_words(curve.of_floor(head, own))
    assert "(" in curve.of_labels(floors, tmp_path, own)
    assert curve.of_labels(floors[:1], tmp_path, own) == "twice the labels: cannot tell"


def test_minutes_are_judged_by_the_winners_own_steps():
    def history(*accuracies):
        return [
            {"step": 10.0 * number, "validation_accuracy": accuracy} for number, accuracy in enumerate(accuracies, 1)
        ]

    assert "cannot tell, the second half of the winner's steps brought +0.1" in curve.minutes_in_words(
        history(0.8, 0.9, 0.901, 0.9), 500
    )
    assert "some more, the second half of the winner's steps brought +10.0" in curve.minutes_in_words(
        history(0.6, 0.7, 0.75, 0.8), 500
    )
    assert curve.minutes_in_words(history(0.8), 500) == "twice the minutes: cannot tell"
    solved = [{"step": 0.0, "validation_accuracy": 0.9}]
    assert curve.minutes_in_words(solved, 500) == "twice the minutes: cannot tell"
