"""A saved adapter gives the live model's logits in a fresh base, in our loader and in plain `peft`."""

import json

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file

from rankwise import config as configuration
from rankwise.inference import saved
from rankwise.inference.reference import peft_model
from rankwise.models import adapter_file, assemble
from rankwise.models.layout import RECORD, WEIGHTS

from .conftest import HAS_DENSE, TINY, logits, train_a_little

LABELS = ["art", "business", "sport"]
EVERYWHERE = [
    "adapter.dora=true head.kind=full",
    "head.kind=output adapter.rslora=true adapter.alpha=7",
    "head.kind=low_rank adapter.scope=all",
    "adapter.init=pissa adapter.rslora=true",
]
BIASES = ["adapter.bias=lora_only", "adapter.bias=all head.kind=low_rank", "adapter.method=bitfit head.kind=output"]
CASES = [(name, case) for name in TINY for case in EVERYWHERE + (BIASES if name != "modernbert" else [])]
CASES += [(f"{name}-bare", case) for name in HAS_DENSE for case in ("head.kind=full", "head.kind=output")]
CASES += [
    (name, case)
    for name in ("roberta", "distilbert")
    for case in (
        "adapter.method=head",
        "adapter.method=probe",
        "adapter.method=full budget.max_trainable=null",
        "adapter.method=ia3 adapter.scope=all",
        "adapter.method=vera",
        "adapter.method=prompt adapter.virtual_tokens=3",
        "adapter.init=olora adapter.rank_pattern={'1':3} adapter.alpha_pattern={'value':5}",
        "adapter.init=pissa adapter.rank_pattern=ascending adapter.rslora=true head.kind=low_rank",
    )
]
CASES.append(("electra", "adapter.method=prefix adapter.virtual_tokens=3"))


def loaded(folder):
    """The PEFT model that a saved adapter is read into."""
    return peft_model(saved.read(folder))


def build(folder, *overrides):
    tree = {"model": {"name": str(folder)}, "adapter": {"rank": 2, "dropout": 0.0}}
    return assemble.build(configuration.load(tree, overrides), len(LABELS), LABELS)


@pytest.mark.parametrize(("family", "case"), CASES)
def test_reloaded_logits_equal_the_live_ones(family, case, folders, inputs, tmp_path):
    model = build(folders[family], *case.split())
    start = logits(model, inputs)
    moved = train_a_little(model, inputs)
    live = logits(model, inputs)
    assert (live - start).abs().max() > 1e-3
    # Ours alone is not proof: what trains must have moved. (A of LoRA stands still while B is zero, so 3 steps.)
    still = [name for name, change in moved.items() if change == 0]
    assert len(still) < len(moved) / 2

    adapter_file.save(model.assembly, tmp_path / "adapter")
    ours = loaded(tmp_path / "adapter")
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        str(tmp_path / "adapter"), num_labels=3, ignore_mismatched_sizes=True
    )
    torch.testing.assert_close(logits(ours, inputs), live, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(plain, inputs), live, rtol=0, atol=1e-5)
    planned = model.assembly.plan
    assert (tmp_path / "adapter" / WEIGHTS).stat().st_size == planned.adapter_bytes
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert len(set(told["modules_to_save"])) == len(told["modules_to_save"])
    assert told["base_model_name_or_path"] == str(folders[family])
    assert ours.config.id2label == dict(enumerate(LABELS))


def test_a_frozen_random_dense_layer_does_not_move_but_is_saved(folders, inputs, tmp_path):
    model = build(folders["roberta"], "head.kind=output")
    dense = model.get_base_model().classifier.modules_to_save["default"].dense.weight
    before = dense.detach().clone()
    train_a_little(model, inputs)
    assert torch.equal(dense, before)
    adapter_file.save(model.assembly, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert torch.equal(saved["base_model.model.classifier.dense.weight"], before)


def test_saving_needs_only_the_trained_parameters(folders, inputs, tmp_path):
    """The fast engine takes frozen weights out of the model: the file must not depend on them."""
    model = build(folders["roberta"], "head.kind=low_rank")
    train_a_little(model, inputs)
    adapter_file.save(model.assembly, tmp_path / "whole")
    model.get_base_model().classifier.modules_to_save["default"].dense.base_layer = torch.nn.Identity()
    model.get_base_model().roberta.encoder = torch.nn.Identity()
    adapter_file.save(model.assembly, tmp_path / "emptied")
    whole, emptied = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "emptied"))
    assert whole.keys() == emptied.keys()
    assert all(torch.equal(whole[key], emptied[key]) for key in whole)


@pytest.mark.parametrize(
    "options", ["adapter.rank=1", "adapter.rank=8", "adapter.rank=8 adapter.alpha=3", "adapter.method=head"]
)
def test_a_low_rank_heads_scale_is_its_own(folders, options):
    model = build(folders["roberta"], "head.kind=low_rank", *options.split())
    dense = model.get_base_model().classifier.modules_to_save["default"].dense
    assert dense.scaling["default"] == 2.0


def test_adalora_is_saved_with_the_ranks_it_kept(folders, inputs, tmp_path):
    tree = {"model": {"name": str(folders["bert"])}, "adapter": {"method": "adalora", "rank": 6, "dropout": 0.0}}
    model = assemble.build(configuration.from_dict(tree), 3, LABELS, total_steps=12)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in range(12):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**inputs).logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
    live = logits(model, inputs)
    adapter_file.save(model.assembly, tmp_path / "adapter")
    assert (tmp_path / "adapter" / WEIGHTS).stat().st_size < model.assembly.plan.adapter_bytes
    torch.testing.assert_close(logits(loaded(tmp_path / "adapter"), inputs), live, rtol=0, atol=1e-5)


def test_a_base_of_random_weights_is_made_again_from_its_seed(folders, inputs, tmp_path):
    model = build(folders["roberta"], "model.random_weights=true", "train.seed=5")
    train_a_little(model, inputs)
    adapter_file.save(model.assembly, tmp_path / "adapter")
    torch.manual_seed(99)
    torch.testing.assert_close(logits(loaded(tmp_path / "adapter"), inputs), logits(model, inputs), rtol=0, atol=1e-5)


def test_record_and_card(folders, tmp_path):
    adapter_file.save(build(folders["bert"], "data.max_length=17").assembly, tmp_path / "adapter")
    read = saved.read(tmp_path / "adapter")
    assert (read.label_names, read.max_length, read.multi_label) == (LABELS, 17, False)
    assert "art, business, sport" in (tmp_path / "adapter" / "README.md").read_text()


def test_a_base_in_a_relative_folder_is_found_from_elsewhere(folders, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(folders["bert"].parent)
    model = build("bert")
    adapter_file.save(model.assembly, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(logits(loaded(tmp_path / "adapter"), inputs), logits(model, inputs), rtol=0, atol=1e-5)


def test_a_foreign_adapter_is_read(folders, inputs, tmp_path):
    model = build(folders["roberta"])
    adapter_file.save(model.assembly, tmp_path / "adapter")
    (tmp_path / "adapter" / RECORD).unlink()
    assert saved.read(tmp_path / "adapter").label_names == ["0", "1", "2"]
    torch.testing.assert_close(logits(loaded(tmp_path / "adapter"), inputs), logits(model, inputs), rtol=0, atol=1e-5)


def test_saving_replaces_whole_or_not_at_all(folders, tmp_path, monkeypatch):
    model = build(folders["bert"])
    adapter_file.save(model.assembly, tmp_path / "adapter")
    before = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    monkeypatch.setattr(adapter_file, "_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adapter_file.save(model.assembly, tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
