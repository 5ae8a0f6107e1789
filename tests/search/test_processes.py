"""One run on two processes through torchrun: the same run as on one."""

import json
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

import rankwise


def launch(config, folder, *words):
    file = folder.parent / "config.yaml"
    file.write_text(msgspec.yaml.encode(config).decode())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "rankwise", "train", str(file), "--out", str(folder), "--json", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)


@pytest.mark.slow
def test_two_gloo_processes_train_as_one(config, tmp_path):
    # 240 rows in steps of 14 leave a last step of 2: one row for each process.
    config["adapter"]["dropout"] = 0.0
    config["train"] |= {"batch_size": 14, "accumulate": 1, "steps": 20, "eval_every": 5}
    config["model"]["precision"] = "fp32"
    done = launch(config, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["status"] == "finished", "one process prints, and only JSON"
    one = rankwise.train(config, out=tmp_path / "one")
    two = rankwise.Run(tmp_path / "two")
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
