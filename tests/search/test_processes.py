"""One run on two processes through torchrun: the same run as on one."""

import json
import os
import shutil
import socket
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

import processes
import rankwise

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# --multi_gpu is accelerate's word for several processes, also where they compute on the processor.
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")


def launched(*words, launcher):
    """What two processes of a launcher print."""
    command = [sys.executable, "-m", *launcher, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def together(*words, script=None):
    """What two processes print that are told of each other as torchrun tells its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    both = [processes.Process(*words, script=script, environment=shared | rank) for rank in ranks]
    for process in both:
        assert process.wait() == 0, process.err
    return "".join(process.out for process in both)


def two_train(config, folder, *words, launcher=None):
    """A run of two processes."""
    file = folder.parent / "config.yaml"
    file.write_text(msgspec.yaml.encode(config).decode())
    command = ("train", str(file), "--out", str(folder), "--json", *words)
    printed = launched("-m", "rankwise", *command, launcher=launcher) if launcher else together(*command)
    assert json.loads(printed)["status"] == "finished", "one process prints, and only JSON"
    return rankwise.Run(folder)


def without_dropout(model, folder):
    """A copy of a model whose own dropout is off: every process draws its own masks, which one process cannot."""
    shutil.copytree(model, folder)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "accumulate", "launcher"),
    [("reference", 1, TORCHRUN), ("fast", 1, ACCELERATE), ("fast", 2, TORCHRUN)],
    ids=["reference", "fast-accelerate", "fast-accumulated"],
)
def test_two_gloo_processes_train_as_one(config, engine, accumulate, launcher, tmp_path):
    # 240 rows in steps of 14 leave a last step of 2: one row for each process.
    config["adapter"]["dropout"] = 0.0
    config["train"] |= {"batch_size": 14 // accumulate, "accumulate": accumulate, "steps": 20, "eval_every": 5}
    name = without_dropout(config["model"]["name"], tmp_path / "model")
    config["model"] |= {"name": name, "precision": "fp32"}
    config["engine"] = engine
    two = two_train(config, tmp_path / "two", launcher=launcher)
    one = rankwise.train(config, out=tmp_path / "one")
    assert (one.result["processes"], two.result["processes"]) == (1, 2)
    assert two.result["engine"]["path"] == engine
    assert two.result["timing"]["steps"] == one.result["timing"]["steps"]
    for here, there in zip(one.history, two.history, strict=True):
        assert here.keys() == there.keys()
        np.testing.assert_allclose(
            [value for value in there.values() if value is not None],
            [value for value in here.values() if value is not None],
            rtol=1e-4,
        )
    ours, theirs = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, two))
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, atol=2e-5, err_msg=name)


PAUSED = """
import sys
import rankwise
run = rankwise.train(sys.argv[1], out=sys.argv[2], stop_at_step=7)
"""


@pytest.mark.slow
def test_a_resumed_run_on_two_processes_equals_one_that_was_not_paused(config, tmp_path):
    config["head"] = {"probe_first": True}
    config["train"] |= {"batch_size": 12, "accumulate": 1, "steps": 16, "eval_every": 4}
    config["model"]["precision"] = "fp32"
    config["engine"] = "fast"
    whole = two_train(config, tmp_path / "whole")
    script = tmp_path / "paused.py"
    script.write_text(PAUSED)
    together(tmp_path / "config.yaml", tmp_path / "paused", script=script)
    paused = rankwise.Run(tmp_path / "paused").result
    assert (paused["status"], paused["processes"]) == ("interrupted", 2)
    resumed = two_train(config, tmp_path / "paused", "--resume")
    assert (resumed.result["processes"], resumed.result["sessions"]) == (2, [0, 7])
    assert resumed.history == whole.history
    ours, theirs = (load_file(run.adapter / "adapter_model.safetensors") for run in (whole, resumed))
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


COUNTED = """
import json, os, socket, sys
import rankwise
from rankwise.training.loop import Loop

def sent():
    # bytes that this process's TCP connections have had acknowledged or in flight, by the kernel's own count
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed meanwhile, or of another protocol
            continue
        total += int.from_bytes(info[200:208], sys.byteorder)
    return total

fit, counts = Loop.fit, []

def counted(self, *words, **options):
    before = sent()
    state = fit(self, *words, **options)
    counts.append(sent() - before)  # here: the other process may leave as soon as it has trained
    return state

Loop.fit = counted
config = json.load(open(sys.argv[1]))
for steps in (4, 24):
    config["train"]["steps"] = steps
    run = rankwise.train(config, out=f"{sys.argv[2]}-{steps}")
if os.environ["RANK"] == "0":
    a_step = (counts[1] - counts[0]) / 20
    print(json.dumps({"a_step": a_step, **run.result["parameters"], **run.result["engine"]}))
"""
"""tcpi_bytes_sent of Linux 4.19 and later"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of bytes sent is Linux's")
@pytest.mark.sampled(1)
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_step_sends_what_trains_once_and_nothing_frozen(config, engine, tmp_path):
    config["train"] |= {"evaluate": False, "batch_size": 8}
    config["data"].pop("validation")
    config["engine"] = engine
    config["model"]["precision"] = "fp32"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "counted.py").write_text(COUNTED)
    seen = json.loads(together(tmp_path / "config.json", tmp_path / "run", script=tmp_path / "counted.py"))
    assert seen["path"] == engine
    vector = 4 * seen["trainable"]
    assert 4 * seen["frozen"] > 4 * vector, "what must not be sent is large beside what must"
    # Of two processes each sends half of its own sums and half of the totals; beside them a word on how to go on.
    assert vector <= seen["a_step"] < 1.25 * vector + 2_000
