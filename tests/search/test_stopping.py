"""Ctrl-C: a real process in several phases ends with the best so far, proven, and a resume goes on to the end."""

import json
import signal

import pytest

import processes
import rankwise
from rankwise.scoring import predictions


def interrupted(words, found):
    """Run until something is found, press Ctrl-C, and wait; returns what it said."""
    with processes.Process(*words) as process:
        process.wait_for(found)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, process.err
        return process.err


def resumed(*words):
    process = processes.finished(*words, "--resume")
    assert process.returncode == 0, process.err


@pytest.fixture
def long_run(config, news, tmp_path):
    """A configuration whose steps take long enough to be stopped in."""
    from rankwise import config as configuration

    tree = {**config, "train": {**config["train"], "steps": 4000, "eval_every": 100, "learning_rate": 1e-3}}
    (tmp_path / "mine.yaml").write_text(configuration.to_yaml(configuration.from_dict(tree)))
    return tmp_path / "mine.yaml"


def test_a_run_that_is_stopped_holds_its_best_proven_and_goes_on(long_run, tmp_path, news):
    out = tmp_path / "run"
    words = ["train", str(long_run), "--out", str(out)]

    def evaluated():
        path = out / "history.csv"
        return path.is_file() and len(path.read_text().splitlines()) > 2

    assert "ending with the best so far" in interrupted(words, evaluated)
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["reload"]["max_logit_difference"] < 1e-3
    best = max(rankwise.Run(out).history, key=lambda row: row["validation_accuracy"])
    chosen = result["metrics"]["validation"]
    assert chosen["accuracy"] == pytest.approx(best["validation_accuracy"])
    kept = predictions.read(out, "validation")
    texts = [line.partition(",")[0] for line in news["validation"].read_text().splitlines()[1:]]
    assert rankwise.load(out).predict(texts) == [kept.label_names[label] for label in kept.predicted]
    stopped_at = result["reached"]["step"]
    tree = long_run.read_text()
    assert "steps: 4000" in tree
    assert 0 < stopped_at < 4000


def test_a_run_that_is_stopped_in_its_proof_is_whole(config, tmp_path):
    """Nothing is left to train then, and seconds of proof and scores are not worth a resume."""
    from rankwise import config as configuration

    out = tmp_path / "run"
    (tmp_path / "mine.yaml").write_text(configuration.to_yaml(configuration.from_dict(config)))
    with processes.Process("train", str(tmp_path / "mine.yaml"), "--out", str(out)) as process:
        process.wait_for(lambda: (out / "adapter" / "adapter_model.safetensors").is_file())
        assert json.loads((out / "result.json").read_text()).get("reload") is None, "the proof is over already"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0, process.err
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["reload"]["max_logit_difference"] < 1e-3
    assert len(rankwise.load(out).predict(["the striker said", "the bank"])) == 2


def test_a_stopped_run_gone_on_with_equals_the_whole_one(config, tmp_path, monkeypatch):
    from training.runs import equal, interrupt_after

    whole = rankwise.train(config, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 10)
        with pytest.raises(KeyboardInterrupt):
            rankwise.train(config, out=tmp_path / "cut")
    cut = rankwise.Run(tmp_path / "cut")
    assert cut.result["metrics"]["validation"]["step"] == 6
    assert cut.result["reload"]["max_logit_difference"] < 1e-3
    again = rankwise.train(config, out=tmp_path / "cut", resume=True)
    assert equal(whole, again)
    assert again.result["status"] == "finished"


@pytest.mark.sampled(2, of="searches that are stopped")
@pytest.mark.parametrize("phase", ["floors", "first trial", "a later trial"])
def test_auto_stopped_ends_with_the_best_so_far_and_goes_on(tiny_model, news, tmp_path, phase):
    out = tmp_path / "auto"
    words = ["auto", str(news["train"]), f"model.name={tiny_model}", f"data.validation={news['validation']}"]
    words += ["data.max_length=32", "engine=reference", "train.steps=100", "--max-minutes", "1", "--out", str(out)]
    marks = {
        "floors": lambda: (out / "floors").is_dir(),
        "first trial": lambda: (out / "trials" / "0000" / "history.csv").is_file(),
        "a later trial": lambda: (out / "trials" / "0001" / "history.csv").is_file(),
    }
    interrupted(words, marks[phase])
    record = json.loads((out / "search.json").read_text())
    assert record["status"] == "interrupted"
    winner = rankwise.Run(out / record["winner"]["run"])
    assert record["winner"]["test"] is None if "test" in record["winner"] else True
    kept = predictions.read(winner.path, "validation")
    texts = [line.partition(",")[0] for line in news["validation"].read_text().splitlines()[1:]]
    assert rankwise.load(out).predict(texts) == [kept.label_names[label] for label in kept.predicted]
    assert record["winner"]["chosen"] == pytest.approx(float(kept.correct.mean()))
    assert any("stopped   by the user" in line for line in record["auto"]["explanation"])
    before = record["winner"]["mean"]
    resumed(*words)
    record = json.loads((out / "search.json").read_text())
    assert record["status"] == "finished"
    assert record["winner"]["mean"] >= before
    runs = [rankwise.Run(path.parent) for path in out.glob("**/trials/*/config.yaml")]
    assert {run.config.train.steps for run in runs} == {100}, "steps that the user named, after a resume too"
    assert not (out / "again").exists()


@pytest.mark.sampled(2, of="searches that are stopped")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_stopped_ends_with_its_best_and_goes_on(long_run, tmp_path, workers):
    from rankwise import config as configuration

    tree = {
        "base": configuration.to_dict(configuration.load(long_run)),
        "axes": {"adapter.rank": [1, 2, 4]},
        "strategy": {"name": "grid"},
    }
    tree["base"]["train"] |= {"steps": 400, "eval_every": 50}
    (tmp_path / "sweep.yaml").write_text(json.dumps(tree))
    out = tmp_path / "sweep"
    words = ["search", str(tmp_path / "sweep.yaml"), "--workers", str(workers), "--out", str(out)]

    def begun():
        path = out / "trials" / "0000" / "history.csv"
        return path.is_file() and len(path.read_text().splitlines()) > 2

    interrupted(words, begun)
    record = json.loads((out / "search.json").read_text())
    assert record["status"] == "interrupted"
    assert rankwise.load(out).predict(["the match goal"])
    assert rankwise.Run(out / record["winner"]["run"]).result["reload"]["max_logit_difference"] < 1e-3
    resumed("search", "--out", out)
    record = json.loads((out / "search.json").read_text())
    assert record["status"] == "finished"
    assert record["counts"]["done"] == 3
