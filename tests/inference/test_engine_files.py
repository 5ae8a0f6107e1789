"""Files read by the engine itself: peft's logits on every family, without importing peft."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from engine.parity import CONFIGS, adapted, error, families, modules, padded, texts, tiny
from rankwise.engine import FastClassifier
from rankwise.errors import UserError
from rankwise.inference import saved
from rankwise.inference.classifier import load_classifier, why_not_fast


def read(folder, precision="fp32", **options):
    """The classifier that the engine reads from the folders `base` and `adapter`."""
    found = saved.read(folder / "adapter", base=folder / "base")
    return load_classifier(found, engine="fast", precision=precision, **options)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("options", [{}, {"use_dora": True, "bias": "all"}], ids=["lora", "dora with biases"])
@families
def test_files_give_pefts_logits(tmp_path, model_type, options):
    peft = adapted(
        tiny(model_type),
        modules(model_type, "query", "value", "ffn_out"),
        use_rslora=True,
        alpha_pattern={"layer.1." + modules(model_type, "query")[0]: 20},
        rank_pattern={modules(model_type, "value")[0]: 2},
        **options,
    ).eval()
    expected = peft(**padded(texts(), 1 if model_type not in ("bert", "electra", "distilbert") else 0)).logits
    peft.save_pretrained(str(tmp_path / "adapter"))
    peft.unload().save_pretrained(str(tmp_path / "base"))
    classifier = read(tmp_path)
    with torch.inference_mode():
        assert error(classifier(classifier.collate(texts())), expected) < 1e-5


@families
def test_the_engine_answers_from_files_as_it_does_live(tmp_path, model_type):
    """In bf16 too, and where the `config.json` leaves out what is usual for its type, as those of the Hub do."""
    peft = adapted(tiny(model_type, dropout=True), modules(model_type, "query", "ffn_in")).eval()
    peft.save_pretrained(str(tmp_path / "adapter"))
    copy.deepcopy(peft).unload().save_pretrained(str(tmp_path / "base"))
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps({"model_type": model_type, **CONFIGS[model_type]}), encoding="utf-8")
    for precision in ("fp32", "bf16"):
        live = FastClassifier.from_peft(copy.deepcopy(peft), precision=precision).eval()
        saved_one = read(tmp_path, precision)
        with torch.inference_mode():
            batch = live.collate(texts())
            assert error(saved_one(batch), live(batch)) < 1e-5, precision


def test_files_of_a_bare_encoder_without_importing_peft(tmp_path):
    peft = adapted(tiny("roberta"), modules("roberta", "query")).eval()
    expected = peft(**padded(texts(), 1)).logits.detach().numpy()
    peft.save_pretrained(str(tmp_path / "adapter"))
    peft.unload().roberta.save_pretrained(str(tmp_path / "base"))
    np.savez(tmp_path / "expected.npz", *texts(), logits=expected)
    code = f"""
import sys
import numpy as np, torch
from pathlib import Path
from rankwise.inference import saved
from rankwise.inference.classifier import load_classifier
folder = Path({str(tmp_path)!r})
stored = np.load(folder / "expected.npz")
classifier = load_classifier(saved.read(folder / "adapter", base=folder / "base"), engine="fast", precision="fp32")
logits = classifier(classifier.collate([stored[f"arr_{{i}}"] for i in range(6)])).detach().numpy()
assert np.abs(logits - stored["logits"]).max() < 1e-4
assert "peft" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_served_is_what_was_live(tmp_path, precision):
    """The live model and the saved one do the same arithmetic: nothing is merged and rounded on the way."""
    from rankwise.engine import FastClassifier

    peft = adapted(tiny("bert"), ["query", "value", "output.dense"], r=8)
    with torch.no_grad():
        for name, value in peft.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.3)
    peft.save_pretrained(str(tmp_path / "adapter"))
    tiny("bert").save_pretrained(str(tmp_path / "base"))
    live = FastClassifier.from_peft(peft, precision=precision).eval()
    served = read(tmp_path, precision)
    with torch.inference_mode():
        assert torch.equal(live(live.collate(texts())), served(served.collate(texts())))


def test_an_adapter_that_changes_its_base_is_left_to_peft(tmp_path):
    peft = adapted(tiny("bert"), modules("bert", "query"), init_lora_weights="pissa")
    peft.save_pretrained(str(tmp_path / "adapter"))
    tiny("bert").save_pretrained(str(tmp_path / "base"))
    with pytest.raises(UserError, match="pissa"):
        read(tmp_path)
    assert "pissa" in why_not_fast(saved.read(tmp_path / "adapter", base=tmp_path / "base"))


@pytest.mark.parametrize(
    "targets", [["query", "word_embeddings"], ["query", "word_embeddings", "pooler.dense"]], ids=len
)
def test_an_adapter_on_what_the_engine_does_not_know_is_left_to_peft(tmp_path, targets):
    peft = adapted(tiny("bert"), targets)
    peft.save_pretrained(str(tmp_path / "adapter"))
    tiny("bert").save_pretrained(str(tmp_path / "base"))
    with pytest.raises(UserError, match=r"it adapts 'bert.embeddings.word_embeddings'"):
        read(tmp_path)


def test_a_base_in_shards_is_read(tmp_path):
    peft = adapted(tiny("bert"), ["query", "pooler.dense"])
    peft.save_pretrained(str(tmp_path / "adapter"))
    base = tiny("bert")
    base.save_pretrained(str(tmp_path / "base"))
    one = read(tmp_path)
    base.save_pretrained(str(tmp_path / "many"), max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    many = load_classifier(saved.read(tmp_path / "adapter", base=tmp_path / "many"), engine="fast", precision="fp32")
    assert torch.equal(one(one.collate(texts())), many(many.collate(texts())))
