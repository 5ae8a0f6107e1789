"""What must hold of the engine beyond parity: dropout, precision, independence of batch mates, resuming."""

from __future__ import annotations

import copy
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.parity import adapted, distance, engine, error, families, modules, padded, reference, texts, tiny
from rankwise.engine import FastClassifier
from rankwise.engine.dropout import Stream
from rankwise.engine.frozen import FrozenLinear, can_pack
from rankwise.engine.linear import Site
from rankwise.machine import memory

ROWS, COLUMNS = 1500, 768


def stream(seed: int = 0, step: int = 0) -> Stream:
    made = Stream(seed, COLUMNS)
    made.set_step(step)
    made.begin(torch.device("cpu"))
    return made


# --- dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_dropout_drops_its_rate_and_scales_the_rest(rate):
    values = stream().mask(ROWS, COLUMNS, rate).multiplier()
    assert set(values.unique().tolist()) == {0.0, np.float32(1 / (1 - rate))}
    share = (values == 0).double()
    spread = (rate * (1 - rate)) ** 0.5
    assert abs(share.mean() - rate) < 4 * spread / (ROWS * COLUMNS) ** 0.5
    # Rows and columns scatter as coin tosses do: neither is favoured, neither is too even.
    for axis, count in ((0, ROWS), (1, COLUMNS)):
        deviations = (share.mean(axis) - rate) / (spread / count**0.5)
        assert 0.85 < deviations.std() < 1.15
        assert deviations.abs().max() < 5


def test_dropout_is_independent_between_rows_columns_and_masks():
    made = stream()
    first, second = (made.mask(ROWS, COLUMNS, 0.1).multiplier() == 0 for _ in range(2))
    first, second = first.double() - 0.1, second.double() - 0.1
    size = ROWS * COLUMNS
    pairs = {
        "next row": first[1:] * first[:-1],
        "next column": first[:, 1:] * first[:, :-1],
        "two columns on": first[:, 2:] * first[:, :-2],
        "another mask": first * second,
        # The hash is a product, so four corners of a rectangle are where structure would show.
        "corners": first[1:, 1:] * first[1:, :-1] * first[:-1, 1:] * first[:-1, :-1],
    }
    for name, product in pairs.items():
        spread = 0.09 ** (2 if name == "corners" else 1)
        assert abs(product.mean()) < 4.5 * spread / size**0.5, name


def test_dropout_is_a_function_of_seed_and_step():
    def drawn(seed, step):
        return stream(seed, step).mask(40, 30, 0.3).multiplier()

    assert torch.equal(drawn(1, 5), drawn(1, 5))
    assert not torch.equal(drawn(1, 5), drawn(1, 6))
    assert not torch.equal(drawn(1, 5), drawn(2, 5))
    made = stream(1, 5)
    made.begin(torch.device("cpu"))  # a second forward pass of the step
    assert not torch.equal(made.mask(40, 30, 0.3).multiplier(), drawn(1, 5))


def test_query_and_value_draw_masks_of_their_own():
    peft = adapted(tiny("roberta"), modules("roberta", "query", "value"), lora_dropout=0.5)
    classifier = FastClassifier.from_peft(peft, precision="fp32").train()
    seen = []
    draw = classifier.stream.mask
    classifier.stream.mask = lambda *shape: seen.append(draw(*shape)) or seen[-1]
    classifier(classifier.collate(texts()))
    adapters = [mask for mask in seen if mask is not None]
    assert len(adapters) == 2 * 3
    assert not any(torch.equal(one.rows[:6], other.rows[:6]) for one, other in itertools.pairwise(adapters))


KINDS = {
    "A": "lora_A",
    "B": "lora_B",
    "magnitude": "magnitude",
    "bias": ".sites.",
    "norm": "norm",
    "head": "classifier.",
}


def kind_of(name):
    return next((kind for kind, part in KINDS.items() if part in name), "embeddings")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dora", [False, True])
@families
def test_gradients_with_dropout_match_finite_differences(model_type, dora, monkeypatch):
    targets = modules(model_type, "query", "value", "attention_output", "ffn_in", "ffn_out")
    peft = adapted(tiny(model_type, dropout=True), targets, lora_dropout=0.2, use_dora=dora, bias="all")
    classifier = FastClassifier.from_peft(peft, precision="fp32").train()
    classifier.classifier.activation = torch.tanh  # DistilBERT's has a kink, which differences step over
    batch = classifier.collate(texts())
    gain, norms = Site.gain, {}

    def with_constant_norm(site, frozen, precision):
        # DoRA's norm counts as a constant in the gradient: it must be one in the differences too.
        if site not in norms:
            norms[site] = site.there("magnitude") / gain(site, frozen, precision)
        return site.there("magnitude") / norms[site]

    monkeypatch.setattr(Site, "gain", with_constant_norm)

    def loss() -> torch.Tensor:
        classifier.set_step(3)
        return classifier(batch).double().square().sum()

    named = dict(classifier.named_parameters())
    gradients = dict(zip(named, torch.autograd.grad(loss(), list(named.values())), strict=True))
    torch.manual_seed(2)
    kinds = {kind_of(name) for name in named}
    assert kinds >= {"A", "B", "bias", "norm", "head"} | ({"magnitude"} if dora else set())
    for kind in sorted(kinds):  # each in a direction of its own, which owes nothing to the gradient that is judged
        moved = {name: torch.randn_like(value) * value.std().clamp(min=0.1) for name, value in named.items()
                 if kind_of(name) == kind}  # fmt: skip
        expected = sum(float((gradients[name].double() * direction).sum()) for name, direction in moved.items())
        # Five points: the loss is rounded to 1e-5 of itself, so they must lie apart, and curvature must not count.
        step = 6e-2 / sum(float(direction.norm() ** 2) for direction in moved.values()) ** 0.5
        values = {}
        for places in (1, 2, -1, -2):
            with torch.no_grad():
                for name, direction in moved.items():
                    named[name] += places * step * direction
                values[places] = float(loss())
                for name, direction in moved.items():
                    named[name] -= places * step * direction
        found = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)
        assert found == pytest.approx(expected, rel=0.02, abs=0.01), kind


def test_dropout_acts_in_training_only():
    peft = adapted(tiny("mpnet", dropout=True), modules("mpnet", "query"), lora_dropout=0.1)
    theirs = copy.deepcopy(peft).eval()
    classifier = FastClassifier.from_peft(peft, precision="fp32")
    batch = classifier.collate(texts())
    training = [classifier.train()(batch) for _ in range(2)]
    assert not torch.equal(*training)
    expected = theirs(**padded(texts(), 1)).logits
    assert error(classifier.eval()(batch), expected) < 1e-5


# --- precision ----------------------------------------------------------------------------------------


@families
def test_bf16_is_no_further_from_fp32_than_autocast(model_type):
    """The distance of logits and gradients from fp32, its mean over models: ours and autocast's."""
    ours, theirs = [], []
    for seed in range(6):
        model = tiny(model_type, seed=seed, initializer_range=0.1, num_hidden_layers=4, n_layers=4)
        peft = adapted(model, modules(model_type, "query", "value"), use_dora=seed % 2 == 1)
        rows = texts((30, 25, 12, 30, 7, 19, 22, 8) * 4)
        exact = reference(peft, rows)
        ours.append(distance(engine(peft, rows, "bf16"), exact))
        theirs.append(distance(reference(peft, rows, autocast=True), exact))
    print(f"{model_type}: distance of bf16 from fp32: engine {np.mean(ours):.4f}, autocast {np.mean(theirs):.4f}")
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.skipif(not can_pack(torch.zeros(8, 8, dtype=torch.bfloat16)), reason="no bf16 products to pack for here")
def test_packed_weights_change_nothing_but_rounding(monkeypatch):
    peft = adapted(tiny("bert"), modules("bert", "query", "value"))
    made = FastClassifier.from_peft(copy.deepcopy(peft), precision="bf16")
    assert all(one._packed is not None for one in made.modules() if isinstance(one, FrozenLinear))
    packed = engine(peft, texts(), "bf16").tensors()
    monkeypatch.setattr("rankwise.engine.frozen.can_pack", lambda weight: False)
    plain = engine(peft, texts(), "bf16").tensors()
    assert all(error(packed[name], value) < 0.03 for name, value in plain.items())


# --- independence -------------------------------------------------------------------------------------


@families
def test_a_text_does_not_depend_on_its_batch_mates(model_type):
    peft = adapted(tiny(model_type), modules(model_type, "query", "value"))
    classifier = FastClassifier.from_peft(peft, precision="fp32").eval()
    rows = texts()
    together = classifier(classifier.collate(rows))
    for number, row in enumerate(rows):
        alone = classifier(classifier.collate([row]))
        assert error(alone[0], together[number]) < 1e-5
    backwards = classifier(classifier.collate(rows[::-1]))
    assert error(backwards.flip(0), together) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_flow_through_inference_and_back(precision):
    """Evaluation between steps changes nothing: same step, same logits."""
    peft = adapted(tiny("bert", dropout=True), modules("bert", "query"))
    classifier = FastClassifier.from_peft(peft, precision=precision)
    batch = classifier.collate(texts())
    classifier.train().set_step(7)
    before = classifier(batch)
    with torch.inference_mode():
        classifier.eval()(batch)
    classifier.train().set_step(7)
    after = classifier(batch)
    assert torch.equal(before, after)
    after.sum().backward()


@pytest.mark.parametrize("dora", [False, True])
def test_no_gradient_is_computed_that_nothing_below_needs(dora, monkeypatch):
    """Query, key and value of the first layer read what nothing trains, each for itself (DoRA) or as one."""
    peft = adapted(tiny("roberta"), modules("roberta", "query", "value"), use_dora=dora)
    classifier = FastClassifier.from_peft(peft, precision="fp32").train()
    seen, backward = [], FrozenLinear.backward
    monkeypatch.setattr(FrozenLinear, "backward", lambda one, work: seen.append(one) or backward(one, work))
    classifier(classifier.collate(texts())).sum().backward()
    first, last = ([sites.frozen for sites in layer.sources] for layer in (classifier.layers[0], classifier.layers[-1]))
    assert not set(first) & set(seen)
    assert set(last) <= set(seen)
    assert classifier.layers[0].ffn_in.frozen in seen


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux says it")
def test_what_was_read_of_a_mapped_file_is_taken_off_the_process_unless_it_was_written_to(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(1_000_000)}, path)

    def resident(address):
        lines = Path("/proc/self/smaps").read_text().splitlines()
        inside, sizes = False, []
        for line in lines:
            bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if bounds is not None:
                inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
            elif inside and line.startswith("Rss:"):
                sizes.append(int(line.split()[1]))
        return sum(sizes)

    read, written = load_file(path)["weight"], load_file(path)["weight"]
    written[5] = 2.0
    assert float(read.sum()) == 1_000_000
    before = [resident(one.data_ptr()) for one in (read, written)]
    assert before[0] > 3_000
    memory.unload_mapped_files([read.data_ptr() + 8, written.data_ptr() + 8])
    assert resident(read.data_ptr()) < 100
    assert float(written[5]) == 2.0
    assert float(read.sum()) == 1_000_000
