"""A pickled adapter becomes safetensors without running what is in it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.inference.convert import convert


@pytest.fixture
def pickled(adapt):
    """An adapter's folder as PEFT 0.5 left it, and the tensors in it."""
    folder = adapt()
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    torch.save(tensors, folder / "adapter_model.bin")
    weights.unlink()
    return folder, tensors


def test_the_advised_command_makes_it_load(pickled, peft_logits, texts, capsys):
    folder, tensors = pickled
    with pytest.raises(UserError, match=f"rankwise adapters convert {folder}$") as refusal:
        rankwise.load(folder)
    assert main(str(refusal.value).rpartition("rankwise ")[2].split()) == 0
    assert f"{len(tensors)} tensors written to {folder}" in capsys.readouterr().out
    ours = rankwise.load(folder, precision="fp32").logits(texts)
    np.testing.assert_allclose(ours, peft_logits(folder), rtol=1e-4, atol=1e-4)
    assert main(["adapters", "convert", str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_json(pickled, capsys):
    folder, tensors = pickled
    assert main(["adapters", "convert", str(folder), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["tensors"] == len(tensors)
    assert Path(outcome["file"]).stat().st_size == outcome["bytes"]


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_what_would_run_code_does_not(pickled, tmp_path):
    folder, tensors = pickled
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": _Runs(tmp_path / "ran")}))
    with pytest.raises(UserError, match="holds more than tensors"):
        convert(folder)
    torch.save(tensors | {"a": _Runs(tmp_path / "ran")}, folder / "adapter_model.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        convert(folder)
    assert not (tmp_path / "ran").exists()
    assert not (folder / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: torch.save([torch.ones(2)], path), "no tensors by name"),
        (lambda path: torch.save({"state": {"a": torch.ones(2)}}, path), "no tensors by name"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "pointer of Git LFS"),
        (lambda path: path.unlink(), "holds no adapter_model.bin"),
        (
            lambda path: torch.save({"transformer.h.0.attn.lora_A.weight": torch.ones(2, 2)}, path),
            "no text encoder known",
        ),
    ],
)
def test_other_files_are_refused_and_leave_nothing(pickled, write, sentence):
    folder, _ = pickled
    write(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=sentence):
        convert(folder)
    assert not list(folder.glob("*.safetensors")) + list(folder.glob("*.part"))
