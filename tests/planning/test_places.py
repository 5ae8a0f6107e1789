"""Scopes, layers and patterns: each reaches the sites it names, or is refused."""

import pytest

from rankwise import config as configuration
from rankwise import planning
from rankwise.errors import UserError


def plan(*overrides: str) -> planning.Plan:
    return planning.plan(configuration.load({}, ["data.num_labels=4", *overrides]))


def ranks(planned: planning.Plan) -> dict[tuple[int, str], int]:
    return {(place.site.layer, place.site.word): place.rank for place in planned.places}


def test_layers_restrict_the_scope():
    assert set(ranks(plan("adapter.layers=[10,11]", "adapter.rank=2"))) == {
        (layer, word) for layer in (10, 11) for word in ("query", "value")
    }


def test_patterns_by_layer_by_word_and_by_both():
    planned = plan("adapter.rank=8", "adapter.rank_pattern={8-11: 16, value: 4, 11.query: 2, 3.value: 7}")
    found = ranks(planned)
    assert (found[0, "query"], found[0, "value"]) == (8, 4)
    assert (found[8, "query"], found[8, "value"]) == (16, 4)  # the later pattern overrides
    assert (found[11, "query"], found[3, "value"]) == (2, 7)
    assert planned.groups["adapter"] == sum(found.values()) * 1536


def test_alpha_follows_the_rank_of_each_site():
    planned = plan("adapter.rank=8", "adapter.rank_pattern={'11': 2}", "adapter.alpha_pattern={0.query: 5}")
    alphas = {(p.site.layer, p.site.word): p.alpha for p in planned.places}
    assert alphas[5, "query"] == 16
    assert alphas[11, "query"] == 4
    assert alphas[0, "query"] == 5


def test_ascending_grows_with_the_layer_and_keeps_the_mean():
    found = ranks(plan("adapter.rank=8", "adapter.rank_pattern=ascending"))
    by_layer = [found[layer, "query"] for layer in range(12)]
    assert by_layer == sorted(by_layer)
    assert by_layer[0] < 8 < by_layer[-1]
    assert sum(by_layer) / 12 == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("adapter.rank_pattern={key: 4}", r"adapter\.rank_pattern: 'key' matches no adapted layer"),
        ("adapter.alpha_pattern={3.ffn_in: 4}", r"adapter\.alpha_pattern: '3.ffn_in' matches no adapted layer"),
        ("adapter.rank_pattern={valeu: 4}", r"unknown scope word 'valeu'.*did you mean 'value'"),
        ("adapter.rank_pattern={'12': 4}", r"adapter\.rank_pattern names layer 12, but model\.name: roberta-base"),
        ("adapter.alpha_pattern={8-14.query: 4}", r"adapter\.alpha_pattern names layer 14"),
        ("adapter.rank_pattern={9-3: 4}", "run backwards"),
        ("adapter.rank_pattern={'^query$': 4}", "is no place"),
        ("adapter.layers=[0,12]", r"adapter\.layers names layer 12, but model\.name"),
        ("adapter.layers=[]", r"adapter\.layers is empty"),
    ],
)
def test_what_matches_nothing_is_refused(override, sentence):
    with pytest.raises(UserError, match=sentence):
        plan("adapter.rank=8", override)


def test_a_fused_layer_is_adapted_once_and_said_so():
    planned = plan("model.name=ModernBERT-base", "adapter.rank=2", "adapter.scope=[query,value]")
    assert set(ranks(planned)) == {(layer, "query+key+value") for layer in range(22)}
    assert planned.groups["adapter"] == 22 * 2 * (768 + 3 * 768)
    assert any("Wqkv is one layer for query, key, value: key" in note for note in planned.notes)
    every = plan("model.name=ModernBERT-base", "adapter.rank=2", "adapter.scope=[query,key,value]")
    assert every.groups == planned.groups
    assert not any("Wqkv" in note for note in every.notes)


def test_gated_feed_forward_layers_are_twice_as_wide():
    planned = plan("model.name=ModernBERT-base", "adapter.rank=1", "adapter.scope=[ffn_in,ffn_out]")
    assert planned.groups["adapter"] == 22 * ((768 + 2 * 1152) + (1152 + 768))


def test_albert_shares_one_adapter_over_its_layers():
    planned = plan("model.name=albert-base-v2", "adapter.rank=4", "adapter.dora=true")
    assert planned.groups["adapter"] == 2 * 4 * 1536
    assert planned.groups["dora"] == 2 * 768
    with pytest.raises(UserError, match="share their weights"):
        plan("model.name=albert-base-v2", "adapter.layers=[3]")


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["adapter.method=ia3", "adapter.bias=all"], ["adapter.bias", "adapter.method"]),
        (["adapter.method=bitfit", "adapter.bias=lora_only"], ["adapter.bias", "adapter.method"]),
        (["adapter.method=head", "adapter.layers=[1]"], ["adapter.layers", "adapter.method"]),
        (["adapter.bias=all", "model.name=ModernBERT-base"], ["adapter.bias", "model.name"]),
        (["adapter.method=bitfit", "model.name=ModernBERT-base"], ["adapter.method", "model.name"]),
        (["adapter.method=prefix", "model.name=mpnet-base"], ["adapter.method", "model.name"]),
        (["adapter.init=eva", "adapter.rank_pattern={value: 2}"], ["adapter.init", "adapter.rank_pattern"]),
        (["adapter.init=eva", "model.name=deberta-v3-small"], ["adapter.init", "model.name"]),
    ],
)
def test_options_that_cannot_apply_name_both_keys(overrides, keys):
    with pytest.raises(UserError) as refusal:
        plan(*overrides)
    assert all(key in str(refusal.value) for key in keys)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_rank_of_the_file_doubles_where_the_init_changes_the_base(init):
    plain, mutated = plan("adapter.rank=4"), plan("adapter.rank=4", f"adapter.init={init}")
    assert mutated.trainable == plain.trainable
    assert mutated.adapter_bytes - plain.adapter_bytes == pytest.approx(4 * plain.groups["adapter"], abs=1000)
    assert any("twice the rank, 8" in note for note in mutated.notes)
