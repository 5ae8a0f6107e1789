"""Contrastive steps: pairs are drawn together and apart, texts of a class meet, and the head is fitted on what the adapters give."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import rankwise
from rankwise import config as configuration
from rankwise.data.batches import grouped_order
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.search.sweep.trial import load_data
from rankwise.training.held_out import logits_of_held_out
from rankwise.training.job import train
from rankwise.training.loop import Loop
from rankwise.training.objective import Contrastive
from training.runs import equal, interrupt_after, with_keys


def test_pairs_of_a_class_are_drawn_to_one_and_others_to_zero_with_equal_weight():
    embedded = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    kinds = {True: [], False: []}
    for row, other in itertools.combinations(range(7), 2):
        cosine, same = F.cosine_similarity(embedded[row], embedded[other], 0), bool(labels[row] == labels[other])
        kinds[same].append((cosine - float(same)) ** 2)
    expected = 7 * sum(torch.stack(kind).mean() for kind in kinds.values()) / 2
    torch.testing.assert_close(Contrastive().total(embedded, labels), expected)
    near = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert Contrastive().correct(near, torch.tensor([0, 0, 1])) == 2


def test_a_row_alone_moves_nothing():
    embedded = torch.ones(1, 3, requires_grad=True)
    Contrastive().total(embedded, torch.tensor([0])).backward()
    assert not embedded.grad.any()
    assert Contrastive().correct(embedded, torch.tensor([0])) == 0


@pytest.mark.parametrize("classes", [2, 77])
def test_every_row_is_met_once_an_epoch_beside_rows_of_its_class(classes):
    labels = np.random.default_rng(0).integers(classes, size=40 * classes)
    batches = grouped_order(labels, 32, seed=3, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(len(labels)))
    alone = [np.sum(np.unique(labels[rows], return_counts=True)[1] == 1) / len(rows) for rows in batches[:-1]]
    assert np.mean(alone) < 0.1, "nearly every row has a partner"
    assert not np.array_equal(batches[0], grouped_order(labels, 32, seed=3, epoch=2)[0])


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_contrastive_run_is_an_ordinary_run(config, tmp_path, engine, pooling):
    tree = with_keys(config, train__objective="contrastive", train__steps=12, head__pooling=pooling) | {
        "engine": engine
    }
    tree = with_keys(tree, head__penalty="auto", train__learning_rate=3e-3, train__eval_every=6)
    run = train(tree, out=tmp_path / "run")
    result = run.result
    assert result["status"] == "finished"
    assert result["reload"]["max_logit_difference"] <= 1e-5
    assert result["metrics"]["validation"]["accuracy"] > 0.9
    assert rankwise.load(run.path).predict(["the striker scored a goal"]) == ["sport"]


def test_without_validation_the_head_is_fitted_once_at_the_end(config, tmp_path):
    tree = with_keys(
        config, train__objective="contrastive", train__evaluate=False, train__steps=6, head__penalty="auto"
    )
    tree["data"].pop("validation", None)
    run = train(tree, out=tmp_path / "run")
    assert run.result["metrics"]["train_sample"]["accuracy"] > 0.9


def test_a_contrastive_run_goes_on_where_it_was_interrupted(config, tmp_path, monkeypatch):
    tree = with_keys(config, train__objective="contrastive", train__steps=8, train__eval_every=4)
    whole = train(tree, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            train(tree, out=tmp_path / "cut")
    assert equal(train(tree, out=tmp_path / "cut", resume=True), whole)


@pytest.mark.parametrize("evaluate", [True, False])
def test_what_is_left_of_an_interrupted_run_answers_by_a_fitted_head(config, tmp_path, monkeypatch, evaluate):
    tree = with_keys(
        config, train__objective="contrastive", train__steps=40, train__eval_every=40 if evaluate else None
    )
    tree = with_keys(tree, train__evaluate=evaluate, head__penalty="auto")
    interrupt_after(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        train(tree, out=tmp_path / "cut")
    assert rankwise.load(tmp_path / "cut").predict(["the striker scored a goal"]) == ["sport"]


def test_answers_on_the_way_are_those_of_the_shorter_run(config, news):
    keys = {"train__schedule": "constant", "train__warmup_steps": 2, "train__warmup_ratio": None}
    tree = with_keys(config, train__objective="contrastive", train__steps=8, train__learning_rate=3e-3, **keys)
    rows = load_data(configuration.from_dict(tree).data, ["train", "validation"])
    kept, out, names = rows.train, rows.validation, rows.label_names
    on_the_way, last = logits_of_held_out(configuration.from_dict(tree), kept, out, names, after=[4])
    shorter = configuration.from_dict(with_keys(tree, train__steps=4))
    np.testing.assert_allclose(on_the_way, logits_of_held_out(shorter, kept, out, names)[0], atol=1e-5)
    assert np.abs(on_the_way - last).max() > 0.01
    assert (
        logits_of_held_out(configuration.from_dict(tree), kept, out, names, after=[4], deadline=Deadline.after(0.0))
        == []
    )
    over = Deadline.after(0.0)
    (first,) = logits_of_held_out(configuration.from_dict(tree), kept, out, names, after=[4], longer=over)
    np.testing.assert_array_equal(first, on_the_way)


def test_what_will_not_come_there_in_time_is_given_up_as_soon_as_its_steps_say_so(config, news, monkeypatch):
    tree = with_keys(config, train__objective="contrastive", train__steps=40)
    rows = load_data(configuration.from_dict(tree).data, ["train", "validation"])
    taken, step = [], Loop._train_step

    def slow(loop):
        step(loop)
        taken.append(loop.state.step)
        loop._lately[-1] = 10.0

    monkeypatch.setattr(Loop, "_train_step", slow)
    asked = configuration.from_dict(tree), rows.train, rows.validation, rows.label_names
    assert logits_of_held_out(*asked, after=[20], deadline=Deadline.after(100.0)) == []
    assert taken == [1, 2, 3, 4]
    assert len(logits_of_held_out(*asked, after=[4], deadline=Deadline.after(100.0))) == 1
    assert taken[4:] == [1, 2, 3, 4], "no further than what there is time for"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"adapter": {"method": "head"}}, "adapter.method: head"),
        ({"adapter": {"method": "probe"}}, "adapter.method: probe"),
        ({"data": {"multi_label": True}}, "data.multi_label: true"),
    ],
)
def test_what_has_no_pairs_to_compare_is_refused(keys, sentence):
    with pytest.raises(UserError, match=f"train.objective: contrastive cannot apply .*{sentence}"):
        configuration.from_dict({"train": {"objective": "contrastive"}} | keys)
