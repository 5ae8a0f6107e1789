"""Many classifiers on one base, asked in one pass: each as it answers alone, whatever it shares a batch with."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rankwise
from bases import SHAPES
from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.inference import many as together
from rankwise.models import adapter_file, assemble

TEXTS = [
    "the goal of the match",
    "shares",
    "",
    "a planet in orbit , said the theory of the telescope",
    "the coach will",
]
KINDS = {
    "lora": (2, ["adapter.scope=[query,value]"]),
    "dora": (3, ["adapter.dora=true", "adapter.scope=all"]),
    "upper": (7, ["adapter.layers=[1]", "adapter.rslora=true", "adapter.rank=5"]),
    "biased": (4, ["adapter.bias=lora_only", "head.kind=output"]),
    "several": (3, ["data.multi_label=true", "adapter.scope=[ffn_in]"]),
    "head": (2, ["adapter.method=head"]),
    "pooled": (3, ["head.pooling=mean"]),
    "everywhere": (2, ["adapter.bias=all"]),
    "whole": (2, ["adapter.method=full"]),
    "ia3": (5, ["adapter.method=ia3"]),
    "biases": (2, ["adapter.method=bitfit"]),
    "prompt": (2, ["adapter.method=prompt", "adapter.virtual_tokens=3"]),
}
SHARED = {"lora", "dora", "upper", "biased", "several", "head", "everywhere", "biases", "ia3"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    """An adapter of each kind on one base, every trained number moved."""
    from transformers import AutoTokenizer

    root, found = tmp_path_factory.mktemp("many"), {}
    for number, (kind, (classes, overrides)) in enumerate(KINDS.items()):
        tree = {"model": {"name": str(tiny_model)}, "adapter": {"rank": 2}, "data": {"max_length": 24}}
        labels = [f"{kind}-{label}" for label in range(classes)]
        options = ["budget.max_trainable=null", "model.precision=fp32", *overrides]
        model = assemble.build(configuration.load(tree, options), classes, labels)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        found[kind] = root / kind
        adapter_file.save(
            model.assembly, found[kind], tokenizer=AutoTokenizer.from_pretrained(tiny_model), label_names=labels
        )
    return found


@pytest.fixture(scope="module")
def alone(folders):
    return {kind: rankwise.load(folder, precision="fp32") for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def many(folders):
    return rankwise.load_many(list(folders.values()), precision="fp32")


def test_each_answers_as_it_does_alone(many, alone):
    assert many.names == list(KINDS)
    logits = many.logits(TEXTS)
    for kind, predictor in alone.items():
        np.testing.assert_allclose(logits[kind], predictor.logits(TEXTS), atol=2e-5, err_msg=kind)
    assert many.predict(TEXTS) == {kind: predictor.predict(TEXTS) for kind, predictor in alone.items()}


def test_those_that_can_share_one_base(many):
    shared = [loaded for loaded in many.loaded.values() if loaded.trunk is not None]
    assert {loaded.name for loaded in shared} >= SHARED
    assert len({id(loaded.trunk) for loaded in shared if loaded.name != "pooled"}) == 1
    assert many.loaded["whole"].alone is not None
    assert many.loaded["prompt"].alone is not None


def test_texts_for_different_classifiers_in_one_pass(many, alone):
    chance = np.random.default_rng(0)
    names = [str(name) for name in chance.choice(list(KINDS), 60)]
    texts = [TEXTS[row] for row in chance.integers(0, len(TEXTS), 60)]
    for name, text, logits in zip(names, texts, many.mixed(texts, names), strict=True):
        np.testing.assert_allclose(logits, alone[name].logits([text])[0], atol=2e-5, err_msg=f"{name}: {text}")


def test_layers_below_every_adapter_are_computed_once(folders, monkeypatch):
    upper = rankwise.load_many({"a": folders["upper"], "b": folders["head"]}, precision="fp32")
    trunk = upper.loaded["a"].trunk
    rows = []
    first = trunk.trunk.layers[0]
    first.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    tokens = [ids.shape[0] for ids in together._encoded(TEXTS, [upper.loaded["a"]] * len(TEXTS))]
    upper.predict(TEXTS)
    assert rows == [-(-sum(tokens) // 32) * 32]  # once, and not once a classifier


def test_coming_going_and_replaced(folders, alone):
    many = rankwise.load_many({"one": folders["lora"]}, precision="fp32")
    many.add("two", folders["dora"])
    assert set(many.predict(TEXTS)) == {"one", "two"}
    many.add("one", folders["upper"])
    np.testing.assert_allclose(many.logits(TEXTS, ["one"])["one"], alone["upper"].logits(TEXTS), atol=2e-5)
    many.remove("two")
    assert many.names == ["one"]
    with pytest.raises(UserError, match="there is no classifier 'two'; there are one"):
        many.predict(TEXTS, ["two"])


def test_a_base_that_nobody_is_on_goes_when_another_comes(folders):
    many = rankwise.load_many({"one": folders["lora"]}, precision="fp32")
    many.remove("one")
    many.add("one", folders["upper"])
    (first,) = many._trunks.values()
    assert many.get("one").trunk is first[0]  # and not loaded once more
    many.remove("one")
    many.add("two", folders["pooled"])
    assert [trunk for trunk, _ in many._trunks.values()] == [many.get("two").trunk]


def test_bad_input(folders):
    with pytest.raises(UserError, match="have one name, 'lora'"):
        rankwise.load_many([folders["lora"], folders["lora"]])
    with pytest.raises(UserError, match="wrap it in a list"):
        rankwise.load_many(str(folders["lora"]))
    with pytest.raises(UserError, match="wrap it in a list"):
        rankwise.load_many([folders["lora"]]).predict("one text")
    assert rankwise.load_many([folders["lora"]]).predict([]) == {"lora": []}


FAMILY_KINDS = {
    "lora": ["adapter.scope=all"],
    "everywhere": ["adapter.bias=all", "adapter.scope=[value,ffn_in]"],
    "ia3": ["adapter.method=ia3"],
    "off the distances": ["adapter.scope=[value,attention_output,ffn_out]", "adapter.dora=true"],
    "head": ["adapter.method=head"],
}
APART = {
    ("albert", "everywhere"),
    ("electra", "everywhere"),
    ("deberta-v2", "lora"),
    ("deberta-v2", "ia3"),
    ("deberta-v2", "everywhere"),
}
"""that do not share: a projection behind the embeddings has a bias, layers read distances, norms of another arrangement"""

UNKNOWN = {("modernbert", "everywhere")}
"""its layers have no biases"""


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("family", SHAPES)
def test_every_family_shares_what_it_can(family, bases, adapter_of, tmp_path):
    """Each kind as it answers alone, all in one set, mixed and together."""
    kinds = {kind: options for kind, options in FAMILY_KINDS.items() if (family, kind) not in UNKNOWN}
    places = {kind: adapter_of(bases[family], *options, name=kind) for kind, options in kinds.items()}
    many = rankwise.load_many(places, precision="fp32")
    alone = {kind: rankwise.load(place, precision="fp32") for kind, place in places.items()}
    expected = {kind: one.logits(TEXTS) for kind, one in alone.items()}
    for kind, logits in many.logits(TEXTS).items():
        np.testing.assert_allclose(logits, expected[kind], atol=3e-5, err_msg=kind)
    kinds = [kind for kind in places for _ in TEXTS]
    rows = many.mixed(TEXTS * len(places), kinds)
    for place, (kind, row) in enumerate(zip(kinds, rows, strict=True)):
        np.testing.assert_allclose(row, expected[kind][place % len(TEXTS)], atol=3e-5, err_msg=kind)
    assert {kind for kind in places if many.loaded[kind].trunk is None} == {
        kind for name, kind in APART if name == family
    }


def test_a_bias_that_distances_read_alone_is_not_shared(bases, adapter_of):
    place = adapter_of(bases["deberta-v2"], *FAMILY_KINDS["off the distances"], name="query bias")
    file = next(place.rglob("adapter_model.safetensors"))
    tensors = load_file(file)
    layer = next(name for name in tensors if ".layer.0.attention.self.value_proj." in name).partition("value_proj")[0]
    width = next(tensor.shape[1] for name, tensor in tensors.items() if name.endswith("value_proj.lora_A.weight"))
    save_file(tensors | {f"{layer}query_proj.bias": torch.linspace(-2, 2, width)}, file, {"format": "pt"})
    many = rankwise.load_many({"one": place}, precision="fp32")
    assert many.loaded["one"].trunk is None
    np.testing.assert_allclose(
        many.logits(TEXTS)["one"], rankwise.load(place, precision="fp32").logits(TEXTS), atol=3e-5
    )
