"""Workers: several processes, one of them killed; a Ray cluster, one of whose workers is killed."""

import contextlib
import csv
import importlib.util
import json
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from rich.console import Console

import rankwise
from rankwise import cli
from rankwise.errors import UserError
from rankwise.search.driver import search
from rankwise.search.sweep import spec
from rankwise.search.sweep.trial import Outcome, Task
from rankwise.search.sweep.workers import InProcess, Processes

QUIET = Console(quiet=True)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: rankwise[ray]")


@pytest.fixture
def long_sweep(sweep):
    """Trials of some seconds, so that one can be killed while it runs."""
    sweep["base"]["train"] |= {"steps": 120, "eval_every": 30}
    sweep["axes"] = {"train.learning_rate": [2e-3, 1e-2]}
    return sweep


def kill_at_the_first_checkpoint(folder, processes):
    """Kill all of `processes()` once a trial of `folder` has a checkpoint, most of its steps still before it; returns
    the thread and the list of those killed.

    All, for a worker cannot be told from outside to have this trial or another, that began seconds before or after.
    """
    killed = []

    def watch():
        deadline = time.time() + 300
        while time.time() < deadline:
            if any(folder.glob("trials/*/checkpoints/step-*")):
                for one in processes():
                    os.kill(one.pid, signal.SIGKILL)
                    killed.append(one.pid)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread, killed


def children():
    """This process's worker processes that live: one may end while it is looked at."""
    found = []
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(one.cmdline()):
                found.append(one)
    return found


def went_on(record, folder):
    """Whether a trial was taken over from its checkpoint."""
    return any(max(rankwise.Run(folder / trial["run"]).result["sessions"]) > 0 for trial in record["trials"])


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(long_sweep, tmp_path):
    folder = tmp_path / "s"
    thread, killed = kill_at_the_first_checkpoint(folder, children)
    record = search(long_sweep, out=folder, console=QUIET, workers=Processes(1, threads=1))
    thread.join()
    assert killed
    assert [row["status"] for row in record["table"]] == ["done", "done"]
    assert record["counts"]["steps"] == 2 * 120
    assert went_on(record, folder)
    alone = search(long_sweep, out=tmp_path / "alone", console=QUIET, workers=InProcess())
    assert record["table"] == alone["table"]


def die_at_one(task):
    """What a trial without enough memory does to its worker."""
    if task.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    return Outcome(task.number, "finished", 1)


def test_a_trial_that_kills_every_worker_fails_and_the_others_end(monkeypatch):
    monkeypatch.setattr("rankwise.search.sweep.workers.carry_out", die_at_one)
    workers = Processes(2, threads=1)
    tasks = [Task(number, {}, "nowhere", None, None, False) for number in range(4)]
    outcomes = {outcome.number: outcome for outcome in workers.run(tasks)}
    workers.close()
    assert {number: outcome.status for number, outcome in outcomes.items()} == {
        0: "finished",
        1: "failed",
        2: "finished",
        3: "finished",
    }
    assert "its worker died 4 times, perhaps for want of memory" in outcomes[1].error


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two cpus on this machine."""
    from rankwise.search.sweep.ray_workers import connect

    # Ray gives its own processes half a minute to start, which is too little on a busy machine.
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112 (Ray's spelling)
    ray = connect("local", num_cpus=2, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


def read_csv(path):
    """The texts of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]


@needs_ray
@pytest.mark.sampled(1, of="Ray")
@pytest.mark.slow
def test_bulk_prediction_equals_the_predictor_on_every_row(config, news, tmp_path, cluster, capsys):
    import pyarrow.parquet as pq

    from rankwise.search import bulk

    config["train"] |= {"steps": 4, "eval_every": 4}
    run = rankwise.train(config, out=tmp_path / "run")
    with pytest.raises(UserError, match="has no column 'body'"):
        bulk.predict(run, str(news["test"]), tmp_path / "none", address="local", text="body")
    texts = [*read_csv(news["test"]), None]
    for number, part in enumerate(
        (texts[:40], texts[40:])
    ):  # a set-up of workers costs more than the rest of this test
        (tmp_path / f"g{number}p.jsonl").write_text(
            "".join(json.dumps({"text": text, "part": number}) + "\n" for text in part)
        )
    words = [
        "predict",
        str(run.adapter),
        str(tmp_path / "g*p.jsonl"),
        str(tmp_path / "verb"),
        "--ray",
        "local",
        "--json",
    ]
    assert cli.main(words) == 0
    priority = cluster.remote(lambda: os.nice(0)).remote()
    assert cluster.get(priority) == os.nice(0), "the command waits for workers that give way to everything else"
    assert json.loads(capsys.readouterr().out) == {"rows": 61, "output": str(tmp_path / "verb")}
    table = pq.read_table(tmp_path / "verb").to_pydict()
    assert set(table) == {"text", "part", "predicted", "p_business", "p_science", "p_sport"}
    assert sorted(map(str, table["text"])) == sorted(map(str, texts))
    predictor, answered = rankwise.load(run), [text or "" for text in table["text"]]
    assert table["predicted"] == predictor.predict(answered)
    np.testing.assert_allclose(
        table["p_sport"], predictor.predict_proba(answered)[:, predictor.label_names.index("sport")], atol=1e-6
    )
    assert cli.main([*words, "--format", "kaggle"]) == 2
    assert "--format kaggle cannot apply with --ray" in capsys.readouterr().err
    assert cli.main([*words, "--kaggle-header", "ID,label"]) == 2
    assert "--kaggle-header cannot apply with --ray" in capsys.readouterr().err
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main([*words[:2], str(tmp_path / "no-*.csv"), *words[3:]]) == 2
    assert "no file matches it" in capsys.readouterr().err


@needs_ray
@pytest.mark.sampled(1, of="Ray")
@pytest.mark.slow
def test_a_killed_ray_worker_loses_nothing(long_sweep, tmp_path, cluster):
    from rankwise.cli.search import _workers
    from rankwise.search.sweep.ray_workers import RayWorkers

    folder = tmp_path / "s"
    workers = _workers(1, "local", spec.Resources(cpus=1))  # as rankwise search --ray local has them
    assert isinstance(workers, RayWorkers)

    def trials():
        return [
            one
            for one in psutil.Process().children(recursive=True)
            if one.status() != psutil.STATUS_ZOMBIE and "ray::rankwise" in " ".join(one.cmdline())
        ]

    thread, killed = kill_at_the_first_checkpoint(folder, trials)
    record = search(long_sweep, out=folder, console=QUIET, workers=workers)
    thread.join()
    assert workers.count == 2
    assert killed
    assert [row["status"] for row in record["table"]] == ["done", "done"]
    assert record["counts"]["steps"] == 2 * 120
    assert went_on(record, folder)
    for trial in record["trials"]:
        result = json.loads((folder / trial["run"] / "result.json").read_text())
        assert result["status"] == "finished"


def test_a_missing_ray_is_named_with_its_install_line(sweep, monkeypatch):
    import builtins

    from rankwise.search.sweep.ray_workers import connect

    real = builtins.__import__

    def without(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'rankwise\[ray\]'"):
        connect("auto")
