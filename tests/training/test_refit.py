"""Steps on all rows after the scores: validation is spent once it has chosen, and everything said stays true."""

import time

import numpy as np
import pytest

import rankwise
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.runs.folder import Run
from rankwise.scoring import predictions
from rankwise.training import refit
from training.runs import equal, small, with_keys


@pytest.fixture(scope="module")
def tree(tiny_model, news):
    return small(tiny_model, news, steps=12, eval_every=6)


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refit")
    before = rankwise.train(tree, out=folder / "before")
    return before, rankwise.train(with_keys(tree, train__refit_steps=3), out=folder / "after")


def test_scores_are_those_of_the_weights_before(runs):
    before, after = (run.record for run in runs)
    assert after.metrics.validation == before.metrics.validation
    assert after.calibration == before.calibration
    assert after.refit.rows == before.data["train"].rows + before.data["validation"].rows
    assert after.refit.steps == 3
    assert any("once scored, it was trained 3 steps more on all" in note for note in after.notes)
    assert not equal(*runs), "the adapter that is shipped is another"


def test_what_is_saved_repeats_itself_and_decides_as_before(runs):
    _, after = runs
    texts = ["the team won the match", "shares fell"]
    assert after.record.refit.max_logit_difference <= 1e-5
    np.testing.assert_allclose(rankwise.load(after.path).predict_proba(texts).sum(1), 1, atol=1e-5)
    assert after.record.decision is None
    assert after.record.calibration.rows == 60, "fitted on the rows held out, by the weights before"


def test_gone_on_with_it_is_the_same(tree, runs, tmp_path, monkeypatch):
    """Stopped by the user between two steps of the refit: what was scored is shipped until a resume goes on."""
    from rankwise.training import interrupt, loop

    own, steps = loop.Loop._train_step, []

    def stopping(self):
        own(self)
        steps.append(self.checkpoints.name)
        if steps.count("refit") == 2:
            interrupt._active[-1].requested = True

    monkeypatch.setattr(loop.Loop, "_train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(with_keys(tree, train__refit_steps=3), out=tmp_path / "a")
    monkeypatch.undo()
    stopped = Run(tmp_path / "a")
    assert stopped.record.status == "interrupted"
    assert stopped.record.refit is None
    assert equal(stopped, runs[0]), "the adapter that was scored"
    whole = rankwise.train(with_keys(tree, train__refit_steps=3), out=tmp_path / "a", resume=True)
    assert equal(whole, runs[1])
    assert whole.record.refit.steps == 3


def test_a_clock_that_ends_keeps_what_was_scored(tree, runs, tmp_path, monkeypatch):
    own = refit.on_all_rows
    late = lambda *args, deadline: own(*args, deadline=Deadline(time.time() - 1))  # noqa: E731
    monkeypatch.setattr(refit, "on_all_rows", late)
    run = rankwise.train(with_keys(tree, train__refit_steps=3), out=tmp_path / "a")
    assert run.record.refit is None
    assert run.record.status == "finished"
    assert equal(run, runs[0])


def test_a_probe_is_solved_again_on_all_rows(tree, tmp_path):
    probe = {**tree, "adapter": {"method": "probe"}}
    before, after = (
        rankwise.train(with_keys(probe, train__refit_steps=steps), out=tmp_path / str(steps)) for steps in (None, 1)
    )
    assert after.record.refit.steps == 0
    assert after.record.metrics.validation == before.record.metrics.validation
    kept = predictions.read(after.path, "validation")
    assert np.array_equal(kept.logits, predictions.read(before.path, "validation").logits)
    assert not equal(before, after)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"train__evaluate": False}, "train.evaluate: false"),
        ({"data__folds": 3, "data__validation": None}, "data.folds"),
        ({"adapter__method": "adalora"}, "adapter.method: adalora"),
    ],
)
def test_it_is_refused_where_no_rows_are_held_out(tree, keys, said):
    with pytest.raises(UserError, match=rf"train.refit_steps cannot apply with {said}"):
        rankwise.train(with_keys(tree, train__refit_steps=3, **keys))
