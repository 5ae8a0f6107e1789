"""Rows of several classifiers in one pass of every unit that runs here: each as it answers alone, whatever it shares a pass with."""

import numpy as np
import pytest
import torch

from engine.parity import texts, tiny
from engine.test_native import there
from rankwise.encoders import FAMILIES
from rankwise.engine import FastClassifier
from rankwise.engine.many import ManyClassifier
from rankwise.engine.native import backend as backends
from rankwise.engine.weights import SavedWeights
from rankwise.machine.isa import ISAS

WIDE = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "max_position_embeddings": 140}
LENGTHS = (3, 70, 33, 64, 31, 9, 9, 1)
SITES = FAMILIES["bert"].sites
OFF_DISTANCES = ("value", "attention_output", "ffn_in", "ffn_out")
KINDS = {
    "base": {},
    "value": {"words": ("value",), "rank": 3},
    "query and value": {"words": ("query", "value"), "rank": 3},
    "everywhere": {"words": tuple(SITES), "rank": 8, "biases": ("dense.bias",)},
    "a wide rank": {"words": ("ffn_in", "ffn_out"), "rank": 40},
    "dora": {"words": tuple(SITES), "rank": 5, "dora": True},
    "dora off distances": {"words": OFF_DISTANCES, "rank": 5, "dora": True},
    "biases": {"biases": ("bias",)},
}
OF_FAMILY = {
    "bert": list(KINDS),
    "modernbert": ["base", "query and value", "a wide rank", "dora"],
    "deberta-v2": ["base", "value", "a wide rank", "dora off distances"],
}


@pytest.fixture(scope="module")
def base():
    return base_of("bert")


def base_of(family):
    """A network and its configuration, wide enough for every unit."""
    model = tiny(family, **WIDE)
    return dict(model.state_dict()), model.config.to_dict()


def saved(base, kind, number):
    """The base with an adapter of a kind."""
    tensors, config = base
    family = FAMILIES[config["model_type"]]
    chance = torch.Generator().manual_seed(number)
    draw = lambda *shape, scale=0.3: scale * torch.randn(shape, generator=chance)  # noqa: E731
    adapter = {}
    for layer in range(config["num_hidden_layers"]):
        for path in dict.fromkeys(
            f"{family.layer.format(layer)}.{family.sites[word]}" for word in kind.get("words", ())
        ):
            d_out, d_in = tensors[f"{path}.weight"].shape
            adapter[f"{path}.lora_A.weight"] = draw(kind["rank"], d_in)
            adapter[f"{path}.lora_B.weight"] = draw(d_out, kind["rank"])
            if kind.get("dora"):
                adapter[f"{path}.lora_magnitude_vector"] = 1 + draw(d_out).abs()
    for name, value in tensors.items():
        if name.startswith("bert.e") and name.endswith(kind.get("biases", ())):
            adapter[name] = value + draw(*value.shape)
    adapter["classifier.weight"], adapter["classifier.bias"] = draw(2 + number, 64), draw(2 + number)
    return SavedWeights(tensors, adapter, lambda module, rank: 1.5, family.prefix)


def classifier(base, weights, precision, backend):
    return FastClassifier(weights, base[1]["model_type"], base[1], precision=precision, backend=backend).eval()


def together(base, precision, backend, weights):
    """The base, and a member for each."""
    many = ManyClassifier(classifier(base, saved(base, {}, 0), precision, backend))
    return many, [many.member(one) for one in weights]


@torch.inference_mode()
def assert_each_is_as_alone(base, backend):
    precision, kinds = backend.isa.precision, OF_FAMILY[base[1]["model_type"]]
    weights = [saved(base, KINDS[kind], number) for number, kind in enumerate(kinds)]
    alone = [classifier(base, one, precision, backend) for one in weights]
    weights = [saved(base, KINDS[kind], number) for number, kind in enumerate(kinds)]  # the others' were given up
    many, members = together(base, precision, backend, weights)
    assert many.trunk.backend is backend
    rows = texts(LENGTHS)
    expected = [one(one.collate(rows)).numpy() for one in alone]
    # Rounding to bf16 would be a thousand times as much: before their heads, in fp32, they are equal to the bit.
    for kind, ours, right in zip(kinds, many.every(rows, members), expected, strict=True):
        np.testing.assert_allclose(ours, right, atol=1e-5, err_msg=kind)
    asked = np.random.default_rng(0).integers(0, len(kinds), 5 * len(rows))
    mixed = many.mixed(rows * 5, [members[number] for number in asked])
    for place, (number, logits) in enumerate(zip(asked, mixed, strict=True)):
        np.testing.assert_allclose(logits, expected[number][place % len(rows)], atol=1e-5, err_msg=kinds[number])


@pytest.mark.parametrize("name", [name for name in ISAS if there(name)])
def test_each_is_as_alone(name, base):
    assert_each_is_as_alone(base, backends.named(name))


@pytest.mark.parametrize("family", ["modernbert", "deberta-v2"])
def test_layers_of_other_families(family):
    name = next((name for name in ISAS if there(name) and ISAS[name].precision == "bf16"), "scalar")
    assert_each_is_as_alone(base_of(family), backends.named(name))


def test_each_is_as_alone_by_matrix_units(base, matrix_units):
    assert_each_is_as_alone(base, matrix_units)


@pytest.mark.parametrize("name", [name for name in ISAS if ISAS[name].precision == "fp32" and there(name)])
@pytest.mark.parametrize("family", list(OF_FAMILY))
def test_scaled_inputs_and_outputs_are_as_torch_has_them(name, family):
    """IA3, which no classifier of the engine has alone."""
    base, found = base_of(family), FAMILIES[family]
    weights = [saved(base, KINDS["value"], 1), saved(base, {}, 2)]
    outputs = {found.sites[word] for word in ("key", "value") if word not in found.relative_words}
    for path in (*outputs, found.sites["ffn_out"]):
        where, inlet = f"{found.layer.format(1)}.{path}", path not in outputs
        shape = base[0][f"{where}.weight"].shape
        scaling = torch.linspace(0.3, 2, shape[1] if inlet else shape[0])
        weights[1]._adapter[f"{where}.ia3_l"] = scaling[None] if inlet else scaling[:, None]
    rows = texts(LENGTHS)
    both = [together(base, "fp32", backend, weights) for backend in (backends.named(name), "torch")]
    ours, right, plain = (
        many.every(rows, members)
        for many, members in (*both, together(base, "fp32", "torch", [weights[0], saved(base, {}, 2)]))
    )
    for one, other in zip(ours, right, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert np.abs(right[1] - plain[1]).max() > 0.01
