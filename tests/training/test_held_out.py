"""Rows held out by a fold: heads on frozen features answer as runs do, from features that one pass computes."""

import numpy as np
import pytest
import torch

import rankwise
from rankwise import config as configuration
from rankwise.search.sweep.trial import load_data
from rankwise.training import held_out, probe
from rankwise.training.held_out import logits_of_held_out
from rankwise.training.job import train


@pytest.mark.parametrize("pooling", ["first", "mean", "both"])
def test_heads_of_folds_answer_as_their_runs_and_compute_a_text_once(config, tmp_path, monkeypatch, pooling):
    tree = {key: config[key] for key in ("budget", "model", "engine")}
    tree |= {"adapter": {"method": "probe"}, "head": {"pooling": pooling, "penalty": 10.0, "directions": True}}
    tree |= {"data": config["data"] | {"num_labels": 3}, "train": {"steps": 1, "eval_every": None, "evaluate": True}}
    own = configuration.from_dict(tree)
    rows = load_data(own.data, ["train", "validation"])
    computed, solved, features, solve = [], [], probe.features, probe.solve

    def counted(classifier, weight, tokens, batch_size):
        computed.extend(token.tobytes() for token in tokens)
        return features(classifier, weight, tokens, batch_size)

    def seen(found, *rest, **more):
        solved.append((found, solve(found, *rest, **more)))
        return solved[-1][1]

    monkeypatch.setattr(held_out, "_known", {})  # which other poolings would find
    monkeypatch.setattr(probe, "features", counted)
    monkeypatch.setattr(probe, "solve", seen)
    (logits,) = logits_of_held_out(own, rows.train, rows.validation, rows.label_names)
    logits_of_held_out(own, rows.validation, rows.train, rows.label_names)
    assert len(computed) == len(set(computed)) >= len(set(rows.train.texts))
    run = train(tree, out=tmp_path / "run")
    expected = rankwise.load(run.path).predict_proba(rows.validation.texts)
    # The tiny model's first tokens are nearly one vector, so their head's weights are thousands: what the features' own rounding
    # makes of a logit, where other texts share a batch, is the bound.
    found, (weight, *_) = solved[0]
    rounding = float((found.abs() @ weight.abs().T).max()) * torch.finfo(torch.float32).eps
    assert rounding < 1e-3
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), expected, atol=max(1e-4, rounding))
