"""Other ways into the engine: the prefix cache, real weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engine.parity import (
    adapted,
    assert_parity,
    distance,
    engine,
    error,
    modules,
    reference,
    result_of,
    texts,
    tiny,
)
from rankwise.engine import FastClassifier
from rankwise.errors import UserError
from rankwise.machine.precision import fastest

# --- the frozen prefix --------------------------------------------------------------------------------


def upper(model_type="roberta", **options):
    """A model whose lowest layer carries no adapter."""
    return adapted(tiny(model_type, **options), modules(model_type, "query", "value"), layers_to_transform=[1, 2])


def test_cached_prefix_gives_the_same_gradients(tmp_path):
    peft = upper()
    exact = engine(peft, texts()).tensors()
    cached_model = copy.deepcopy(peft)
    classifier = FastClassifier.from_peft(cached_model, precision="fp32").train()
    assert classifier.frozen_layers == 1
    classifier.cache_prefix(tmp_path)
    for computes in (True, False):  # computed, then read; the prefix alone is rounded to bf16
        batch = classifier.collate(texts())
        if not computes:
            classifier.layers[0].forward = lambda *_: pytest.fail("a frozen layer was computed")
        ours = result_of(cached_model, classifier(batch)).tensors()
        assert max(error(ours[name], value) for name, value in exact.items()) < 0.03


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cached_prefix_is_computed_once_and_reused_by_the_next_trial(tmp_path, monkeypatch, precision):
    first = FastClassifier.from_peft(upper(), precision=precision)
    first.cache_prefix(tmp_path)
    logits = first.eval()(first.collate(texts()))
    second = FastClassifier.from_peft(upper(), precision=precision)
    cache = second.cache_prefix(tmp_path)
    assert len(cache) == len(texts())
    monkeypatch.setattr(second, "_prefix", lambda rows: pytest.fail("computed again"))
    assert torch.equal(second.eval()(second.collate(texts())), logits)
    # In another order a text has other rows, which a processor's library may sum otherwise: bit for bit on some only.
    reversed_logits = second(second.collate(texts()[::-1])).flip(0)
    assert error(reversed_logits, logits) < {"fp32": 1e-6, "bf16": 0.01}[precision]


def test_cached_prefix_keeps_to_its_budget(tmp_path):
    classifier = FastClassifier.from_peft(upper()).eval()
    expected = classifier(classifier.collate(texts()))
    megabytes = 30 * 32 * 2 / 2**20  # room for thirty tokens of width 32
    cache = classifier.cache_prefix(tmp_path, max_mb=megabytes)
    logits = classifier(classifier.collate(texts()))
    assert 0 < len(cache) < len(texts())
    assert error(logits, expected) < 0.03
    assert sum(file.stat().st_size for file in tmp_path.rglob("rows.bf16")) <= megabytes * 2**20


def test_one_writes_the_cache_and_the_others_read_what_it_has_stored(tmp_path):
    first, second = FastClassifier.from_peft(upper()).eval(), FastClassifier.from_peft(upper()).eval()
    writer, reader = first.cache_prefix(tmp_path), second.cache_prefix(tmp_path)
    assert (writer.writes, reader.writes) == (True, False)
    second.collate(texts()[:2])
    assert len(reader) == 0
    first.collate(texts()[:2])
    expected = second(second.collate(texts()))  # two read, the rest computed
    assert len(reader) == 2
    assert torch.equal(first(first.collate(texts())), expected)
    first.forget_prefix()
    third = FastClassifier.from_peft(upper()).eval()
    assert third.cache_prefix(tmp_path).writes


def test_other_texts_make_way_for_a_run_that_needs_the_room(tmp_path):
    megabytes = sum(len(text) for text in texts()) * 32 * 2 / 2**20  # of width 32
    first, others = FastClassifier.from_peft(upper()).eval(), [text[::-1].copy() for text in texts()]
    cache = first.cache_prefix(tmp_path, max_mb=megabytes)
    expected = first(first.collate(texts()))
    cache.make_room(texts())  # all there: nothing is forgotten
    assert len(cache) == len(texts())
    first.forget_prefix()
    second, reader = FastClassifier.from_peft(upper()).eval(), FastClassifier.from_peft(upper()).eval()
    writing, reading = second.cache_prefix(tmp_path, max_mb=megabytes), reader.cache_prefix(tmp_path)
    writing.make_room(others)
    assert len(writing) == 0
    second.collate(others)
    assert len(writing) == len(others)
    assert torch.equal(reader(reader.collate(texts())), expected)  # what it had mapped is still its own
    assert len(reading) == len(texts())
    assert len(list(tmp_path.rglob("rows.bf16"))) == 1


def test_a_record_cut_short_by_a_kill_is_dropped(tmp_path):
    first = FastClassifier.from_peft(upper()).eval()
    first.cache_prefix(tmp_path)
    expected = first(first.collate(texts()))
    first.forget_prefix()
    (index,) = tmp_path.rglob("index")
    index.write_bytes(index.read_bytes()[:-5])
    for _ in range(2):  # stores the lost text again, then reads it
        again = FastClassifier.from_peft(upper()).eval()
        cache = again.cache_prefix(tmp_path)
        assert torch.allclose(again(again.collate(texts())), expected, atol=0.02)
        again.forget_prefix()
        assert len(cache) == len(texts())


def test_without_a_frozen_prefix_there_is_nothing_to_cache():
    classifier = FastClassifier.from_peft(adapted(tiny("bert"), modules("bert", "query")))
    with pytest.raises(UserError, match="no frozen prefix"):
        classifier.cache_prefix()


# --- real weights -------------------------------------------------------------------------------------


MINILM, MPNET = "packaged:all-MiniLM-L6-v2", "packaged:all-mpnet-base-v2"
ROWS = texts((40, 12, 25, 33), vocabulary=20000)
SENTENCES = [
    "Shares in the bank fell sharply on Tuesday after it cut its forecast for the year and warned that bad loans would rise.",
    "The striker scored twice in the last ten minutes.",
    "Scientists said the telescope had found a planet about the size of Earth in the habitable zone of a nearby star.",
    "A new phone with a folding screen goes on sale next month, its maker said, at a price that few will pay for it.",
]


def sentences_of(name):
    """Token ids of sentences: on words at random a base's attention hangs by a thread, and any rounding is far off."""
    from rankwise.models import tokenizer_of
    from rankwise.packaged import fetch

    try:
        return [np.array(ids) for ids in tokenizer_of(fetch(name))(SENTENCES)["input_ids"]]
    except UserError as error_:
        pytest.skip(f"{name} is not to be had: {error_}")


def real(name, seed):
    """A packaged encoder with a new head, and adapters that are not zero."""
    from rankwise.packaged import fetch

    try:
        folder = fetch(name)
    except UserError as error_:
        pytest.skip(f"{name} is not to be had: {error_}")
    torch.manual_seed(seed)  # of the head, which no file holds
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    peft = adapted(model, modules(model.config.model_type, "query", "value"))
    for parameter_name, value in peft.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(value, 0.0, 0.01)
    return peft


@pytest.mark.slow
@pytest.mark.parametrize("name", [MINILM, MPNET])
def test_real_weights_in_fp32(name):
    assert_parity(real(name, seed=0), ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [MINILM, MPNET])
def test_real_weights_in_bf16_are_no_further_from_fp32_than_autocast(name):
    if name == MPNET and fastest() == "fp32":
        pytest.skip("this machine has no bf16 instructions: auto computes in fp32, and a base in bf16 takes minutes")
    ours, theirs, rows = [], [], sentences_of(name)
    for seed in range(5):
        peft = real(name, seed)
        exact = reference(peft, rows)
        ours.append(distance(engine(peft, rows, "bf16"), exact))
        theirs.append(distance(reference(peft, rows, autocast=True), exact))
    for of in (np.mean, np.median):
        print(f"{name}: {of.__name__} distance of bf16 from fp32: engine {of(ours):.4f}, autocast {of(theirs):.4f}")
        assert of(ours) <= of(theirs)
