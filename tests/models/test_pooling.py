"""head.pooling: the same logits on both engines, exact counts, and a file that plain PEFT refuses."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.inference import classifier as reading
from rankwise.inference import saved
from rankwise.inference.reference import peft_model
from rankwise.models import adapter_file, assemble
from rankwise.models.classifier import ReferenceClassifier, classifier_of, logits_of
from rankwise.planning import plan

LABELS = ["a", "b", "c"]
FAMILIES = ["bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2", "albert", "modernbert"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of two-layer encoders by model_type, made once."""
    made = {}

    def base(model_type):
        if model_type not in made:
            made[model_type] = _saved(model_type, tmp_path_factory.mktemp(model_type))
        return str(made[model_type])

    return base


def _saved(model_type, folder):
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 48, "max_position_embeddings": 40}  # fmt: skip
    if model_type == "distilbert":
        sizes = {
            "vocab_size": 60,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": 40,
        }
    if model_type in ("albert", "electra"):
        sizes["embedding_size"] = 16
    if model_type == "deberta-v2":
        sizes |= {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
                  "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}  # fmt: skip
    if model_type == "modernbert":
        sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def settings(base, **head):
    return configuration.from_dict(
        {
            "model": {"name": base, "precision": "fp32"},
            "adapter": {"scope": ["query", "value"], "rank": 2},
            "head": {"pooling": "mean", **head},
        }
    )


def texts():
    chance = np.random.default_rng(0)
    return [chance.integers(5, 60, size=length) for length in (3, 17, 9, 30, 4, 4)]


def trained(config):
    """A model whose adapters and head are no longer as initialised."""
    model = assemble.build(config, len(LABELS), LABELS)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.assembly.trainable.values():
            value.add_(0.3 * torch.randn_like(value))
    return model.eval()


def by_hand(model, encoder, tokens, pooling):
    """The logits from the encoder's hidden states and the saved projection, one text at a time."""
    weight, bias = (
        model.assembly.trainable[f"{encoder.family.projection}.{leaf}"].detach() for leaf in ("weight", "bias")
    )
    model.eval()
    rows = []
    for text in tokens:
        with torch.no_grad():
            hidden = model.base_model.model.base_model(input_ids=torch.from_numpy(text)[None])[0][0]
        pooled = hidden.mean(0) if pooling == "mean" else torch.cat([hidden[0], hidden.mean(0)])
        rows.append(pooled @ weight.squeeze(-1).T + bias)
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("pooling", ["mean", "both"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_head_reads_every_token_of_a_text_and_no_padding(bases, model_type, pooling):
    model = trained(settings(bases(model_type), pooling=pooling))
    reference = ReferenceClassifier(model, pad_token_id=0, precision="fp32")
    ours = logits_of(reference, texts(), batch_size=6)
    assert np.allclose(ours, by_hand(model, model.assembly.plan.encoder, texts(), pooling), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "both"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_both_engines_give_the_same_logits_and_gradients(bases, model_type, pooling):
    config = settings(bases(model_type), pooling=pooling)
    found = {}
    for engine in ("reference", "fast"):
        model = trained(config)
        planned = plan(config, len(LABELS))
        assert planned.engine == "fast"
        if engine == "fast":
            classifier = classifier_of(model.assembly, planned.config, pad_token_id=0).eval()
        else:
            classifier = ReferenceClassifier(model, pad_token_id=0, precision="fp32")
        logits = classifier(classifier.collate(texts()))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        gradients = {name: value.grad.clone() for name, value in model.assembly.trainable.items()}
        found[engine] = (logits.detach(), gradients)
    assert torch.allclose(found["fast"][0], found["reference"][0], rtol=1e-5, atol=1e-5)
    for name, gradient in found["reference"][1].items():
        assert torch.allclose(found["fast"][1][name], gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_plan_counts_what_trains_and_what_is_frozen(bases, model_type):
    config = settings(bases(model_type))
    model = assemble.build(config, len(LABELS), LABELS)  # raises where the live count is not the planned one
    planned = model.assembly.plan
    assert planned.groups["head"] == 3 * 32 + 3
    inner = model.base_model.model
    frozen = sum(value.numel() for name, value in inner.named_parameters()
                 if not value.requires_grad and "original_module" not in name)  # fmt: skip
    assert planned.frozen == frozen


@pytest.mark.parametrize("model_type", ["bert", "roberta", "albert"])
def test_the_file_is_planned_to_the_byte_read_back_and_refused_by_plain_peft(bases, model_type, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = bases(model_type)
    model = trained(settings(base))
    live = logits_of(ReferenceClassifier(model, pad_token_id=0, precision="fp32"), texts(), 3)
    adapter_file.save(model.assembly, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size == model.assembly.plan.adapter_bytes
    again = ReferenceClassifier(peft_model(saved.read(tmp_path / "adapter")), pad_token_id=0, precision="fp32")
    assert np.allclose(logits_of(again, texts(), 3), live, atol=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    with pytest.raises((RuntimeError, KeyError)):  # another shape, or no dense layer
        PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("pooling", ["mean", "both", "first"])
def test_a_reader_tells_the_pooling_by_the_file(bases, tmp_path, pooling, engine):
    model = trained(settings(bases("bert"), pooling=pooling))
    live = logits_of(ReferenceClassifier(model, pad_token_id=0, precision="fp32"), texts(), 3)
    adapter_file.save(model.assembly, tmp_path / "adapter")
    (tmp_path / "adapter" / "rankwise.json").unlink()
    read = reading.load_classifier(
        saved.read(tmp_path / "adapter", base=bases("bert")), engine=engine, precision="fp32"
    )
    assert np.allclose(logits_of(read, texts(), 4), live, atol=1e-5)


def test_a_frozen_prefix_is_cached_below_a_pooled_head(bases):
    config = configuration.from_dict(
        {
            "model": {"name": bases("bert"), "precision": "fp32"},
            "adapter": {"scope": ["query"], "rank": 2, "layers": [1]},
            "head": {"pooling": "mean"},
        }
    )
    model = trained(config)
    planned = plan(config, len(LABELS))
    classifier = classifier_of(model.assembly, planned.config, pad_token_id=0).eval()
    plain = logits_of(classifier, texts(), 6)
    classifier.cache_prefix()
    assert np.abs(logits_of(classifier, texts(), 6) - plain).max() < 0.02
    assert classifier.prefix_cache is not None


def test_auto_is_what_the_base_declares(bases, tmp_path):
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)

    def resolved():
        return plan(settings(str(base), pooling="auto"), 3).config.head.pooling

    assert resolved() == "first"
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert resolved() == "mean"
    (base / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert resolved() == "first"
    assert plan(settings("packaged:all-MiniLM-L6-v2", pooling="auto"), 3).config.head.pooling == "mean"


def test_a_pooled_head_has_no_dense_layer_to_adapt(bases):
    with pytest.raises(UserError, match=r"head\.kind: low_rank cannot apply with head\.pooling: mean"):
        plan(settings(bases("roberta"), kind="low_rank"), 3)


def test_the_projection_in_the_file_has_three_dimensions(bases, tmp_path):
    adapter_file.save(trained(settings(bases("roberta"))).assembly, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved["base_model.model.classifier.out_proj.weight"].shape == (3, 32, 1)
    assert not any("dense" in name and "classifier" in name for name in saved)
