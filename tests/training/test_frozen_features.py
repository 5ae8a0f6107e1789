"""The head on frozen features: fitted first, or alone; the features are computed once a machine."""

import shutil
import time

import numpy as np
import pytest
import torch

import rankwise
from rankwise.config import Model
from rankwise.models.sources import weights_identity
from rankwise.records.adapter import read_adapter
from rankwise.training import final, fitting, frozen_features, probe
from rankwise.training.objective import Objective
from rankwise.training.state import State
from training.runs import equal, interrupt_after, weights, with_keys

fitting_solve = fitting.solve


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_head_fitted_first_starts_lower(config, tmp_path, engine):
    config = with_keys(config, train__steps=1, train__learning_rate=1e-9) | {"engine": engine}
    plain = rankwise.train(config, out=tmp_path / "plain")
    first = rankwise.train(with_keys(config, head__probe_first=True), out=tmp_path / "first")
    assert first.result["engine"]["path"] == plain.result["engine"]["path"] == engine
    assert first.history[0]["validation_loss"] < plain.history[0]["validation_loss"] - 0.1
    assert first.history[0]["validation_accuracy"] > plain.history[0]["validation_accuracy"] + 0.1


def test_a_head_fitted_first_resumes_exactly(config, tmp_path, monkeypatch):
    config = with_keys(config, head__probe_first=True)
    whole = rankwise.train(config, out=tmp_path / "whole")
    interrupt_after(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    monkeypatch.undo()
    monkeypatch.setattr(probe, "fit_projection", lambda *_: pytest.fail("the head was fitted again"))
    assert equal(whole, rankwise.train(config, out=tmp_path / "cut", resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_frozen_features_are_computed_once_for_all_designs(config, tmp_path, monkeypatch, engine):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    computed, features = [], probe.features

    def counted(classifier, weight, tokens, batch_size):
        computed.append(len(tokens))
        return features(classifier, weight, tokens, batch_size)

    monkeypatch.setattr(probe, "features", counted)
    config = with_keys(config, head__probe_first=True, train__steps=1, train__eval_every=1) | {"engine": engine}
    first = rankwise.train(config, out=tmp_path / "first")
    rows = first.result["data"]["train"]["rows"]
    assert computed == [rows]
    others = with_keys(config, adapter__scope=["key", "attention_output"], adapter__rank=2, train__learning_rate=1e-4)
    rankwise.train(others, out=tmp_path / "others")
    assert computed == [rows], "another scope, rank and rate, the same features"
    (stored,) = (tmp_path / "cache" / "features").glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:100])
    again = rankwise.train(config, out=tmp_path / "again")
    assert computed == [rows, rows], "a file cut short is made again"
    assert equal(first, again)
    rankwise.train(with_keys(config, data__max_length=6), out=tmp_path / "shorter")
    assert computed[2:] == [rows], "other texts, other features"


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_probe_solves_logistic_regression_on_frozen_features(config, tmp_path, monkeypatch, engine):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    caught = {}
    solve = probe.solve

    def spy(found, labels, classes, objective, penalty, **options):
        caught.update(x=found.numpy(), y=labels)
        return solve(found, labels, classes, objective, penalty, **options)

    monkeypatch.setattr(probe, "solve", spy)
    monkeypatch.setattr(probe, "_solutions", {})
    config = with_keys(config, adapter__method="probe", model__precision="fp32") | {"engine": engine}
    run = rankwise.train(config, out=tmp_path / "run")
    scaler = StandardScaler()
    theirs = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaler.fit_transform(caught["x"]), caught["y"])
    expected = theirs.coef_ / scaler.scale_
    saved = {name: value for name, value in weights(run).items() if name.endswith("classifier.weight")}
    (ours,) = saved.values()
    np.testing.assert_allclose(ours - ours.mean(0), expected - expected.mean(0), atol=2e-2 * np.abs(expected).max())
    assert run.result["metrics"]["validation"]["accuracy"] > 0.5
    assert any("solved at once" in note for note in run.result["notes"])
    assert run.result["parameters"]["trainable"] == 32 * 3 + 3


def test_of_few_rows_directions_say_more_than_lengths():
    """Texts whose lengths say nothing of their class, eight a class: twenty draws."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(2, 64))
    objective = Objective(0.0, None, multi_label=False)

    def texts(count):
        labels = np.arange(count) % 2
        directions = centres[labels] + 3 * generator.normal(size=(count, 64)) + 2
        return torch.tensor(directions * generator.lognormal(0, 0.7, size=(count, 1)), dtype=torch.float32), labels

    def accuracy(draw, directions):
        (train, labels), (test, expected) = draw
        weight, bias, _ = probe.solve(train, labels, 2, objective, 256.0, directions=directions)
        return float(((test @ weight.T + bias).argmax(1).numpy() == expected).mean())

    draws = [(texts(16), texts(400)) for _ in range(20)]
    as_they_are, by_direction = (np.mean([accuracy(draw, only) for draw in draws]) for only in (False, True))
    assert by_direction > as_they_are + 0.02


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("several", [False, True])
def test_directions_of_texts_that_are_all_the_same_are_none(rows, several):
    labels = np.ones((rows, 3), dtype=np.float32) if several else np.arange(rows) % 3
    found = torch.full((rows, 8), 2.0)
    weight, bias, _ = probe.solve(found, labels, 3, Objective(0.0, None, multi_label=several), 1.0, directions=True)
    assert bool(weight.isfinite().all())
    assert bool(bias.isfinite().all())


def test_features_of_another_base_are_others_though_the_first_text_s_are_equal(tmp_path, monkeypatch):
    """A base that was trained on with a few more words answers other texts alike."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    texts = [np.array([1, 2]), np.array([3, 4])]

    def base(value):
        return lambda asked: torch.stack([torch.full((4,), float(value * (text[0] > 2))) for text in asked])

    first, second = (frozen_features.shared(base(value), texts, 2, f"base {value}") for value in (1, 2))
    assert torch.equal(first[0], second[0])
    assert second[1].tolist() == [2.0] * 4


def test_weights_are_known_by_their_bytes(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    same = [weights_identity(Model(name=str(folder)), 0) for folder in (tiny_model, copy)]
    assert same[0] == same[1]
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert weights_identity(Model(name=str(copy)), 0) != same[0]
    random = Model(name=str(copy), random_weights=True)
    assert weights_identity(random, 0) != weights_identity(random, 1)


@pytest.mark.parametrize("pooling", ["first", "mean", "both"])
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_training_rows_are_scored_by_the_features_that_a_head_was_solved_on(
    config, tmp_path, monkeypatch, engine, pooling
):
    scored, logits_of = [], final.logits_of

    def counted(classifier, tokens, batch_size):
        scored.append(len(tokens))
        return logits_of(classifier, tokens, batch_size)

    monkeypatch.setattr(final, "logits_of", counted)
    config = with_keys(config, head__pooling=pooling) | {"engine": engine, "adapter": {"method": "probe"}}
    found = rankwise.train(config, out=tmp_path / "known").result
    rows = found["data"]["validation"]["rows"]
    assert scored == [rows], "validation alone"
    monkeypatch.setattr(fitting, "State", lambda *given: NeverSolved(*given))
    again = rankwise.train(config, out=tmp_path / "again").result
    assert len(scored) == 3
    assert found["metrics"]["train_sample"]["accuracy"] == again["metrics"]["train_sample"]["accuracy"]
    assert found["metrics"]["train_sample"]["loss"] == pytest.approx(again["metrics"]["train_sample"]["loss"], abs=1e-4)


class NeverSolved(State):
    """What the solver knows of its rows is forgotten, so that the network is asked."""

    solved = property(lambda self: None, lambda self, _: None)


def test_a_head_has_the_rows_that_the_clock_left_time_for(config, tmp_path, monkeypatch):
    """As if they had been asked for, in all that is written; more time then computes the others."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen_features, "_AT_ONCE", 16)
    config = with_keys(config, adapter__method="probe", head__penalty=10.0, train__eval_batch_size=16)
    late = rankwise.train(config, out=tmp_path / "late", deadline=0.0)
    assert late.config.head.probe_rows == 16
    assert read_adapter(late.adapter).to_dict()["config"]["head"]["probe_rows"] == 16
    assert late.record.status == "finished"
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "other"))
    asked = rankwise.train(with_keys(config, head__probe_rows=16), out=tmp_path / "asked")
    assert equal(late, asked)
    assert asked.record.config_hash == late.record.config_hash
    assert rankwise.train(config, out=tmp_path / "late", resume=True).config.head.probe_rows == 16, "it is whole"
    whole = rankwise.train(config, out=tmp_path / "whole", deadline=time.time() + 900)
    assert whole.config.head.probe_rows is None
    assert not equal(late, whole)
    with late.changing() as result:
        result.status = "interrupted"
    again = rankwise.train(config, out=tmp_path / "late", resume=True)
    assert again.config.head.probe_rows is None, "and has all rows where there is time"
    assert equal(again, whole)


def test_a_clock_that_ends_does_not_fit_a_head_on_fewer_rows_again(config, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_features, "_AT_ONCE", 16)
    config = with_keys(config, adapter__method="probe", head__penalty=10.0, head__probe_rows=32)
    config = with_keys(config, train__eval_batch_size=16)
    before = rankwise.train(config, out=tmp_path / "before")
    monkeypatch.setattr(fitting, "solve", lambda *of: fitting_solve(*of[:-1]))
    again = rankwise.train(with_keys(config, train__refit_steps=1), out=tmp_path / "again", deadline=0.0)
    assert again.record.refit is None
    assert equal(before, again)
