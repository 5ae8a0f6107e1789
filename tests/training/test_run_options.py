"""Options that act on a whole run: what they change in its history, its files and its result."""

import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import rankwise
from rankwise import config as configuration
from rankwise.baselines import tfidf
from rankwise.data.cleaning import preprocess
from rankwise.data.tokens import encode
from rankwise.errors import UserError
from rankwise.machine import segments
from rankwise.models import tokenizer_of
from rankwise.planning.steps import train_sample_rows
from rankwise.training import building, execution, proof
from rankwise.training.examples import Augmentation
from training.runs import equal, interrupt_after, weights, with_keys

# --- text ---------------------------------------------------------------------------------------------

AUGMENT = {"word_dropout": 0.3, "word_swap": 0.5, "sentence_shuffle": 0.5}


def test_augmentation_differs_by_epoch_and_repeats_by_seed(tiny_model):
    tokenizer = tokenizer_of(configuration.from_dict({"model": {"name": str(tiny_model)}}).model)
    texts = ["the team. a goal in the league. said the coach", "the bank and the market"]
    drawn = {"sentence_shuffle": 0.9, "word_dropout": 0.4}
    changes = Augmentation(texts, drawn, tokenizer, 16, segments.HEAD, seed=1)
    rows = np.array([0, 1])
    epochs = [[list(ids) for ids in changes.take(rows, epoch)] for epoch in range(6)]
    assert len({str(epoch) for epoch in epochs}) > 1
    assert [list(ids) for ids in changes.take(rows, 3)] == epochs[3]
    assert [list(ids) for ids in changes.take(rows[1:], 3)] == epochs[3][1:], "a row depends on its batch mates"
    plain = encode(texts, tokenizer, 16)
    assert any(len(epoch[0]) < len(plain[0]) for epoch in epochs)


def run_and_count_tokens(config, out, monkeypatch):
    """A run, and how many tokens its training passes saw."""
    seen = []
    collate = building.ReferenceClassifier.collate

    def spy(self, texts):
        seen.extend(len(text) for text in texts if self.training)
        return collate(self, texts)

    monkeypatch.setattr(building.ReferenceClassifier, "collate", spy)
    run = rankwise.train(config, out=out)
    monkeypatch.undo()
    return run, sum(seen)


def test_augmentation_reaches_training_rows_only_and_resumes_exactly(config, tmp_path, monkeypatch):
    config = with_keys(config, data__augment=AUGMENT, train__steps=70, train__eval_every=35, train__accumulate=1)
    whole, seen = run_and_count_tokens(config, tmp_path / "whole", monkeypatch)
    plain, unchanged = run_and_count_tokens(with_keys(config, data__augment={}), tmp_path / "plain", monkeypatch)
    assert not equal(whole, plain)
    assert seen < 0.85 * unchanged
    assert whole.result["metrics"]["floor"] == plain.result["metrics"]["floor"], "validation rows were changed"
    interrupt_after(monkeypatch, 45)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    monkeypatch.undo()
    resumed = rankwise.train(config, out=tmp_path / "cut", resume=True)
    assert equal(whole, resumed)
    assert configuration.load(whole.path / "config.yaml").data.augment == AUGMENT


def test_a_stem_shortens_the_text_and_a_run_cleans_what_it_predicts(config, tmp_path):
    assert preprocess(["the teams scored goals"], ["stem"]) == ["the team score goal"]
    config = with_keys(config, data__preprocess=["lowercase", "stopwords", "stem"], train__steps=80)
    run = rankwise.train(config, out=tmp_path / "run")
    predictor = rankwise.load(run)
    np.testing.assert_array_equal(predictor.logits(["The goals of the striker"]), predictor.logits(["goal striker"]))
    assert run.config.data.preprocess == ["lowercase", "stopwords", "stem"]


def test_a_maximum_length_cuts_texts(config, tmp_path, monkeypatch):
    keys = {"data__max_length": 5, "train__steps": 2}
    _, seen = run_and_count_tokens(with_keys(config, **keys), tmp_path / "run", monkeypatch)
    assert 0 < seen <= 2 * 8 * 5


# --- batches, rates, stopping -------------------------------------------------------------------------


def quiet_dropout(monkeypatch):
    """The encoder's own dropout off, so that two ways to cut a batch meet the same numbers."""
    monkeypatch.setattr(
        building.ReferenceClassifier, "train", lambda self, mode=True: torch.nn.Module.train(self, False)
    )


def test_accumulation_gives_the_weights_of_the_larger_batch(config, tmp_path, monkeypatch):
    quiet_dropout(monkeypatch)
    base = with_keys(config, train__steps=6, train__eval_every=6)
    large = rankwise.train(with_keys(base, train__batch_size=16), out=tmp_path / "large")
    small = rankwise.train(with_keys(base, train__batch_size=4, train__accumulate=4), out=tmp_path / "small")
    other = rankwise.train(with_keys(base, train__batch_size=4), out=tmp_path / "other")
    for name, value in weights(large).items():
        torch.testing.assert_close(value, weights(small)[name], rtol=1e-3, atol=1e-4)
    assert any(not torch.allclose(v, weights(other)[n], atol=1e-3) for n, v in weights(large).items())


def test_the_history_shows_each_schedule_and_a_plateau_cuts_the_rate(config, tmp_path):
    def rates(**train):
        keys = {f"train__{name}": value for name, value in train.items()}
        run = rankwise.train(with_keys(config, **keys), out=tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        return [row["learning_rate"] for row in run.history]

    peak = 5e-3
    # The adapter's rate, whatever the head's is.
    assert rates(schedule="constant", head_learning_rate=1e-2) == pytest.approx([peak] * 4)
    assert rates(schedule="linear") == pytest.approx([peak * (1 - step / 24) for step in (6, 12, 18, 24)], rel=1e-6)
    assert rates(schedule="cosine", warmup_steps=6)[0] == pytest.approx(peak)
    nothing_learnt = {"learning_rate": 1e-12, "schedule": "plateau", "plateau_patience": 0, "decay": 0.5}
    # The rate of a row is the one its interval was trained with; cuts show in the next.
    assert rates(**nothing_learnt)[-1] == pytest.approx(1e-12 * 0.25, rel=1e-6, abs=0)


def test_clipping_bounds_the_step(config, tmp_path):
    def size(**train):
        keys = {f"train__{name}": value for name, value in train.items()}
        sgd = with_keys(config, train__optimizer="sgd", train__steps=1, train__weight_decay=0.0, **keys)
        return weights(rankwise.train(sgd, out=tmp_path / f"run{len(list(tmp_path.iterdir()))}"))

    start = size(learning_rate=1e-12)
    free = size(learning_rate=1.0, max_grad_norm=None)
    clipped = size(learning_rate=1.0, max_grad_norm=1e-2)

    def distance(end):
        return sum((end[name] - start[name]).square().sum() for name in start).sqrt().item()

    assert distance(clipped) == pytest.approx(1e-2, rel=0.05)
    assert distance(free) > 2e-2


def test_early_stopping_ends_the_run_and_says_what_it_left(config, tmp_path):
    stopping = with_keys(
        config,
        train__early_stopping={"patience": 2, "min_delta": 0.5, "metric": "loss"},
        train__steps=48,
        train__learning_rate=1e-3,
    )
    run = rankwise.train(stopping, out=tmp_path / "run")
    assert run.result["status"] == "stopped_early"
    assert run.result["timing"]["steps"] == 18
    assert any("still improving when stopped" in note for note in run.result["notes"])


def test_the_seed_and_the_selection_reach_the_run(config, tmp_path):
    one = rankwise.train(with_keys(config, train__steps=6), out=tmp_path / "one")
    other = rankwise.train(with_keys(config, train__steps=6, train__seed=4), out=tmp_path / "other")
    assert not equal(one, other)
    by_loss = with_keys(config, train__select={"metric": "loss", "mode": "max"}, train__learning_rate=1e-2)
    run = rankwise.train(by_loss, out=tmp_path / "loss")
    worst = max(run.history, key=lambda row: row["validation_loss"])
    assert run.result["metrics"]["validation"]["step"] == worst["step"]


def test_bf16_rounds_what_fp32_does_not(config, tmp_path):
    runs = [
        rankwise.train(with_keys(config, model__precision=precision, train__steps=2), out=tmp_path / precision)
        for precision in ("fp32", "bf16")
    ]
    assert not equal(*runs)
    for one, other in zip(*(weights(run).values() for run in runs), strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)


# --- AdaLoRA and EVA in a run -------------------------------------------------------------------------


def test_an_adalora_run_allocates_resumes_and_is_cut_to_what_is_left(config, tmp_path, monkeypatch):
    config = with_keys(config, adapter__method="adalora", adapter__rank=6, budget__max_trainable=None)
    config = with_keys(config, train__select={"metric": "loss", "mode": "max"})  # would choose the first of all
    whole = rankwise.train(config, out=tmp_path / "whole")
    ranks = {len(value) for name, value in weights(whole).items() if "lora_A" in name}
    assert len(ranks) > 1, "every layer kept the same rank"
    assert sum(len(value) for name, value in weights(whole).items() if "lora_A" in name) == 4 * 4
    assert whole.result["metrics"]["validation"]["step"] == 18, "chosen before the ranks were settled, at step 16"
    interrupt_after(monkeypatch, 15)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(config, out=tmp_path / "cut")
    monkeypatch.undo()
    assert equal(whole, rankwise.train(config, out=tmp_path / "cut", resume=True))


def test_an_eva_run_takes_its_factors_from_training_texts(config, tmp_path):
    config = with_keys(config, train__steps=1, train__learning_rate=1e-9)
    runs = {
        init: rankwise.train(with_keys(config, adapter__init=init), out=tmp_path / init) for init in ("eva", "default")
    }
    name = next(name for name in weights(runs["eva"]) if "lora_A" in name)
    a = weights(runs["eva"])[name]
    assert not torch.allclose(a, weights(runs["default"])[name], atol=1e-3)
    gram = a @ a.T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-3, rtol=0)


# --- what every result holds --------------------------------------------------------------------------


def test_the_floor_is_in_the_result_computed_once_and_joined_by_the_test_rows(config, news, tmp_path, monkeypatch):
    config = with_keys(config, data__test=str(news["test"]), train__steps=1)
    run = rankwise.train(config, out=tmp_path / "one")
    lowest = run.result["metrics"]["floor"]
    assert set(lowest) == {"method", "validation"}
    assert lowest["validation"]["accuracy"] > 0.9, "three words a topic are easy for TF-IDF"
    assert lowest["validation"]["examples"] == 60
    monkeypatch.setattr(tfidf, "_compute", lambda *_: pytest.fail("computed twice"))
    again = rankwise.train(with_keys(config, train__seed=9), out=tmp_path / "two")
    assert again.result["metrics"]["floor"] == lowest
    rankwise.evaluate(run)
    assert run.result["metrics"]["floor"]["test"]["examples"] == 60


def test_a_run_without_scikit_learn_has_no_floor(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    monkeypatch.setattr(tfidf, "_read", lambda *_: None)
    assert "floor" not in rankwise.train(with_keys(config, train__steps=1), out=tmp_path / "run").result["metrics"]


def test_training_rows_are_scored_without_dropout(config, tmp_path, monkeypatch):
    keys = {
        "data__augment": {"word_swap": 0.9},
        "train__steps": 120,
        "train__batch_size": 16,
        "train__learning_rate": 1e-2,
    }
    run = rankwise.train(with_keys(config, **keys, train__eval_every=40), out=tmp_path / "run")
    clean = run.result["metrics"]["train_sample"]
    assert clean["examples"] == 60  # as many as validation has
    assert clean["accuracy"] > 0.6
    predictor = rankwise.load(run)
    lines = Path(config["data"]["train"]).read_text(encoding="utf-8").splitlines()[1:]
    texts, labels = zip(*(line.rsplit(",", 1) for line in lines), strict=True)
    drawn = np.sort(np.random.default_rng(run.config.train.seed).choice(240, 60, replace=False))
    hits = np.array(predictor.predict(list(texts))) == np.array(labels)
    assert clean["accuracy"] == pytest.approx(hits[drawn].mean())


def test_all_training_rows_are_scored_where_few_are_and_none_are_to_choose_by():
    assert train_sample_rows(240, None) == 240
    assert train_sample_rows(5000, None) == train_sample_rows(5000, 2000) == 1000
    assert train_sample_rows(50, 200) == 50


# --- the frozen prefix --------------------------------------------------------------------------------


def cached(config, **keys):
    return with_keys(config, adapter__layers=[1], train__prefix_cache_mb=8, **keys) | {"engine": "fast"}


def test_a_cached_prefix_is_computed_once_a_text_and_a_resumed_run_equals_the_whole(config, tmp_path, monkeypatch):
    from rankwise.engine import FastClassifier

    computed = []
    prefix = FastClassifier._prefix

    def counted(self, texts):
        computed.append(len(texts))
        return prefix(self, texts)

    monkeypatch.setattr(FastClassifier, "_prefix", counted)
    whole = rankwise.train(cached(config), out=tmp_path / "whole")
    distinct = {str(list(ids)) for role in ("train", "validation") for ids in tokens_of(config, role)}
    assert sum(computed) - computed.count(1) == len(distinct)  # one text alone is the fingerprint's probe
    interrupt_after(monkeypatch, 9)
    with pytest.raises(KeyboardInterrupt):
        rankwise.train(cached(config), out=tmp_path / "cut")
    monkeypatch.undo()
    resumed = rankwise.train(cached(config), out=tmp_path / "cut", resume=True)
    assert equal(whole, resumed)
    assert (whole.result["sessions"], resumed.result["sessions"]) == ([0], [0, 9])


def tokens_of(config, role):
    texts = [line.rsplit(",", 1)[0] for line in Path(config["data"][role]).read_text("utf-8").splitlines()[1:]]
    return encode(texts, tokenizer_of(configuration.from_dict(config).model), 32)


def test_what_a_cached_run_scores_is_the_model_without_the_cache(config, tmp_path):
    run = rankwise.train(cached(config, train__learning_rate=2e-2), out=tmp_path / "run")
    assert run.result["reload"]["max_logit_difference"] < 1e-5
    lowest = min(int(name.split("layer.")[1].split(".")[0]) for name in weights(run) if "lora" in name)
    assert lowest == 1
    assert "without dropout" in "".join(rankwise.plan(cached(config, data__num_labels=3)).notes)


# --- refusals -----------------------------------------------------------------------------------------

IMPOSSIBLE = [
    ({"adapter.method": "ia3", "adapter.dora": True}, ["adapter.dora", "adapter.method: ia3"]),
    ({"adapter.method": "vera", "adapter.rslora": True}, ["adapter.rslora", "adapter.method: vera"]),
    ({"adapter.method": "head", "adapter.init": "pissa"}, ["adapter.init: pissa", "adapter.method: head"]),
    ({"adapter.method": "ia3", "adapter.bias": "all"}, ["adapter.bias: all", "adapter.method: ia3"]),
    ({"adapter.method": "bitfit", "train.loraplus_ratio": 4}, ["train.loraplus_ratio", "adapter.method: bitfit"]),
    ({"adapter.dora": True, "adapter.init": "olora"}, ["adapter.dora", "adapter.init: olora"]),
    ({"adapter.layers": [2]}, ["adapter.layers names layer 2", "model.name"]),
    ({"adapter.rank_pattern": {"0-5": 8}}, ["adapter.rank_pattern names layer 5", "model.name"]),
    ({"adapter.alpha_pattern": {"key": 8}}, ["adapter.alpha_pattern", "adapter.scope"]),
    ({"train.evaluate": False, "train.schedule": "plateau"}, ["train.schedule: plateau", "train.evaluate"]),
    ({"train.evaluate": False, "train.early_stopping": {}}, ["train.early_stopping", "train.evaluate"]),
    ({"train.momentum": 0.9, "train.optimizer": "adamw"}, ["train.momentum", "train.optimizer: adamw"]),
    ({"adapter.method": "adalora", "head.kind": "low_rank"}, ["head.kind: low_rank", "adapter.method: adalora"]),
    ({"adapter.init": "pissa", "adapter.rank": 40}, ["adapter.rank: 40", "adapter.init: pissa", "32 directions"]),
    (
        {"data.augment": {"sentence_shuffle": 0.5}, "data.preprocess": ["punctuation"]},
        ["data.augment: sentence_shuffle", "data.preprocess: punctuation"],
    ),
    ({"train.class_weights": [0, 0, 0]}, ["train.class_weights"]),
    ({"data.split_seed": -1}, ["data.split_seed"]),
    ({"train.seed": 2**32}, ["train.seed"]),
    ({"train.steps": None, "train.epochs": float("inf")}, ["train.epochs"]),
    ({"train.steps": 10, "train.epochs": 1}, ["train.steps", "train.epochs"]),
    ({"train.warmup_steps": 24}, ["train.warmup_steps is 24", "24 steps"]),
    ({"train.class_weights": [1, 2]}, ["train.class_weights has 2", "3 classes"]),
    ({"adapter.method": "full", "head.kind": "low_rank"}, ["head.kind: low_rank", "adapter.method: full"]),
    ({"adapter.method": "probe", "head.probe_first": True}, ["head.probe_first", "adapter.method: probe"]),
    ({"adapter.method": "probe", "data.augment": {"word_swap": 0.1}}, ["data.augment", "adapter.method: probe"]),
    ({"adapter.method": "adalora", "adapter.rank": 1}, ["adapter.rank: 1", "adapter.method: adalora"]),
    ({"model.precision": "fp16"}, ["model.precision: fp16", "GPU"]),
    ({"train.prefix_cache_mb": 8, "engine": "auto"}, ["train.prefix_cache_mb", "adapter.layers"]),
    (
        {"train.prefix_cache_mb": 8, "engine": "auto", "adapter.layers": [1], "adapter.bias": "all"},
        ["train.prefix_cache_mb", "adapter.bias"],
    ),
    ({"train.prefix_cache_mb": 8, "engine": "reference"}, ["train.prefix_cache_mb", "engine: fast"]),
    ({"train.prefix_cache_mb": 8, "data.augment": {"word_swap": 0.1}}, ["train.prefix_cache_mb", "data.augment"]),
]


@pytest.mark.parametrize(
    ("options", "named"), IMPOSSIBLE, ids=lambda value: " ".join(value) if isinstance(value, dict) else ""
)
def test_what_cannot_apply_is_refused_before_weights_load(config, tmp_path, monkeypatch, options, named):
    monkeypatch.setattr(building, "assembled", lambda *_, **__: pytest.fail("weights were read"))
    for key, value in options.items():
        configuration.set_key(config, key, value)
    with pytest.raises(UserError) as refused:
        rankwise.train(config, out=tmp_path / "run")
    for word in named:
        assert word in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_class_of_weight_zero_is_left_out_even_when_it_fills_a_batch(config, tmp_path):
    keys = {"train__class_weights": [1.0, 1.0, 0.0], "train__batch_size": 1, "adapter__dropout": 0.0}
    run = rankwise.train(with_keys(config, **keys, train__steps=30, train__eval_every=10), out=tmp_path / "run")
    assert all(np.isfinite(row["train_loss"]) for row in run.history)
    assert all(torch.isfinite(value).all() for value in weights(run).values())


@pytest.mark.sampled(2)
@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("keys", [{"adapter__init": "pissa"}, {"adapter__init": "olora"}, {"head__kind": "low_rank"}])
def test_what_is_saved_in_another_form_is_proven_in_bf16_too(config, tmp_path, engine, keys):
    tree = with_keys(config, **keys, model__precision="bf16", train__steps=6) | {"engine": engine}
    run = rankwise.train(tree, out=tmp_path / "run")
    assert run.result["status"] == "finished"
    assert run.result["reload"]["max_logit_difference"] < 1e-5
    assert run.result["engine"]["precision"] == "bf16"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize(
    "keys",
    [{}, {"model__precision": "bf16"}]
    + [
        {"model__precision": "bf16", **form}
        for form in ({"adapter__init": "pissa"}, {"adapter__init": "olora"}, {"head__kind": "low_rank"})
    ],
    ids=lambda keys: " ".join(map(str, keys.values())) or "fp32",
)
def test_an_adapter_lost_on_the_way_to_the_file_is_no_success(config, tmp_path, monkeypatch, engine, keys):
    tensors_of = execution.adapter_file.tensors_of

    def without_update(model):
        return {name: value * ("lora_B" not in name) for name, value in tensors_of(model).items()}

    monkeypatch.setattr(execution.adapter_file, "tensors_of", without_update)
    with pytest.raises(RuntimeError, match="does not repeat the live model"):
        rankwise.train(with_keys(config, **keys, train__steps=6) | {"engine": engine}, out=tmp_path / "run")
    assert rankwise.Run(tmp_path / "run").result["status"] == "failed"


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize(
    "keys",
    [{}, {"model__precision": "bf16", "adapter__init": "pissa"}],
    ids=["the run's own form", "compared in fp32"],
)
def test_never_two_bases_in_memory_at_the_proof(config, tmp_path, monkeypatch, engine, keys):
    built, alive = [], []
    build, classifier_of, load = building.assembled, building.classifier_of, proof.load_classifier

    def watched(*words, **options):
        alive.append(sum(reference() is not None for reference in built))
        model = build(*words, **options)
        built.append(weakref.ref(model))
        return model

    def networks(*words, **options):
        network = classifier_of(*words, **options)
        built.append(weakref.ref(network))
        return network

    def loaded(*words, **options):
        alive.append(sum(reference() is not None for reference in built))
        return load(*words, **options)

    monkeypatch.setattr(building, "assembled", watched)
    monkeypatch.setattr(building, "classifier_of", networks)
    monkeypatch.setattr(proof, "load_classifier", loaded)
    run = rankwise.train(with_keys(config, **keys, train__steps=6) | {"engine": engine}, out=tmp_path / "run")
    assert run.result["status"] == "finished"
    assert len(alive) == (2 if not keys else 4)
    assert set(alive) == {0}


@pytest.mark.parametrize("method", ["lora", "probe", "prefix", "full"])
def test_a_run_without_validation_ends_with_its_last_weights(config, tmp_path, method):
    tree = with_keys(config, train__evaluate=False, adapter__method=method, budget__max_trainable=None)
    run = rankwise.train(tree, out=tmp_path / "run")
    assert run.result["status"] == "finished"
    assert set(run.result["metrics"]) == {"train_sample"}
    assert rankwise.load(run).predict(["the team"])[0] in ("sport", "business", "science")
