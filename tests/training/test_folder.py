"""A run's folder: held by one process at a time, and what is written in it."""

import csv
import signal

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

import processes
import rankwise
from rankwise import BudgetError, UserError
from rankwise.cli import main
from rankwise.inference.calibrate import calibrate
from rankwise.runs.folder import Run
from rankwise.scoring import predictions
from support import write_csv
from training.runs import equal, with_keys


def start(config, folder, *words):
    """A run of the command line in a process of its own."""
    file = folder.parent / "config.yaml"
    file.write_text(msgspec.yaml.encode(config).decode())
    return processes.Process("train", file, "--out", folder, *words)


@pytest.mark.slow
def test_a_live_run_is_not_resumed_and_a_killed_one_leaves_no_lock(config, tmp_path, capsys):
    whole = rankwise.train(config, out=tmp_path / "whole")
    endless = with_keys(config, train__steps=100_000)
    with start(endless, tmp_path / "live") as live:
        live.wait_for((tmp_path / "live" / "history.csv").exists)
        for words in (["--resume"], []):
            beside = start(endless, tmp_path / "live", *words)
            assert beside.wait() == 2
            assert ("another process is training in" if words else "holds a run already") in beside.err
            assert "Traceback" not in beside.err
        assert live.poll() is None, "the live run goes on"
        live.send_signal(signal.SIGTERM)
        live.wait()
        with Run(tmp_path / "live").owned():
            pass
    with start(config, tmp_path / "killed") as killed:
        killed.wait_for((tmp_path / "killed" / "history.csv").exists)
    assert equal(whole, rankwise.train(config, out=tmp_path / "killed", resume=True))


def test_two_runs_that_begin_at_once_in_one_folder_are_one_run(config, tmp_path):
    both = [start(config, tmp_path / "run") for _ in range(2)]
    assert sorted(process.wait() for process in both) == [0, 2], [process.err for process in both]
    assert rankwise.Run(tmp_path / "run").result["status"] == "finished"


def test_a_mistyped_folder_is_not_begun_anew(config, tmp_path):
    with pytest.raises(UserError, match=r"there is no run at .*typo to go on with"):
        rankwise.train(config, out=tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


def test_a_refused_run_leaves_no_folder(config, tmp_path):
    with pytest.raises(BudgetError):
        rankwise.train(with_keys(config, budget__max_trainable=5), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_evaluations_at_once_leave_both_scores_and_looks(config, tmp_path, news):
    run = rankwise.train(config, out=tmp_path / "run")
    with run.changing() as result:
        result.unknown["kept"] = "by everyone"
    words = ["evaluate", run.path, f"data.test={news['test']}", "--json"]
    both = [processes.Process(*words) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert run.result["kept"] == "by everyone"
    assert run.result["metrics"]["test"]["looks"] == 2
    assert run.result["status"] == "finished"


def test_a_test_file_named_at_evaluation_is_compared_with_the_training_rows(config, tmp_path, news, capsys):
    run = rankwise.train(config, out=tmp_path / "run")
    with news["train"].open(newline="", encoding="utf-8") as file:
        leaked = [(row["text"], row["label"]) for row in list(csv.DictReader(file))[:7]]
    fresh = [(f"quite another matter of {number} words here", "sport") for number in range(5)]
    rows = write_csv(tmp_path / "leaky.csv", [*leaked, *fresh])
    assert main(["evaluate", str(run.path), f"data.test={rows}"]) == 0
    assert "7 of 12 rows of test repeat one of train (7 exactly" in capsys.readouterr().out
    assert "7 of 12 rows" in (run.adapter / "README.md").read_text(encoding="utf-8")
    clean = rankwise.evaluate(run, [f"data.test={write_csv(tmp_path / 'clean.csv', fresh)}"])
    assert not any("repeat one of train" in note for note in clean.get("notes", []))


def test_rows_in_another_order_and_file_are_the_rows_that_were_looked_at(config, tmp_path, news):
    run = rankwise.train(config, out=tmp_path / "run")
    with news["test"].open(newline="", encoding="utf-8") as file:
        rows = [(row["text"] + " again", row["label"]) for row in csv.DictReader(file)]
    first = rankwise.evaluate(run, [f"data.test={write_csv(tmp_path / 'a.csv', rows)}"])
    second = rankwise.evaluate(run, [f"data.test={write_csv(tmp_path / 'b.csv', rows[::-1])}"])
    assert (first["looks"], second["looks"]) == (1, 2)
    other = rankwise.train(config, out=tmp_path / "other")
    third = rankwise.evaluate(other, [f"data.test={tmp_path / 'a.csv'}"])
    assert (third["looks"], third["looks_all"]) == (1, 3)


def test_logits_are_kept_and_make_the_probabilities(config, tmp_path):
    run = rankwise.train(config, out=tmp_path / "run")
    read = predictions.read(run.path, "validation")
    assert read.logits.dtype == np.float32
    shifted = np.exp(read.logits - read.logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(shifted / shifted.sum(axis=1, keepdims=True), read.probabilities, atol=1e-6)
    # A file of an earlier version holds none: what its probabilities tell of them is read.
    table = pq.read_table(run.predictions("validation"))
    pq.write_table(table.drop_columns(["logits"]), run.predictions("validation"))
    before = predictions.read(run.path, "validation")
    np.testing.assert_allclose(before.logits - before.logits[:, :1], read.logits - read.logits[:, :1], atol=1e-3)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("margin", [5.0, 25.0, 40.0])
def test_the_temperature_is_fitted_on_logits_however_sure(config, tmp_path, margin, multi_label):
    """96 of 100 rows are right, each as sure of itself as the margin: the temperature brings the mean to 96%."""
    run = rankwise.train(config, out=tmp_path / "run")
    right = np.arange(400) % 25 != 0
    if multi_label:
        labels = np.stack([right, right, right], axis=1).astype(np.int64)
        logits = np.full((400, 3), margin, dtype=np.float32)
    else:
        labels = np.where(right, 0, 1)
        logits = np.tile(np.array([margin, 0.0, -200.0], dtype=np.float32), (400, 1))
    predictions.write(
        run.path, "validation", run.record.labels, rows_sha256="x", ids=list(range(400)), labels=labels,
        probabilities=np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)) if not multi_label
        else 1 / (1 + np.exp(-logits)), logits=logits,
    )  # fmt: skip
    found = calibrate(run)
    assert found.temperature == pytest.approx(margin / np.log(0.96 / 0.04), rel=1e-3)


def test_the_history_has_the_metric_that_chose(config, tmp_path):
    run = rankwise.train(with_keys(config, train__select={"metric": "macro_f1"}), out=tmp_path / "run")
    chosen = run.result["metrics"]["validation"]
    row = next(row for row in run.history if row["step"] == chosen["step"])
    assert row["validation_macro_f1"] == pytest.approx(chosen["macro_f1"], abs=1e-6)
    assert row["validation_macro_f1"] == max(row["validation_macro_f1"] for row in run.history)


@pytest.mark.parametrize("asked", [False, True])
def test_texts_are_in_the_result_only_when_asked_for(config, tmp_path, asked):
    rows = [("the very same secret words about a match", "sport")] * 20 + [("shares of a bank fell", "business")] * 20
    config = with_keys(config, data__train=str(write_csv(tmp_path / "t.csv", rows)), data__excerpts=asked)
    config["data"].pop("validation")
    run = rankwise.train(config, out=tmp_path / "run")
    assert run.result["texts"]["duplicates"][0]["examples"][0]["ids"]
    assert ("secret" in (run.path / "result.json").read_text(encoding="utf-8")) is asked
