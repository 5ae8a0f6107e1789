"""What the plan counts is what torch trains: generated configurations on tiny models of every family."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import SCOPE_WORDS
from rankwise.errors import BudgetError, UserError
from rankwise.models import adapter_file, assemble
from rankwise.models.layout import WEIGHTS

from .conftest import HAS_DENSE, TINY, logits

FAMILIES = [*TINY, *(f"{name}-bare" for name in HAS_DENSE)]
BIASLESS = ("modernbert", "modernbert-bare")
MARKS = {
    "dora": ("lora_magnitude_vector",),
    "adapter": ("lora_A", "lora_B", "lora_E", "ia3_l", "vera_lambda", "prompt_encoder"),
}


def live_groups(model, method: str = "lora") -> dict[str, int]:
    """Trainable parameters by group, told from PEFT's names alone."""
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    counts = dict.fromkeys(("adapter", "dora", "bias", "head"), 0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = next((g for g, marks in MARKS.items() if any(m in name for m in marks)), None)
        if "modules_to_save" in name:
            weight = name.removesuffix("bias") + "weight"
            group = "bias" if name.endswith(".bias") and weight not in trains else "head"
        elif group is None:
            group = "bias" if name.endswith(".bias") and method != "full" else "encoder"
        counts[group] = counts.get(group, 0) + parameter.numel()
    return counts


@st.composite
def adapters(draw) -> dict:
    """An adapter section, mostly LoRA in all its variations."""
    method = draw(
        st.sampled_from(["lora"] * 6 + ["adalora", "vera", "ia3", "bitfit", "head", "probe", "prompt", "full"])
    )
    section: dict = {"method": method, "scope": draw(st.lists(st.sampled_from(SCOPE_WORDS), min_size=1, unique=True))}
    if method in ("lora", "adalora", "vera"):
        section["rank"] = draw(st.integers(2 if method == "adalora" else 1, 6))
    if method in ("prompt", "prefix"):
        section["virtual_tokens"] = draw(st.integers(1, 5))
    if method in ("lora", "adalora"):
        section["bias"] = draw(st.sampled_from(["none", "lora_only", "all"]))
    if method == "lora":
        section["init"] = draw(st.sampled_from(["default", "gaussian", "default", "pissa", "olora"]))
        section["dora"] = section["init"] in ("default", "gaussian") and draw(st.booleans())
        section["rslora"] = draw(st.booleans())
        word = section["scope"][0]
        patterns = st.sampled_from([{}, "ascending", {word: 3}, {"0": 5}, {"0": 2, f"0.{word}": 4}])
        section["rank_pattern"] = draw(patterns)
    return section


@st.composite
def trees(draw) -> dict:
    family = draw(st.sampled_from(FAMILIES))
    adapter = draw(adapters())
    assume(not (family in BIASLESS and (adapter.get("bias", "none") != "none" or adapter["method"] == "bitfit")))
    fixed = adapter["method"] in ("full", "probe")  # these leave no choice of the head
    kinds = ["full"] if fixed else ["full", "output", "low_rank"]
    if adapter["method"] == "adalora":
        kinds.remove("low_rank")  # refused: its allocator would take ranks from the head
    return {
        "budget": {"max_trainable": None},
        "model": {"name": family},
        "adapter": adapter,
        "head": {"kind": draw(st.sampled_from(kinds)), "rank": draw(st.integers(1, 5))},
        "data": {"num_labels": draw(st.integers(2, 6))},
    }


@settings(derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tree=trees())
def test_the_plan_is_what_torch_trains_and_what_the_file_holds(tree, folders):
    tree = {**tree, "model": {"name": str(folders[tree["model"]["name"]])}}
    config = configuration.from_dict(tree)
    planned = planning.plan(config)
    names = [str(label) for label in range(config.data.num_labels)]
    model = assemble.build(config, len(names), names)

    live = live_groups(model, config.adapter.method)
    assert {g: n for g, n in live.items() if n} == {g: n for g, n in planned.groups.items() if n}
    assert sum(live.values()) == planned.trainable
    base = sum(t.size for t in planned.encoder.tensors(len(names)))
    original = model.get_base_model()
    copies = sum(p.numel() for n, p in original.named_parameters() if "original_module" in n)
    added = sum(e.size for e in planned.entries if e.group in ("adapter", "dora") or (e.group and not e.saved))
    if config.adapter.method not in ("prompt", "adalora"):  # a prompt sits outside, AdaLoRA adds a rank counter
        assert sum(p.numel() for p in original.parameters()) == base + copies + added

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "adapter"
        adapter_file.save(model.assembly, saved)
        assert (saved / WEIGHTS).stat().st_size == planned.adapter_bytes
        if config.adapter.method == "lora" and config.head.kind == "full" and config.adapter.init == "default":
            assert peft_count(tree, saved, len(names)) == planned.trainable


def peft_count(tree: dict, saved: Path, labels: int) -> int:
    """What plain PEFT, left alone, makes trainable of the saved configuration."""
    fresh = AutoModelForSequenceClassification.from_pretrained(
        tree["model"]["name"], num_labels=labels, ignore_mismatched_sizes=True
    )
    return PeftModel.from_pretrained(fresh, str(saved), is_trainable=True).get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_tensors_are_those_of_transformers(family, folders):
    encoder = planning.encoder_of(configuration.Model(name=str(folders[family])))
    live = AutoModelForSequenceClassification.from_pretrained(
        folders[family], num_labels=5, ignore_mismatched_sizes=True
    )
    assert {t.name: t.shape for t in encoder.tensors(5)} == {n: tuple(p.shape) for n, p in live.named_parameters()}


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["adapter.scope=[value]", "adapter.rank=22"], 999_172),
        (["adapter.rank=8"], 888_580),
        (["adapter.scope=[query,key,value]", "adapter.rank=7"], 980_740),
        (["adapter.rank=4", "adapter.dora=true"], 759_556),
        (
            ["adapter.scope=[query,key,value,attention_output]", "adapter.rank=1", "adapter.bias=lora_only"],
            704_260,
        ),
    ],
)
def test_the_papers_counts_live_on_roberta_base(overrides, count):
    config = configuration.load({}, ["data.num_labels=4", "model.random_weights=true", *overrides])
    with torch.device("meta"):  # the real architecture, without its half gigabyte
        model = assemble.build(config, 4, list("abcd"))
    assert planning.plan(config).trainable == count
    assert model.get_nb_trainable_parameters()[0] == count


def test_equal_seeds_give_equal_models_and_others_do_not(folders, inputs):
    def made(seed: int) -> torch.Tensor:
        tree = {"model": {"name": str(folders["roberta"])}, "adapter": {"rank": 2}, "train": {"seed": seed}}
        model = assemble.build(configuration.from_dict(tree), 3, list("abc"))
        return torch.cat([model.assembly.trainable[n].flatten() for n in sorted(model.assembly.trainable)])

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))


@pytest.mark.parametrize("init", ["default", "gaussian", "pissa", "olora"])
@pytest.mark.parametrize("dora", [False, True])
def test_no_initialisation_changes_the_logits_before_training(init, dora, folders, inputs):
    if dora and init in ("pissa", "olora"):
        return
    plain = {"model": {"name": str(folders["roberta"])}, "adapter": {"method": "head"}}
    tree = {"model": plain["model"], "adapter": {"rank": 3, "init": init, "dora": dora}}
    fresh = assemble.build(configuration.from_dict(plain), 3, list("abc"))
    adapted = assemble.build(configuration.from_dict(tree), 3, list("abc"))
    torch.testing.assert_close(logits(adapted, inputs), logits(fresh, inputs), rtol=1e-4, atol=1e-5)


def test_patterns_reach_every_layer_they_name(folders):
    tree = {
        "model": {"name": str(folders["mpnet"])},
        "adapter": {
            "scope": "all",
            "rank": 4,
            "alpha": "3r",
            "rslora": True,
            "rank_pattern": {"1": 2, "ffn_out": 5},
            "alpha_pattern": {"0.query": 7},
        },
    }
    model = assemble.build(configuration.from_dict(tree), 3, list("abc"))
    layers = dict(model.get_base_model().mpnet.encoder.named_modules())
    found = {n: (m.r["default"], m.scaling["default"]) for n, m in layers.items() if hasattr(m, "lora_A")}
    assert found["layer.0.attention.attn.q"] == (4, pytest.approx(7 / 4**0.5))
    assert found["layer.0.attention.attn.o"] == (4, pytest.approx(12 / 4**0.5))
    assert found["layer.1.attention.attn.q"] == (2, pytest.approx(6 / 2**0.5))
    assert found["layer.0.output.dense"] == found["layer.1.output.dense"] == (5, pytest.approx(15 / 5**0.5))
    assert len(found) == 12


def test_eva_takes_its_directions_from_the_data(folders):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(6, 60, (8, 12), generator=generator) for _ in range(6)]
    made = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in batches]
    tree = {"model": {"name": str(folders["bert"])}, "adapter": {"rank": 2, "init": "eva"}}
    model = assemble.build(configuration.from_dict(tree), 3, list("abc"), batches=lambda: made)
    name = "bert.encoder.layer.1.attention.self.query.lora_A.weight"
    factor = model.assembly.trainable[name].detach()
    torch.testing.assert_close(factor @ factor.T, torch.eye(2), atol=1e-4, rtol=0)
    assert planning.plan(configuration.from_dict(tree), 3).trainable == sum(live_groups(model).values())


def test_the_budget_is_enforced_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", ' + str(TINY["bert"])[1:].replace("'", '"'))
    tree = {"model": {"name": str(tmp_path)}, "budget": {"max_trainable": 100}, "adapter": {"rank": 2}}
    with pytest.raises(BudgetError, match="511 over"):
        assemble.build(configuration.from_dict(tree), 3, list("abc"))


def test_weights_of_another_shape_are_refused(folders, tmp_path):
    import json
    import shutil

    shutil.copytree(folders["bert"], tmp_path / "mixed")
    shape = json.loads((tmp_path / "mixed" / "config.json").read_text())
    (tmp_path / "mixed" / "config.json").write_text(json.dumps({**shape, "num_hidden_layers": 3}))
    tree = {"model": {"name": str(tmp_path / "mixed")}, "adapter": {"rank": 2}}
    with pytest.raises(UserError, match=r"lack 'bert\.encoder\.layer\.2.*do not belong together"):
        assemble.build(configuration.from_dict(tree), 3, list("abc"))
