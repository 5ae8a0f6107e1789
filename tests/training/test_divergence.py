"""A run whose loss is no number any more: one sentence, the best kept, and nothing that goes on from it."""

import json
import math
import shutil

import pytest
from safetensors.torch import load_file, save_file

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.training.stopping import Diverged, Selection
from support import run_search, scores_of
from training.runs import with_keys

WILD = {"train__optimizer": "sgd", "train__max_grad_norm": None, "train__learning_rate": 1e30}


def strict_json(path):
    """A JSON file's content; no NaN and no Infinity, which JSON does not have."""

    def refuse(word):
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_it_stops_at_the_first_loss_that_is_no_number(config, tmp_path, engine, evaluated):
    tree = with_keys(config, **WILD, train__evaluate=evaluated) | {"engine": engine}
    for resume in (False, True):  # which does not go on from what is no number
        with pytest.raises(Diverged, match=r"diverged at step [1-4]: .* lower train.learning_rate, which is 1e\+30"):
            rankwise.train(tree, out=tmp_path / "run", resume=resume)
    result = strict_json(tmp_path / "run" / "result.json")
    assert result["status"] == "failed"
    assert result["error"].startswith("training diverged at step")
    assert "nothing of it is kept" in result["error"]


def test_the_best_weights_before_it_are_kept(config, tmp_path, monkeypatch):
    from rankwise.training import loop

    step = loop.Loop._train_step

    def broken(self):
        if self.state.step == 15:
            next(value for _, value in self._named_trainable()).data.fill_(math.nan)
        step(self)

    monkeypatch.setattr(loop.Loop, "_train_step", broken)
    with pytest.raises(
        Diverged, match=r"at step 16: the loss is not finite.* best weights so far, of step (6|12), are in"
    ):
        rankwise.train(config, out=tmp_path / "run")
    result = strict_json(tmp_path / "run" / "result.json")
    assert result["reached"]["step"] == 15
    assert rankwise.load(tmp_path / "run" / "adapter").predict(["the goal of the team"])[0]
    monkeypatch.undo()
    assert rankwise.train(config, out=tmp_path / "run", resume=True).result["sessions"][-1] == 12


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_base_that_holds_no_numbers_is_not_blamed_on_the_rate(config, tiny_model, tmp_path, engine):
    shutil.copytree(tiny_model, tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    damaged = {name: value * math.nan if name.endswith("query.weight") else value for name, value in weights.items()}
    save_file(damaged, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    tree = with_keys(config, model__name=str(tmp_path / "base")) | {"engine": engine}
    with pytest.raises(Diverged, match=r"at step 1: .* before anything was trained.*a weight of the base"):
        rankwise.train(tree, out=tmp_path / "run")


def test_the_command_says_it_in_one_sentence(config, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(json.dumps(with_keys(config, **WILD)), encoding="utf-8")
    assert main(["train", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "rankwise: training diverged at step" in said
    assert "Traceback" not in said
    assert "report" not in said


def test_in_a_search_it_fails_alone(sweep_of_rates, tmp_path):
    record = run_search(sweep_of_rates, tmp_path / "s")
    assert [row["status"] for row in record["table"]] == ["done", "failed"]
    assert record["table"][1]["why"].startswith("training diverged at step")
    assert record["winner"]["trial"] == 0
    strict_json(tmp_path / "s" / "search.json")


@pytest.fixture
def sweep_of_rates(config):
    base = with_keys(config, **{**WILD, "train__learning_rate": 1e-2}, train__steps=8, train__eval_every=4)
    return {"base": base, "axes": {"train.learning_rate": [1e-2, 1e30]}, "strategy": {"name": "factorial"}}


def test_no_number_is_ever_the_best():
    selection = Selection("accuracy", None)
    assert not selection.observe(1, scores_of(math.nan, math.nan))
    assert selection.observe(2, scores_of(0.1, 2.0))
    assert not selection.observe(3, scores_of(math.nan, 0.1))
    assert issubclass(Diverged, UserError)
