"""The mean of the weights over steps is what is scored and saved; steps go on from the weights themselves."""

import numpy as np
import pytest

import rankwise
from rankwise.errors import UserError
from training.runs import equal, small, weights, with_keys


@pytest.fixture(scope="module")
def tree(tiny_model, news):
    return small(tiny_model, news, steps=4, schedule="constant", eval_every=2)


@pytest.fixture(scope="module")
def averaged(tree, tmp_path_factory):
    last = with_keys(tree, train__average_from=2, train__select={"metric": "loss"})
    return rankwise.train(last, out=tmp_path_factory.mktemp("average") / "whole")


def test_what_is_saved_is_the_mean_of_the_steps(tree, tmp_path):
    quiet = with_keys(tree, train__evaluate=False)
    steps = [  # at a constant rate a shorter run is the beginning of a longer one
        weights(rankwise.train(with_keys(quiet, train__steps=count), out=tmp_path / str(count))) for count in (2, 3, 4)
    ]
    mean = weights(rankwise.train(with_keys(quiet, train__average_from=2), out=tmp_path / "mean"))
    for name, value in mean.items():
        np.testing.assert_allclose(value, np.mean([step[name] for step in steps], axis=0), atol=1e-6, err_msg=name)
    assert any(not np.allclose(value, steps[-1][name], atol=1e-6) for name, value in mean.items())


def test_a_fitted_head_reads_what_the_mean_gives(tree, tmp_path):
    """Solved on the mean's features, so another number of steps before gives another head."""
    own = {"train__objective": "contrastive", "train__evaluate": False, "train__steps": 3}
    mean, last = (
        weights(rankwise.train(with_keys(tree, train__average_from=first, **own), out=tmp_path / str(first)))
        for first in (1, 3)
    )
    assert {name for name in mean if not np.allclose(mean[name], last[name], atol=1e-6)} == set(mean)


def test_what_is_scored_is_the_mean(averaged, tree, tmp_path):
    """Step 2 is the first that counts; later evaluations score other weights than those without."""
    own = rankwise.train(with_keys(tree, train__select={"metric": "loss"}), out=tmp_path / "own").history
    mean = averaged.history
    assert mean[0]["validation_loss"] == own[0]["validation_loss"]
    assert mean[1]["validation_loss"] != own[1]["validation_loss"]
    assert mean[1]["train_loss"] == own[1]["train_loss"], "steps go on from the weights themselves"


def test_gone_on_with_it_is_the_same(averaged, tree, tmp_path):
    keys = with_keys(tree, train__average_from=2, train__select={"metric": "loss"})
    rankwise.train(keys, out=tmp_path / "a", stop_at_step=3)
    assert equal(rankwise.train(keys, out=tmp_path / "a", resume=True), averaged)


def test_ranks_that_move_have_no_mean(tree):
    with pytest.raises(UserError, match="train.average_from cannot apply to adapter.method: adalora"):
        rankwise.train(with_keys(tree, train__average_from=2, adapter__method="adalora"))
