"""The engine against transformers + peft on padded batches: logits, loss, every gradient, whole tensors."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from engine.parity import (
    CLASSES,
    CONFIGS,
    TOLERANCE,
    adapted,
    assert_parity,
    engine,
    families,
    modules,
    result_of,
    texts,
    tiny,
)
from rankwise.encoders import FAMILIES
from rankwise.encoders.family import ACTIVATIONS
from rankwise.engine import FastClassifier, layer
from rankwise.engine.frozen import FrozenLinear
from rankwise.errors import UserError

EVERYTHING = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


@families
def test_lora_on_query_and_value(model_type):
    assert_parity(adapted(tiny(model_type), modules(model_type, "query", "value")))


@families
def test_lora_everywhere_with_all_biases(model_type):
    assert_parity(adapted(tiny(model_type), modules(model_type, *EVERYTHING), bias="all"))


@families
def test_dora_everywhere(model_type):
    assert_parity(adapted(tiny(model_type), modules(model_type, *EVERYTHING), use_dora=True, bias="lora_only"))


@pytest.mark.parametrize("word", EVERYTHING)
def test_each_place_alone(word):
    assert_parity(adapted(tiny("roberta"), modules("roberta", word)))
    assert_parity(adapted(tiny("roberta"), modules("roberta", word), use_dora=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation(activation):
    assert_parity(adapted(tiny("bert", hidden_act=activation), modules("bert", "query", "ffn_in", "ffn_out")))
    dora = {"use_dora": True, "bias": "all"}
    assert_parity(
        adapted(tiny("distilbert", activation=activation), modules("distilbert", "ffn_in", "ffn_out"), **dora)
    )


def test_every_family_that_the_engine_runs_is_held_to_parity():
    assert set(CONFIGS) == set(FAMILIES)
    assert all(FAMILIES[name].why_not_fast(config) is None for name, config in CONFIGS.items())


_NO_BIAS = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), False)


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("modernbert", _NO_BIAS),
        ("modernbert", {"classifier_pooling": "cls", "hidden_activation": "silu", "classifier_activation": "relu"}),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"] * 2, "local_attention": 2}),
        ("deberta-v2", {"pos_att_type": "c2p", "norm_rel_ebd": "none"}),
        ("deberta-v2", {"pos_att_type": ["p2c"], "position_biased_input": True, "type_vocab_size": 2}),
        ("deberta-v2", {"position_buckets": -1, "max_relative_positions": 6}),
        ("deberta-v2", {"position_buckets": 4, "max_relative_positions": 30, "pooler_hidden_act": "tanh"}),
        ("albert", {"num_hidden_groups": 2, "hidden_act": "relu"}),
        ("ernie", {"use_task_id": False}),
    ],
    ids=str,
)
def test_variations_of_a_family(model_type, more):
    words = ("query", "value", "ffn_in", "ffn_out")
    assert_parity(adapted(tiny(model_type, **more), modules(model_type, *words)))
    assert_parity(adapted(tiny(model_type, **more), modules(model_type, *EVERYTHING), use_dora=True))


def test_rslora_with_patterns():
    peft = adapted(
        tiny("bert"),
        modules("bert", "query", "value", "ffn_in"),
        use_rslora=True,
        rank_pattern={"layer.1.attention.self.query": 2, "intermediate.dense": 7},
        alpha_pattern={"layer.2.attention.self.value": 16},
    )
    assert_parity(peft)


def test_adapters_in_upper_layers_only():
    assert_parity(adapted(tiny("roberta"), modules("roberta", "query", "value"), layers_to_transform=[1, 2]))


def test_biases_alone():
    model = tiny("distilbert")
    for name, value in model.named_parameters():
        value.requires_grad_(name.endswith("bias") or "classifier" in name)
    assert_parity(model)


def test_head_alone():
    model = tiny("electra")
    for name, value in model.named_parameters():
        value.requires_grad_("classifier" in name)
    assert_parity(model)


def test_head_projection_alone():
    peft = adapted(tiny("roberta"), modules("roberta", "query"))
    for name, value in peft.named_parameters():
        if "classifier" in name:
            value.requires_grad_("modules_to_save" in name and "out_proj" in name)
    assert_parity(peft)


def test_low_rank_head():
    peft = adapted(tiny("roberta"), modules("roberta", "query"))
    head = peft.base_model.model.classifier.modules_to_save["default"]
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=["dense"]), head)
    for name, value in head.named_parameters():
        value.requires_grad_("lora" in name or "out_proj" in name)
    torch.nn.init.normal_(head.dense.lora_B["default"].weight)
    assert_parity(peft)


def test_bert_pooler_trained():
    assert_parity(adapted(tiny("bert"), modules("bert", "query"), modules_to_save=["classifier", "bert.pooler.dense"]))


def test_texts_of_one_length_and_a_padding_id_within_a_text():
    peft = adapted(tiny("roberta"), modules("roberta", "query", "value"))
    assert_parity(peft, texts((7, 7, 7)))
    rows = texts((7, 12))
    rows[0][3] = 1
    assert_parity(peft, rows)


def test_parameters_are_pefts_own_and_frozen_weights_are_released():
    peft = adapted(tiny("roberta"), modules("roberta", "query", "value"), bias="all")
    before = {name: value for name, value in peft.named_parameters() if value.requires_grad}
    classifier = FastClassifier.from_peft(peft)
    assert {id(value) for value in classifier.parameters()} == {id(value) for value in before.values()}
    query = peft.base_model.model.roberta.encoder.layer[0].attention.self.query
    assert query.base_layer.weight.numel() == 0


def test_saving_through_peft_still_works():
    from peft import get_peft_model_state_dict

    peft = adapted(tiny("roberta"), modules("roberta", "query", "value"))
    before = {name: value.clone() for name, value in get_peft_model_state_dict(peft).items()}
    classifier = FastClassifier.from_peft(peft)
    after = get_peft_model_state_dict(peft)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with torch.no_grad():
        for value in classifier.parameters():
            value.add_(1.0)
    assert all(torch.equal(value, before[name] + 1) for name, value in get_peft_model_state_dict(peft).items())


def test_something_else_trained_is_refused():
    model = tiny("roberta")
    with pytest.raises(UserError, match="cannot train"):
        FastClassifier.from_peft(model)
    peft = adapted(tiny("roberta"), modules("roberta", "query"))
    peft.base_model.model.roberta.encoder.layer[0].attention.self.key.weight.requires_grad_(True)
    with pytest.raises(UserError, match="key.weight"):
        FastClassifier.from_peft(peft)


def test_training_leaves_frozen_weights_bitwise_equal():
    peft = adapted(tiny("bert", dropout=True), modules("bert", "query", "value"))
    classifier = FastClassifier.from_peft(peft, precision="bf16").train()
    batch = classifier.collate(texts())

    def frozen():
        return {
            name: (value.to_dense() if value.layout == torch._mkldnn else value).clone()
            for name, value in _frozen_tensors(classifier)
        }

    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    logits = classifier(batch)
    before = frozen()
    for _ in range(3):
        torch.nn.functional.cross_entropy(classifier(batch), torch.arange(6) % CLASSES).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = frozen()
    assert len(before) > 20
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(classifier.eval()(batch), logits)


def test_fp32_computes_with_the_frozen_weights_as_they_are_mapped_from_the_file(tmp_path):
    tiny("bert").save_pretrained(tmp_path)
    peft = adapted(AutoModelForSequenceClassification.from_pretrained(tmp_path), modules("bert", "query", "value"))
    sites = ("query", "key", "value", "dense")
    layers = [
        value
        for name, value in peft.named_parameters()
        if ".layer." in name
        and not value.requires_grad
        and name.endswith(".weight")
        and name.split(".")[-2] != "LayerNorm"
        if any(site in name for site in sites)
    ]
    places = {value.data_ptr() for value in layers}
    classifier = FastClassifier.from_peft(peft, precision="fp32")
    assert len(places) == len(layers) > 6
    assert places <= {value.data_ptr() for value in classifier.buffers()}, "not copied"
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        files = [line.split()[0].split("-") for line in maps if line.endswith("model.safetensors")]
        spans = [range(int(start, 16), int(end, 16)) for start, end in files]
        assert all(any(place in span for span in spans) for place in places), "mapped from the file"


def test_away_from_cpus_matrices_are_joined():
    linear = FrozenLinear([torch.ones(3, 4), torch.zeros(2, 4)], torch.float32).to("meta")
    assert linear(torch.ones(6, 4, device="meta"), torch.ones(5, device="meta")).shape == (6, 5)
    assert linear.backward(torch.ones(6, 5, device="meta")).shape == (6, 4)
    assert [value.shape for value in linear.buffers()] == [(5, 4)]


def _frozen_tensors(classifier):
    yield from classifier.named_buffers()
    for name, module in classifier.named_modules():
        if getattr(module, "_packed", None) is not None:
            yield f"{name}.packed", module._packed.tensor


# --- other devices ------------------------------------------------------------------------------------


@pytest.fixture
def fused_calls(monkeypatch):
    """Names of calls of the library's fused attention so far, of rectangles and of texts as long as they are."""
    calls = []

    def watched(name, call):
        return lambda *given: calls.append(name) or call(*given)

    for name in ("fused_attention", "ragged_attention"):
        monkeypatch.setattr(layer, name, watched(name, getattr(layer, name)))
    return calls


@pytest.mark.sampled(5)
@pytest.mark.parametrize("way", ["rectangles", "ragged"])
@families
def test_fused_attention_gives_the_same(model_type, way, fused_calls):
    peft = adapted(tiny(model_type), modules(model_type, "query", "key", "value"))
    expected = engine(peft, texts()).tensors()
    fused = copy.deepcopy(peft)
    classifier = FastClassifier.from_peft(fused, precision="fp32").train()
    assert not fused_calls, "on a processor it is not the way of itself"
    classifier.attention = way
    ours = result_of(fused, classifier(classifier.collate(texts()))).tensors()
    # No library's kernel adds scores by distance that train, and none of texts of any length adds anything.
    ragged = {"deberta-v2": 0, "mpnet": 0, "modernbert": 2}.get(model_type, len(classifier.layers))
    assert fused_calls.count("ragged_attention") == (ragged if way == "ragged" else 0)
    assert len(fused_calls) == (0 if model_type == "deberta-v2" else len(classifier.layers))
    scale = max(float(value.norm()) for name, value in expected.items() if name not in ("logits", "loss"))
    for name, value in expected.items():
        assert float((ours[name] - value).norm()) < TOLERANCE["fp32"] * max(float(value.norm()), 1e-3 * scale), name


@pytest.mark.parametrize("way", ["rectangles", "ragged"])
def test_fused_attention_drops_as_a_function_of_seed_and_step(way, fused_calls):
    model = tiny("bert", attention_probs_dropout_prob=0.4, hidden_dropout_prob=0.0)
    classifier = FastClassifier.from_peft(adapted(model, modules("bert", "query")), precision="fp32", seed=3)
    batch = classifier.collate(texts())
    exact = classifier.eval()(batch).detach()
    drawn = []
    classifier.train().attention = way
    for step in (1, 2, 1):
        classifier.set_step(step)
        drawn.append(classifier(batch).detach())
    assert len(fused_calls) == 3 * len(classifier.layers)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], exact, atol=1e-3)


@pytest.mark.sampled(3)
@families
def test_in_fp16_gradients_of_a_scaled_loss_are_as_near_as_half_precision_is(model_type):
    """In plain torch, as on a GPU. A scaler begins with a larger scale, and halves it for gradients like these."""
    peft = adapted(tiny(model_type), modules(model_type, "query", "ffn_out"), use_dora=model_type == "bert")
    expected = engine(peft, texts(), backend="torch").tensors()
    half = copy.deepcopy(peft)
    classifier = FastClassifier.from_peft(half, precision="fp16").train()
    logits = classifier(classifier.collate(texts()))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % CLASSES)
    (2.0**10 * loss).backward()
    ours = {name: value.grad / 2.0**10 for name, value in half.named_parameters() if value.grad is not None}
    assert ours.keys() == expected.keys() - {"logits", "loss"}
    logits = logits.detach()
    assert float((logits - expected["logits"]).norm()) < 5e-3 * float(expected["logits"].norm())
    scale = max(float(expected[name].norm()) for name in ours)
    for name, value in ours.items():
        assert value.dtype == torch.float32, name
        assert float((value - expected[name]).norm()) < 1e-2 * max(float(expected[name].norm()), 1e-2 * scale), name


@pytest.mark.sampled(3)
@families
def test_nothing_stays_on_the_processor_when_the_model_moves(model_type):
    """On the meta device, which like a GPU refuses to compute with another device's tensors."""
    peft = adapted(tiny(model_type), modules(model_type, "query", "ffn_out"), use_dora=True)
    classifier = FastClassifier.from_peft(peft, precision="bf16").eval().to("meta")
    logits = classifier(classifier.collate(texts()))
    assert logits.shape == (len(texts()), CLASSES)
    logits.sum().backward()
    trained = [value for value in classifier.parameters() if value.requires_grad]
    assert trained
    assert all(value.grad is not None and value.grad.device.type == "meta" for value in trained)


@families
def test_a_key_left_out_means_what_transformers_takes_for_it(model_type):
    """A `config.json` may hold only what differs from the defaults of its type."""
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type]).to_dict()
    assert FAMILIES[model_type].numbers(CONFIGS[model_type]) == FAMILIES[model_type].numbers(config)
    if FAMILIES[model_type].arrangement == "pre_norm":
        for index in range(4):
            assert FAMILIES[model_type].rotary(CONFIGS[model_type], index) == FAMILIES[model_type].rotary(config, index)
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(model_type, CONFIGS[model_type])}
    assert shapes == {tensor.name: tensor.shape for tensor in tensors_of(model_type, config)}


def tensors_of(model_type, config):
    family = FAMILIES[model_type]
    return family.tensors(family.dims(config), config, CLASSES)
