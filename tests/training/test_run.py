"""A run from configuration to folder: what it holds, what it proves, and that a resumed one equals the whole one."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rankwise
from rankwise import config as configuration
from rankwise.data import tokens
from rankwise.errors import BudgetError, UserError
from rankwise.records.history import COLUMNS
from rankwise.scoring import predictions
from rankwise.training import building, loop, proof, record
from support import sentences, write_csv
from training.runs import equal, interrupt_after

TEXTS = ["the striker scored a goal for the team", "shares of the bank fell", "a new planet in orbit"]


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory, tiny_model, news):
    """One finished run for the tests that only read it."""
    tree = {
        "budget": {"max_trainable": 20_000},
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": "all", "rank": 4, "bias": "lora_only", "dora": True},
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"steps": 150, "batch_size": 16, "learning_rate": 1e-2, "eval_every": 50},
        "engine": "reference",
    }
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "run")


def test_the_folder_holds_what_the_contract_names(shared_run):
    result = shared_run.result
    assert result["status"] == "finished"
    assert set(result["parameters"]) >= {
        "trainable",
        "budget",
        "adapter",
        "dora",
        "bias",
        "head",
        "frozen",
        "adapter_bytes",
    }
    assert set(result["metrics"]["validation"]) >= {
        "examples",
        "step",
        "accuracy",
        "accuracy_ci95",
        "loss",
        "macro_f1",
        "ece",
    }
    assert set(result["timing"]) >= {"train_s", "eval_s", "steps", "examples_per_s", "tokens_per_s"}
    assert result["data"]["train"]["rows"] == 240
    assert len(result["data"]["validation"]["sha256"]) == 64
    assert shared_run.path.joinpath("history.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [row["step"] for row in shared_run.history] == [50, 100, 150]
    names = {path.name for path in shared_run.adapter.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json"}
    assert shared_run.predictions("validation").is_file()


def test_it_learns_and_the_file_is_as_large_as_planned(shared_run):
    assert shared_run.result["metrics"]["validation"]["accuracy"] > 0.8
    size = (shared_run.adapter / "adapter_model.safetensors").stat().st_size
    assert size == shared_run.result["parameters"]["adapter_bytes"]


def test_the_saved_configuration_runs_again_to_the_same_result(shared_run, tmp_path):
    again = rankwise.train(shared_run.path / "config.yaml", out=tmp_path / "again")
    assert again.result["config_hash"] == shared_run.result["config_hash"]
    assert again.result["metrics"] == shared_run.result["metrics"]
    one, other = (load_file(run.adapter / "adapter_model.safetensors") for run in (shared_run, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loaded_run_names_labels_and_its_probabilities_are_the_saved_ones(shared_run, news):
    predictor = rankwise.load(shared_run)
    probabilities = predictor.predict_proba(TEXTS)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert predictor.predict(TEXTS) == ["sport", "business", "science"]


def test_plain_peft_loads_the_adapter_with_equal_logits(shared_run):
    from peft import AutoPeftModelForSequenceClassification

    predictor = rankwise.load(shared_run)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(shared_run.adapter, num_labels=3).eval()
    encoded = predictor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        expected = plain(**inputs).logits.numpy()
    np.testing.assert_allclose(predictor.logits(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["adalora", "prefix"])
def test_what_the_engine_does_not_know_runs_on_the_reference_path(config, tmp_path, method):
    config["adapter"] = {"method": method}
    run = rankwise.train({**config, "engine": "auto"}, out=tmp_path / "run")
    assert run.result["engine"]["path"] == "reference"
    assert method in run.result["engine"]["reason"]


def test_over_budget_stops_before_any_weight_is_read(config, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "assembled", lambda *_, **__: pytest.fail("weights were read"))
    config["budget"]["max_trainable"] = 1000
    with pytest.raises(BudgetError, match="the largest rank that fits is"):
        rankwise.train(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("schedule", "engine"), [("linear", "fast"), ("plateau", "reference")])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config, tmp_path, monkeypatch, schedule, engine):
    config["engine"] = engine
    config["train"] |= {"schedule": schedule, "accumulate": 2, "early_stopping": {"patience": 4}, "plateau_patience": 0}
    whole = rankwise.train(config, out=tmp_path / "whole")
    interrupt_after(monkeypatch, steps=10)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()
    resumed = rankwise.train(config, out=tmp_path / "cut", resume=True)
    assert resumed.result["engine"]["path"] == engine
    assert resumed.result["sessions"] == [0, 10], "it went on, and did not begin again"
    assert resumed.result["metrics"] == whole.result["metrics"]
    assert resumed.history == whole.history
    assert equal(whole, resumed)


@pytest.mark.parametrize(("key", "value"), [("learning_rate", 1e-3), ("steps", 48)])
def test_a_resume_with_another_configuration_is_refused(config, tmp_path, key, value):
    # Another number of steps would be another schedule: the papers' tool rebuilt it without a word.
    rankwise.train(config, out=tmp_path / "run")
    config["train"][key] = value
    run = tmp_path / "run"
    with pytest.raises(UserError, match=f"another train.{key}"):
        rankwise.train(config, out=run, resume=True)


def test_a_failed_run_says_how_far_it_came(config, tmp_path, monkeypatch):
    train_step = loop.Loop._train_step

    def broken(self):
        if self.state.step == 9:
            raise OSError("no space left on device")
        train_step(self)

    monkeypatch.setattr(loop.Loop, "_train_step", broken)
    with pytest.raises(OSError, match="no space"):
        rankwise.train(config, out=tmp_path / "run")
    result = rankwise.Run(tmp_path / "run").result
    assert (result["status"], result["timing"]["steps"]) == ("failed", 9)
    assert result["timing"]["train_s"] > 0
    assert result["error"] == "OSError: no space left on device"


def test_a_run_killed_at_its_very_end_is_finished_by_a_resume(config, tmp_path, monkeypatch):
    def killed(run):
        raise SystemExit

    monkeypatch.setattr(record.calibrate, "calibrate", killed)
    with pytest.raises(SystemExit):
        rankwise.train(config, out=tmp_path / "run")
    monkeypatch.undo()
    run = rankwise.train(config, out=tmp_path / "run", resume=True)
    assert run.result["status"] == "finished"
    assert "temperature" in run.result["calibration"]
    assert "## Scores" in (run.adapter / "README.md").read_text(encoding="utf-8")


def test_a_resume_finds_its_rows_where_they_lie_now(config, tmp_path, monkeypatch):
    whole = rankwise.train(config, out=tmp_path / "whole")
    interrupt_after(monkeypatch, steps=10)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    monkeypatch.undo()
    cut = rankwise.Run(tmp_path / "cut")
    with cut.changing() as result:
        result.timing.total_s = 1000.0
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(Path(config["data"]["train"]).read_bytes())
    config["data"]["train"] = str(moved)
    resumed = rankwise.train(config, out=tmp_path / "cut", resume=True)
    assert resumed.history == whole.history
    assert resumed.result["sessions"] == [0, 10], "it went on, and did not begin again"
    assert resumed.config.data.train == str(moved)
    assert 1000 < resumed.result["timing"]["total_s"] < 2000  # of both sessions


def test_a_resume_finds_its_base_where_it_lies_now(config, tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(config["model"]["name"], here)
    config["model"]["name"] = str(here)
    whole = rankwise.train(config, out=tmp_path / "whole")
    interrupt_after(monkeypatch, steps=10)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    monkeypatch.undo()
    here.rename(there)
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    config["model"]["name"] = str(there)
    resumed = rankwise.train(config, out=moved, resume=True)
    assert resumed.result["sessions"] == [0, 10], "it went on, and did not begin again"
    assert resumed.history == whole.history
    assert equal(whole, resumed)
    assert resumed.config.model.name == str(there)


def test_a_resume_on_another_base_is_refused(config, tmp_path):
    run = rankwise.train(config, out=tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(config["model"]["name"], other)
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    config["model"]["name"] = str(other)
    with pytest.raises(UserError, match=r"another model\.name"):
        rankwise.train(config, out=run.path, resume=True)


@pytest.mark.parametrize("keys", [{"steps": 48}, {"steps": None, "epochs": 9}])
def test_a_run_cannot_be_made_longer_and_says_so(config, tmp_path, keys):
    run = rankwise.train(config, out=tmp_path / "run")
    config["train"] |= keys
    with pytest.raises(UserError, match=r"train\.(epochs|steps), and its learning rates .* cannot be made longer"):
        rankwise.train(config, out=run.path, resume=True)


def test_a_checkpoint_is_kept_every_few_minutes_whatever_the_evaluations(config, tmp_path, monkeypatch):
    kept = []
    save = loop.Loop.save_checkpoint

    def spy(self):
        kept.append(self.state.step)
        save(self)

    monkeypatch.setattr(loop.Loop, "save_checkpoint", spy)
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    config["train"]["eval_every"] = config["train"]["steps"]
    rankwise.train(config, out=tmp_path / "often")
    assert kept == list(range(1, config["train"]["steps"] + 1))


def test_a_resume_on_other_rows_is_refused(config, tmp_path):
    rows = Path(config["data"]["train"]).read_text(encoding="utf-8")
    config["data"]["train"] = str(tmp_path / "train.csv")
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
    run = rankwise.train(config, out=tmp_path / "run")
    with run.changing() as result:
        result.status = "interrupted"
    (tmp_path / "train.csv").write_text(rows + "a new row,sport\n", encoding="utf-8")
    with pytest.raises(UserError, match="was started with other train rows"):
        rankwise.train(config, out=run.path, resume=True)


def test_a_folder_that_holds_a_run_or_something_else_is_not_overwritten(config, shared_run, tmp_path):
    with pytest.raises(UserError, match="holds a run already: continue it with --resume"):
        rankwise.train(config, out=shared_run.path)
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="is not a run's folder"):
        rankwise.train(config, out=tmp_path)


def test_training_accuracy_counts_training_rows_only(config, tmp_path, monkeypatch):
    seen = []
    history_row = loop.Loop._history_row

    def spy(self, scores):
        seen.append(self.state.interval.rows)
        return history_row(self, scores)

    monkeypatch.setattr(loop.Loop, "_history_row", spy)
    rankwise.train(config, out=tmp_path / "run")
    assert seen == [6 * 8] * 4


def test_a_failed_run_says_so_in_its_result(config, tmp_path, monkeypatch):
    def broken(self):
        raise FloatingPointError("on purpose")

    monkeypatch.setattr(loop.Loop, "_train_step", broken)
    with pytest.raises(FloatingPointError):
        rankwise.train(config, out=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"] == "FloatingPointError: on purpose"


def test_an_adapter_that_does_not_repeat_the_live_model_is_no_success():
    live = np.array([[1.0, 2.0]])
    assert proof.prove_equal(live, live + 1e-7) < 1e-6
    with pytest.raises(RuntimeError, match="does not repeat the live model"):
        proof.prove_equal(live, live + 1e-3)


@pytest.mark.parametrize("method", ["full", "ia3"])
def test_scores_are_of_the_arithmetic_that_answers(config, tmp_path, method):
    """Full fine-tuning trains on the reference path and is served by the fast engine: in bf16 0.0006 apart once."""
    tree = {**config, "engine": "auto", "adapter": {"method": method}, "budget": {"max_trainable": None}}
    tree["model"] = {**config["model"], "precision": "bf16"}
    run = rankwise.train(tree, out=tmp_path / "run")
    rows = [text for text, _ in sentences(60, 1)]  # `news`' validation rows
    assert np.array_equal(predictions.read(run.path, "validation").logits, rankwise.load(run).logits(rows))


def test_evaluation_is_recorded_and_test_rows_are_kept_apart(config, news, tmp_path):
    run = rankwise.train(config, out=tmp_path / "run")
    assert "test" not in run.result["metrics"]
    first = rankwise.evaluate(run, [f"data.test={news['test']}"])
    assert first["examples"] == 60
    assert first["looks"] == 1
    assert rankwise.evaluate(run, [f"data.test={news['test']}"])["looks"] == 2
    assert run.result["metrics"]["test"]["accuracy"] == first["accuracy"]
    assert run.predictions("test").is_file()


@pytest.mark.parametrize(
    "word", ["data.test_size=20", "data.split_seed=1", "data.max_length=8", "data.preprocess=[stem]"]
)
def test_evaluation_cannot_split_or_clean_anew(shared_run, word):
    with pytest.raises(UserError, match="cannot change at evaluation: only data.test"):
        rankwise.evaluate(shared_run, [word])


def test_texts_are_cleaned_once_wherever_they_are_scored(config, tmp_path, monkeypatch):
    # A stem's stem is another word: "increases" -> "increas" -> "increa".
    config["data"] |= {"preprocess": ["stem"], "test": str(tmp_path / "test.csv")}
    config["train"] |= {"steps": 8}
    rows = [(f"increases of databases {text}", label) for text, label in sentences(60, seed=2)]
    write_csv(tmp_path / "test.csv", rows)
    run = rankwise.train(config, out=tmp_path / "run")
    encoded = []
    encode = tokens.encode
    monkeypatch.setattr(tokens, "encode", lambda texts, *more: encoded.append(list(texts)) or encode(texts, *more))
    expected = rankwise.load(run).predict_proba([text for text, _ in rows])
    rankwise.evaluate(run)
    assert encoded[0] == encoded[1] != []
    assert encoded[0][0].startswith("increas of databas ")
    np.testing.assert_allclose(predictions.read(run.path, "test").probabilities, expected, atol=1e-6)


def test_rows_held_out_of_a_train_that_has_changed_are_not_scored(config, tmp_path):
    config["data"] = {"train": str(tmp_path / "t.csv"), "test_size": 20, "validation_size": 20, "max_length": 32}
    config["train"] |= {"steps": 4}
    rows = sentences(90, seed=2)
    write_csv(tmp_path / "t.csv", rows)
    run = rankwise.train(config, out=tmp_path / "run")
    write_csv(tmp_path / "u.csv", sentences(12, seed=9))
    assert rankwise.evaluate(run)["examples"] == 20
    assert rankwise.evaluate(run, [f"data.test={tmp_path / 'u.csv'}"])["examples"] == 12
    with pytest.raises(UserError, match="columns may only change beside data.test=FILE"):
        rankwise.evaluate(run, ["data.text=label"])
    write_csv(tmp_path / "t.csv", rows[1:])
    with pytest.raises(UserError, match="has changed since the run was trained"):
        rankwise.evaluate(run)
    write_csv(tmp_path / "t.csv", rows)
    assert rankwise.evaluate(run)["looks"] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_said_in_one_sentence_and_room_lets_the_run_go_on(config, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    config["adapter"]["rank"] = 32  # so that two checkpoints are larger than all else
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        with pytest.raises(UserError, match="no space is left; make room and resume"):
            rankwise.train(config, out=disk / "run")
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert rankwise.train(config, out=disk / "run", resume=True).result["status"] == "finished"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_config_tree_of_a_run_is_resolved(shared_run):
    config = configuration.load(shared_run.path / "config.yaml")
    assert config.adapter.rank == 4
    assert config.adapter.alpha == 8.0
    assert config.data.num_labels == 3
