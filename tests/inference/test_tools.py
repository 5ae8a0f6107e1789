"""Adapters listed, looked at and merged."""

import json

import numpy as np
import pytest
import torch

import rankwise
from rankwise import config as configuration
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.inference.tools import merge
from rankwise.models import adapter_file, assemble

TEXTS = ["the goal of the match", "shares of a bank", "a planet"]
LABELS = ["sport", "business", "science"]


@pytest.fixture
def make(tmp_path, tiny_model):
    from transformers import AutoTokenizer

    def made(name, *overrides, labels=LABELS, seed=0):
        tree = {"model": {"name": str(tiny_model)}, "adapter": {"rank": 2}, "data": {"max_length": 24}}
        options = ["budget.max_trainable=null", "model.precision=fp32", *overrides]
        model = assemble.build(configuration.load(tree, options), len(labels), labels)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        adapter_file.save(model.assembly, tmp_path / name, tokenizer=tokenizer, label_names=labels)
        return tmp_path / name

    return made


def test_merging_one_with_itself_changes_nothing(make, tmp_path):
    one = make("one")
    (one / ".rankwise.json.lock").touch()  # as `calibrate` leaves it
    outcome = merge([one, one], tmp_path / "both")
    assert outcome["rank"] == 4
    assert not (tmp_path / "both" / ".rankwise.json.lock").exists()
    ours, theirs = (rankwise.load(folder, precision="fp32").logits(TEXTS) for folder in (tmp_path / "both", one))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_weight_of_one_and_of_none_is_the_first(make, tmp_path):
    one, two = make("one"), make("two", "adapter.rank=3", seed=1)
    merge([one, two], tmp_path / "first", weights=[1.0, 0.0])
    ours, theirs = (rankwise.load(folder, precision="fp32").logits(TEXTS) for folder in (tmp_path / "first", one))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("method", ["weighted", "ties", "dare"])
def test_ways_to_merge(method, make, tmp_path, capsys):
    one, two = make("one"), make("two", seed=1)
    assert (
        main(["adapters", "merge", str(one), str(two), "--out", str(tmp_path / "out"), "--method", method, "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["method"] == method
    logits = [rankwise.load(folder, precision="fp32").logits(TEXTS) for folder in (tmp_path / "out", one, two)]
    assert np.isfinite(logits[0]).all()
    assert all(np.abs(logits[0] - other).max() > 1e-3 for other in logits[1:])


def test_what_does_not_go_together(make, tmp_path):
    one = make("one")
    for other, told in (
        (make("dora", "adapter.dora=true"), "no plain LoRA"),
        (make("labels", labels=["a", "b", "c"]), "other labels"),
        (make("scope", "adapter.scope=[ffn_in]"), "changes other layers"),
        (make("ends", "data.truncation=head_and_tail"), "cut or cleaned otherwise"),
        (make("pairs", "data.pair=true", "data.text=[a,b]"), "on texts paired"),
        (make("clean", "data.preprocess=[lowercase]"), "cut or cleaned otherwise"),
    ):
        with pytest.raises(UserError, match=told):
            merge([one, other], tmp_path / "out")
    with pytest.raises(UserError, match="two adapters or more"):
        merge([one], tmp_path / "out")
    with pytest.raises(UserError, match="1 numbers for 2"):
        merge([one, one], tmp_path / "out", weights=[1.0])
    for none in ([0.0, 0.0], [1.0, -1.0]):
        with pytest.raises(UserError, match="sum above 0"):
            merge([one, one], tmp_path / "out", weights=none)
    with pytest.raises(UserError, match="there already"):
        merge([one, one], one)
    assert not (tmp_path / "out").exists()


def test_list_and_info(make, tmp_path, capsys):
    one = make("one")
    make("dora", "adapter.dora=true")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{}")
    assert main(["adapters", "list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 adapters" in out
    assert "DORA of rank 2" in out
    assert "no peft_type" in out
    assert main(["adapters", "info", str(one), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == LABELS
    assert told["fits"] is True
    assert told["update_numbers"] == sum(value.numel() for key, value in _tensors(one).items() if ".lora_" in key)
    assert main(["adapters", "info", str(one), str(one)]) == 2


def _tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")
