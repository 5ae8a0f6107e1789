"""The engine, the measurement and `benchmarks/gpu.sh` where there is a GPU, as far as a machine without one can tell."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

import processes
from rankwise.bench import command, variants
from rankwise.errors import UserError
from rankwise.machine import device
from support import sentences, write_csv

HERE = Path(__file__)


def finished(*words, **more):
    tests = HERE.parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src"), *sys.path])}
    return subprocess.run(words, capture_output=True, text=True, timeout=600, env={**environment, **more}, check=False)


def said(script, *words):
    """What a script of this folder prints, in a process of its own: a GPU that is none stays with a process."""
    process = processes.finished(
        *words, script=HERE.parent / script, environment={"PYTHONPATH": str(HERE.parent.parent)}
    )
    assert process.returncode == 0, process.err
    return json.loads(process.out.splitlines()[-1])


@pytest.fixture
def card(monkeypatch):
    """A CUDA card that multiplies bf16, or does not."""

    def there(*, has_bf16):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
        assert device.has_cuda()

    return there


def test_a_gpu_is_measured_beside_what_it_computes(card):
    card(has_bf16=False)
    peers = ["papers", "grouped", "fp16", "fp16-grouped"]
    assert variants.chosen("train", None, with_layers=False) == [*peers, "engine", "products-torch"]
    answers = ["papers", "sorted", "fp16-sorted", "merged-sorted", "engine"]
    assert variants.chosen("predict", None, with_layers=False) == answers
    card(has_bf16=True)
    assert {"bf16", "bf16-grouped", "fp16"} < set(variants.chosen("train", None, with_layers=False))
    with pytest.raises(UserError, match="engine-avx2 is of a processor's kernels, and a GPU computes here"):
        variants.chosen("train", "papers,engine-avx2", with_layers=False)


@pytest.mark.parametrize("name", ["fp16", "fp16-grouped"])
def test_a_processor_is_not_measured_in_fp16(name):
    assert name not in variants.chosen("train", None, with_layers=False)
    with pytest.raises(UserError, match=f"{name} needs a GPU, and torch sees none here"):
        variants.chosen("train", f"papers,{name}", with_layers=False)


def test_a_tuned_peer_is_told_what_costs_nothing(tmp_path):
    from transformers import TrainingArguments

    from rankwise.bench.training import _tuned

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **_tuned(on_gpu=True))
    assert arguments.optim == "adamw_torch_fused"
    assert arguments.dataloader_num_workers == 2
    assert not arguments.logging_nan_inf_filter
    assert _tuned(on_gpu=False).items() < _tuned(on_gpu=True).items()


def test_no_room_on_the_gpu_is_told(monkeypatch, capsys):
    from rankwise.bench import contestant, training

    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "run", full)
    setting = dict.fromkeys(field.name for field in fields(command.Setting)) | {"task": "train", "batch_size": 64}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(setting) + "\n"))
    contestant.main("papers")
    assert "no room for the variant 'papers' beside the others" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("gpu", "memory", "words"),
    [
        ("Tesla T4", 15_836, "Tesla T4, 16 GB"),
        ("Apple M3", None, "Apple M3"),
        (None, None, "AMD EPYC, 2 threads"),
    ],
)
def test_the_table_says_what_computed(gpu, memory, words):
    environment = {"gpu": gpu, "cpu": "AMD EPYC", "threads": 2}
    assert command._where({"environment": environment, "gpu_memory_mb": memory}) == words


needs_device_in_python = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device that is written in Python",
)


@needs_device_in_python
@pytest.mark.slow
def test_every_variant_is_on_the_gpu_and_waited_for_at_the_ends_of_turns(tmp_path, tiny_model):
    """A tensor left on the processor is an error there."""
    rows = write_csv(tmp_path / "rows.csv", sentences(40, seed=0))
    found = said("bench_on_fake_gpu.py", rows, tiny_model)
    for name, one in found.items():
        warmed_up, *measured, last = one["said"]
        assert warmed_up == {"seconds": []}
        assert [len(turn["seconds"]) for turn in measured] == [3, 3]
        assert last["peak_mb"] == 123, "the device's own"
        assert last["process_peak_mb"] > 50
        # At its end and before the next begins: the warm-up, two turns, and nothing behind the last.
        assert one["synchronized"] == 5, name
        shared = all(len(set(turn["seconds"])) == 1 for turn in measured)
        assert shared == (name != "predict alone"), "a text that is asked alone has a time of its own"
    assert not found["train engine"]["waits"], found["train engine"]["waits"][0]
    assert not found["predict engine"]["waits"], found["predict engine"]["waits"][0]
    assert len(found["predict alone"]["waits"]) == 6, "every answer comes to the host"


@needs_device_in_python
@pytest.mark.slow
def test_every_family_and_a_run_compute_there_and_wait_for_nothing(tmp_path, tiny_model):
    rows = write_csv(tmp_path / "rows.csv", sentences(60, seed=0))
    found = said("engine_on_fake_gpu.py", rows, tiny_model, tmp_path / "run")
    for family, one in found["families"].items():
        assert one["device"] == "fake:0"
        assert one["off"] < 1e-4, family
        assert not one["waits"], f"{family}: {one['waits'][0]}"
    run = found["run"]
    assert (run["status"], run["gpu"]) == ("finished", "Fake GPU")
    # A step reads what the one before came to; of a CUDA device through an event, which nobody else has.
    asked = [wait for waits in run["waits"] for wait in waits if "transfer.py" not in wait]
    assert not asked, asked[0]


@pytest.mark.slow
def test_the_script_runs_on_a_processor_and_says_so(tmp_path):
    root = HERE.parent.parent.parent
    outcome = finished("bash", str(root / "benchmarks" / "gpu.sh"), "--quick", str(tmp_path), PYTHON=sys.executable)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0].startswith("No GPU is here")
    assert "0 failed; 2 measurements, 0 failed or left out" in outcome.stdout
    assert not any(line.startswith("FAILED") for line in lines)
    assert sum(line.startswith("ok") for line in lines) > 15
    for name in ("train-tiny", "predict-tiny"):
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert result["environment"]["gpu"] is None
        assert result["gpu_memory_mb"] is None
        assert f"{name}, no GPU: no GPU figures" in lines
    checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert {one["status"] for one in checks} == {"ok", "skipped"}


def test_a_file_that_is_not_there_is_told(tmp_path):
    script = HERE.parent.parent.parent / "benchmarks" / "gpu.py"
    outcome = finished(sys.executable, str(script), str(tmp_path), "--data", "nowhere.csv", "--quick")
    assert outcome.returncode == 2
    assert "--data nowhere.csv is not a file" in outcome.stderr
    assert not list(tmp_path.iterdir())
