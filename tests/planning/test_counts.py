"""The plan's numbers against those published and derived by hand."""

import json
import subprocess
import sys

import pytest

import rankwise
from rankwise import config as configuration
from rankwise import planning
from rankwise.cli import main
from rankwise.config import Model
from rankwise.encoders.known import KNOWN
from rankwise.errors import BudgetError, UserError
from rankwise.planning.plan import trainable_count


def plan(*overrides: str, labels: int | None = 4) -> planning.Plan:
    return planning.plan(configuration.load({}, overrides), labels)


HEAD = 768 * 768 + 768 + 768 * 4 + 4
QKVO = "adapter.scope=[query,key,value,attention_output]"
PAPERS = [
    (["adapter.scope=[value]", "adapter.rank=22"], 405_504, 0, 0),
    (["adapter.scope=[query,value]", "adapter.rank=11"], 405_504, 0, 0),
    (["adapter.scope=[query,key,value]", "adapter.rank=7"], 387_072, 0, 0),
    (["adapter.scope=[value]", "adapter.rank=6"], 110_592, 0, 0),
    (["adapter.rank=8"], 294_912, 0, 0),
    (["adapter.rank=4", "adapter.dora=true"], 147_456, 18_432, 0),
    (["adapter.scope=[query,attention_output,ffn_out]", "adapter.rank=4"], 331_776, 0, 0),
    (["adapter.rank=4", "adapter.bias=lora_only"], 147_456, 0, 18_432),
    ([QKVO, "adapter.rank=1", "adapter.bias=lora_only"], 73_728, 0, 36_864),
    ([QKVO, "adapter.rank=5"], 368_640, 0, 0),
    (["adapter.scope=[query,key,value]", "adapter.rank=6", "adapter.bias=lora_only"], 331_776, 0, 27_648),
]


@pytest.mark.parametrize(("overrides", "adapter", "dora", "bias"), PAPERS)
def test_the_papers_counts(overrides, adapter, dora, bias):
    planned = plan(*overrides)
    assert planned.groups == {"adapter": adapter, "dora": dora, "bias": bias, "head": HEAD}
    assert planned.trainable == adapter + dora + bias + HEAD
    assert planned.frozen == 124_055_040 - bias


def test_the_published_adapter_file_is_foretold_to_the_byte():
    assert plan("adapter.rank=4", "adapter.dora=true").adapter_bytes == 3_049_136


def test_minilm_keeps_its_pretrained_pooler_frozen():
    planned = plan("model.name=packaged:all-MiniLM-L6-v2", QKVO, "adapter.rank=12", labels=5)
    assert planned.groups == {"adapter": 221_184, "dora": 0, "bias": 0, "head": 1_925}
    assert any("pooler" in note for note in planned.notes)


@pytest.mark.parametrize(
    ("overrides", "rank"),
    [
        (["adapter.scope=[key]"], 22),
        (["adapter.scope=[query,value]"], 11),
        (["adapter.scope=[query,key,value]"], 7),
        ([QKVO], 5),
        (["adapter.scope=[ffn_in,ffn_out]"], 4),
        (["adapter.scope=all"], 2),
        (["adapter.scope=[key]", "adapter.dora=true"], 21),
        (["adapter.scope=[query,value]", "adapter.bias=lora_only"], 10),
        ([QKVO, "adapter.dora=true"], 5),
        (["adapter.scope=[key]", "head.kind=output"], 54),
        (["adapter.scope=[query,value]", "head.kind=output"], 27),
        ([QKVO, "head.kind=output"], 13),
    ],
)
def test_largest_rank(overrides, rank):
    planned = plan(*overrides)
    assert (planned.largest_rank, planned.rank) == (rank, rank)
    assert planned.fits


@pytest.mark.parametrize(
    "override",
    [
        "adapter.method=lora",
        "adapter.method=vera",
        "adapter.method=adalora",
        "adapter.rank_pattern=ascending",
        "adapter.rank_pattern={8-11: 3}",
    ],
)
@pytest.mark.parametrize("budget", ["700k", "777_777", "1M"])
def test_no_larger_rank_would_fit(budget, override):
    planned = plan(f"budget.max_trainable={budget}", override)
    assert planned.fits
    if planned.rank < 768:
        above = trainable_count(planned.config, planned.encoder, 4, planned.rank + 1)
        assert above > planned.budget


def test_a_rank_above_the_layers_width_is_never_offered():
    assert plan("budget.max_trainable=1_000_000_000").largest_rank == 768


HEAD_KINDS = [("full", HEAD), ("output", 3_076), ("low_rank", 3_076 + 4 * 1536)]


@pytest.mark.parametrize(("kind", "count"), HEAD_KINDS)
def test_heads(kind, count):
    planned = plan("adapter.rank=1", f"head.kind={kind}", "head.rank=4")
    assert planned.groups["head"] == count
    # The random dense layer is in the file whether it trains or not.
    assert planned.adapter_bytes > 4 * HEAD


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        (["adapter.method=head"], {"head": HEAD}),
        (["adapter.method=probe"], {"head": 3_076}),
        (["adapter.method=bitfit"], {"bias": 102_912 - 768, "head": HEAD}),
        (["adapter.method=ia3", "adapter.scope=[key,value,ffn_out]"], {"adapter": 12 * (768 * 2 + 3072), "head": HEAD}),
        (["adapter.method=vera", "adapter.rank=256"], {"adapter": 24 * (768 + 256), "head": HEAD}),
        (["adapter.method=adalora", "adapter.rank=6"], {"adapter": 24 * 6 * 1537, "head": HEAD}),
        (["adapter.method=prompt"], {"adapter": 20 * 768, "head": HEAD}),
        (["adapter.method=prefix"], {"adapter": 20 * 12 * 2 * 768, "head": HEAD}),
        (["adapter.method=full", "budget.max_trainable=null"], {"encoder": 124_055_040, "head": HEAD}),
    ],
)
def test_other_methods(overrides, groups):
    planned = plan(*overrides)
    assert {group: count for group, count in planned.groups.items() if count} == groups


# Parameters of the bare encoders as published, poolers included where the checkpoint has one.
PUBLISHED = {
    "roberta-base": 124_055_040,
    "roberta-large": 354_310_144,
    "distilroberta-base": 81_527_808,
    "xlm-roberta-base": 277_453_056,
    "bert-base-uncased": 109_482_240,
    "bert-base-cased": 108_310_272,
    "bert-large-uncased": 335_141_888,
    "distilbert-base-uncased": 66_362_880,
    "mpnet-base": 108_895_872,
    "deberta-v3-small": 141_304_320,
    "deberta-v3-base": 183_831_552,
    "electra-base-discriminator": 108_891_648,
    "albert-base-v2": 11_683_584,
    "all-MiniLM-L6-v2": 22_713_216,
    "all-MiniLM-L12-v2": 33_360_000,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_frozen_parameters_are_the_published_ones(name):
    assert plan(f"model.name={name}", "adapter.method=head").frozen == PUBLISHED[name]


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_encoder_plans_by_both_names(name):
    short = name.rpartition("/")[2]
    assert plan(f"model.name={name}").groups == plan(f"model.name={short}").groups
    assert plan(f"model.name={name}", "head.kind=output").fits


def test_over_budget_tells_the_excess_and_the_rank_that_fits():
    planned = plan("adapter.rank=12")
    assert not planned.fits
    with pytest.raises(BudgetError, match=r"1,036,036 .* 36,036 over .* largest rank that fits is 11"):
        planning.require_fit(planned)


def test_a_head_that_alone_is_too_much_is_named():
    with pytest.raises(BudgetError, match=r"no rank fits .* 593,668, head.kind: output"):
        planning.require_fit(plan("budget.max_trainable=500k"))


def test_full_fine_tuning_needs_the_budget_lifted():
    with pytest.raises(BudgetError, match="lift it with null"):
        planning.require_fit(plan("adapter.method=full"))


def test_max_without_a_budget_has_nothing_to_solve():
    with pytest.raises(UserError, match=r"adapter\.rank: max .* lifted"):
        plan("budget.max_trainable=null")
    with pytest.raises(UserError, match=r"adapter\.rank: max .*rank_pattern covers every layer"):
        plan("adapter.rank_pattern={query: 2, value: 3}")


def test_labels_must_be_known():
    with pytest.raises(UserError, match=r"data\.num_labels"):
        plan(labels=None)
    assert plan("data.num_labels=7", labels=None).num_labels == 7


def test_the_resolved_configuration_plans_the_same_again():
    planned = plan("adapter.rank_pattern=ascending", "adapter.alpha=3r")
    again = planning.plan(planned.config)
    assert again.ranks == planned.ranks
    assert [p.alpha for p in again.places] == [p.alpha for p in planned.places]
    assert plan().config.adapter.rank == 11
    assert plan().config.adapter.alpha == 22


def test_options_cover_scopes_variants_and_heads():
    config = configuration.load({}, ["data.num_labels=4"])
    rows = planning.options(config)
    found = {(r.head, str(r.scope), r.variant): r for r in rows}
    assert found["full", "['value']", "LoRA"].largest_rank == 22
    assert found["output", "['query', 'value']", "DoRA"].largest_rank == 26
    assert found["full", "all", "bias"].trainable == 842_500
    assert "22 (999,172)" in planning.table(config)
    modern = planning.options(configuration.load({}, ["data.num_labels=4", "model.name=ModernBERT-base"]))
    assert {row.variant for row in modern} == {"LoRA", "DoRA"}


def test_json_form():
    tree = json.loads(json.dumps(plan("adapter.rank=8").to_dict()))
    assert {"model", "trainable", "budget", "fits", "groups", "largest_rank", "adapter_bytes"} <= tree.keys()
    assert tree["ranks"]["roberta.encoder.layer.11.attention.self.value"] == 8


def test_planning_imports_no_torch():
    script = (
        "import sys; from rankwise import planning, config; planning.plan(config.load({}), 4);"
        "print([m for m in ('torch', 'transformers', 'peft', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_prompt_takes_its_share_of_the_positions():
    assert plan(f"model.name={'bert-base-uncased'}").positions == 512
    assert plan("adapter.method=prompt").positions == 512 - 20
    assert planning.encoder_of(Model(name="ModernBERT-base")).positions == 8192


# --- which path ---------------------------------------------------------------------------------------

FAST = ["lora", "head", "probe", "bitfit"]
REFERENCE = ["ia3", "vera", "adalora", "prompt", "prefix", "full"]


@pytest.mark.parametrize("method", FAST + REFERENCE)
def test_the_plan_names_the_path_and_why(method):
    planned = plan(f"adapter.method={method}", "adapter.rank=4", "budget.max_trainable=null")
    assert planned.engine == ("fast" if method in FAST else "reference")
    assert (planned.engine_reason is None) == (method in FAST)


@pytest.mark.parametrize(
    "option",
    ["adapter.dora=true", "adapter.rslora=true", "adapter.init=olora", "adapter.bias=all", "head.kind=low_rank"],
)
def test_every_option_of_lora_takes_the_fast_path(option):
    assert plan(option).engine == "fast"


@pytest.mark.parametrize("model", sorted(KNOWN))
def test_well_known_encoders_take_the_fast_path(model):
    assert plan(f"model.name={model}").engine == "fast"
    assert plan(f"model.name={model}", "engine=reference").engine == "reference"


@pytest.mark.parametrize("megabytes", [1.5, 3.0, 4.2])
@pytest.mark.parametrize("budget", [1_000_000, None])
def test_the_largest_rank_is_within_the_megabytes_that_may_be_shipped(megabytes, budget):
    tree = {"model": {"name": "packaged:all-MiniLM-L6-v2"}, "data": {"num_labels": 4}, "head": {"pooling": "mean"}}
    tree["budget"] = {"max_trainable": budget, "max_mb": megabytes}
    plan = rankwise.plan(tree)
    assert plan.fits
    assert plan.adapter_bytes <= 1e6 * megabytes
    more = {**tree, "adapter": {"rank": plan.rank + 1}}
    over = rankwise.plan(more)
    assert not over.fits, "one more rank would have fitted"
    assert over.adapter_bytes > 1e6 * megabytes or over.trainable > budget


def test_a_file_over_its_megabytes_is_refused_with_the_nearest_that_fits(capsys):
    words = ["model.name=packaged:all-MiniLM-L6-v2", "data.num_labels=4", "head.pooling=mean", "budget.max_mb=0.5"]
    assert main(["plan", *words, "adapter.rank=64"]) == 2
    said = capsys.readouterr()
    assert "over budget.max_mb of 0.5: the largest rank that fits is 13 (adapter.rank)" in said.err
    assert rankwise.plan({}, [*words, "adapter.rank=13"]).fits
    assert not rankwise.plan({}, [*words, "adapter.rank=14"]).fits
    assert main(["plan", *words, "budget.max_mb=0.01", "adapter.scope=all"]) == 2
    assert "no rank fits this scope and head, at rank 1 it has" in capsys.readouterr().err
