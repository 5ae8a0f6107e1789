"""The winner once more on all rows: trials and floors stay as they were judged, and what is shipped says so."""

import numpy as np
import pytest

import rankwise
from rankwise.config import from_dict
from rankwise.deadline import Deadline
from rankwise.records import Winner
from rankwise.runs.folder import Run
from rankwise.search.after.all_rows import FOLDER, on_all_rows
from rankwise.search.floors import floor as floors
from rankwise.search.sweep.trial import load_data
from training.runs import equal


def winner(run, scores):
    accuracy, interval = scores.accuracy, scores.accuracy_ci95
    return Winner(run=run, peak=accuracy, chosen=accuracy, chosen_ci95=interval, final=accuracy)


@pytest.fixture
def probe(config, tmp_path):
    run = rankwise.train({**config, "adapter": {"method": "probe"}}, out=tmp_path / "p")
    return winner("p", run.record.metrics.validation)


def test_a_head_on_frozen_features_is_fitted_on_all_rows(probe, tmp_path):
    found = on_all_rows(probe, tmp_path, Deadline.after(600))
    before, after = Run(tmp_path / "p"), Run(tmp_path / FOLDER)
    assert found.run == FOLDER
    assert found.refit.rows == 300
    assert (found.chosen, found.peak) == (probe.chosen, probe.peak)
    assert after.record.metrics.validation == before.record.metrics.validation
    assert before.record.refit is None
    assert not equal(before, after)
    again = rankwise.train(after.path / "config.yaml", out=tmp_path / "again")
    assert equal(again, after), "its configuration alone gives the same adapter"


def test_without_time_or_trained_in_steps_the_winner_stays_as_it_is(probe, config, tmp_path):
    assert on_all_rows(probe, tmp_path, Deadline.after(-1)) is probe
    rankwise.train({**config, "train": {**config["train"], "steps": 6, "eval_every": 6}}, out=tmp_path / "t")
    trained = winner("t", Run(tmp_path / "t").record.metrics.validation)
    assert on_all_rows(trained, tmp_path, Deadline.after(600)) is trained
    assert not (tmp_path / FOLDER).exists()


def test_words_are_counted_on_all_rows_at_the_strength_that_was_chosen(config, tmp_path):
    roles = load_data(from_dict(config).data, ["train", "validation", "test"])
    floor = floors.of_words(config, roles, tmp_path / "floors" / "words")
    found = on_all_rows(winner("floors/words", floor.scores), tmp_path, Deadline.after(600))
    before, after = (rankwise.load(tmp_path / run) for run in ("floors/words", FOLDER))
    assert found.refit.rows == len(roles.train) + len(roles.validation)
    assert Run(tmp_path / FOLDER).record.metrics.validation == floor.scores
    texts = roles.train.texts[:5]
    assert not np.array_equal(before.predict_proba(texts), after.predict_proba(texts))
