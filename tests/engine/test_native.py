"""Every backend that can run here against the engine in plain torch, which is held to transformers and peft elsewhere."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.parity import (
    TOLERANCE,
    adapted,
    distance,
    engine,
    error,
    modules,
    reference,
    result_of,
    texts,
    tiny,
)
from rankwise.encoders import FAMILIES
from rankwise.engine import FastClassifier
from rankwise.engine.frozen import FrozenLinear
from rankwise.engine.native import backend as backends
from rankwise.engine.native import building, library
from rankwise.engine.native.backend import Backend
from rankwise.machine import caches
from rankwise.machine.isa import ISAS

HERE = Path(__file__).parent


def there(name):
    """Whether a backend runs here."""
    if ISAS[name].missing() is not None:
        return False
    try:
        return backends.named(name) is not None
    except library.UnavailableError:
        return False


RUNNING = [name for name in ISAS if ISAS[name].precision != "int8" and there(name)]  # int8: test_int8.py
BF16 = [name for name in RUNNING if ISAS[name].precision == "bf16"]
FP32 = [name for name in RUNNING if ISAS[name].precision == "fp32"]
# Layers with gelu; ALBERT's is the approximate one.
families = pytest.mark.parametrize(
    "model_type",
    [name for name in FAMILIES if name != "albert"],
)
each = pytest.mark.parametrize("name", RUNNING)
each_bf16 = pytest.mark.parametrize("name", BF16)
each_fp32 = pytest.mark.parametrize("name", FP32)
# Widths that tiles take; lengths around their borders.
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "dim": 64, "n_heads": 2, "hidden_dim": 96}
WIDE |= {"max_position_embeddings": 140, "initializer_range": 0.1}
LENGTHS = (3, 70, 33, 100, 64, 31, 32, 9, 17, 1, 65, 12)
EVERYWHERE = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


def adapted_wide(model_type, words=("query", "value"), *, dropout=False, seed=0, **options):
    more = dict(WIDE) if model_type == "distilbert" else {k: v for k, v in WIDE.items() if k not in ("dim", "n_heads")}
    return adapted(tiny(model_type, dropout=dropout, seed=seed, **more), modules(model_type, *words), **options)


def made(peft, name, precision=None):
    """A classifier whose layers a backend computes (or torch, in a precision)."""
    backend = name if name == "torch" or isinstance(name, Backend) else backends.named(name)
    precision = precision or backend.isa.precision
    classifier = FastClassifier.from_peft(copy.deepcopy(peft), precision=precision, backend=backend, seed=7).train()
    assert classifier.computes_with == (name if isinstance(name, str) else name.isa.name)
    # DistilBERT's head is rectified: a unit that rounding turns on or off would drown what is measured.
    classifier.classifier.activation = torch.tanh
    return classifier


def result(peft, name, precision=None, *, lengths=LENGTHS):
    classifier = made(peft, name, precision)
    classifier.set_step(3)
    return result_of(classifier, classifier(classifier.collate(texts(lengths))))


def plain(peft, name, *, lengths=LENGTHS):
    """What torch makes of it in a backend's precision."""
    return result(peft, "torch", ISAS[name].precision, lengths=lengths)


def bound(name):
    """How far a backend may be from torch: bf16 rounds what is between in another order."""
    return 0.05 if name in BF16 else TOLERANCE["fp32"]


def assert_equal(ours, exact):
    """Logits, loss and every gradient, whole tensors, to the tolerance of fp32."""
    scale = max(float(value.norm()) for name, value in exact.gradients.items())
    for name, value in exact.tensors().items():
        if float(value.norm()) > 1e-5 * scale:  # but for a key's bias, whose gradient is rounding as softmax ignores it
            assert error(ours.tensors()[name], value) < TOLERANCE["fp32"], name


OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"words": EVERYWHERE, "r": 40, "bias": "all"},
        {"words": EVERYWHERE, "use_dora": True},
        {"lora_dropout": 0.2, "use_dora": True},
    ],
    ids=["query and value", "everywhere, rank 40, biases", "DoRA everywhere", "DoRA, dropped"],
)


@each_bf16
@families
def test_no_further_from_fp32_than_autocast(model_type, name):
    ours, theirs = [], []
    for seed in range(4):
        peft = adapted_wide(model_type, seed=seed, use_dora=seed % 2 == 1)
        rows = texts(LENGTHS)
        exact = reference(peft, rows)
        ours.append(distance(engine(peft, rows, "bf16", backend=backends.named(name)), exact))
        theirs.append(distance(reference(peft, rows, autocast=True), exact))
    print(f"{model_type}: distance of bf16 from fp32: kernels {np.mean(ours):.4f}, autocast {np.mean(theirs):.4f}")
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.sampled(8)
@each_bf16
@OPTIONS
@families
def test_with_dropout_no_further_from_fp32_than_plain_torch(model_type, options, name):
    """fp32 and both ways in bf16 draw the same masks, so they differ by rounding alone. Medians of three models."""
    assert_rounding_alone(backends.named(name), model_type, options)


def assert_rounding_alone(backend, model_type, options):
    exact, plain, ours = [], [], []
    for seed in range(3):
        peft = adapted_wide(model_type, dropout=True, seed=seed, **{"lora_dropout": 0.1, **options})
        exact.append(result(peft, "torch", "fp32"))
        plain.append(result(peft, "torch", "bf16"))
        ours.append(result(peft, backend))
    of_plain, of_ours = ([distance(*pair) for pair in zip(found, exact, strict=True)] for found in (plain, ours))
    assert min(of_plain) > 1e-4  # rounding there is
    assert np.median(of_ours) < 1.25 * np.median(of_plain)
    for name, value in exact[0].tensors().items():
        if float(value.norm()) > 1e-4:  # but for a key's bias, whose gradient is rounding as softmax ignores it
            pairs = zip(ours, exact, strict=True)
            assert np.median([error(one.tensors()[name], right.tensors()[name]) for one, right in pairs]) < 0.1, name


@pytest.mark.sampled(44)
@each_fp32
@OPTIONS
@families
def test_fp32_equals_plain_torch_with_dropout(model_type, options, name):
    peft = adapted_wide(model_type, dropout=True, **{"lora_dropout": 0.1, **options})
    assert_equal(result(peft, name), result(peft, "torch", "fp32"))


@each_fp32
@pytest.mark.parametrize(
    "more",
    [
        {"classifier_pooling": "mean", "local_attention": 62},
        {"classifier_pooling": "cls", "local_attention": 2, "global_attn_every_n_layers": 2},
        {"norm_bias": False, "attention_bias": False, "mlp_bias": False, "classifier_pooling": "cls"},
    ],
    ids=["a window about the blocks' size", "first tokens, a window of three", "no biases"],
)
def test_norms_first_with_every_mask_and_window(more, name):
    rates = {"attention_dropout": 0.1, "mlp_dropout": 0.2, "embedding_dropout": 0.1}
    model = tiny("modernbert", dropout=True, **{**WIDE, **rates, **more})
    peft = adapted(model, modules("modernbert", *EVERYWHERE), lora_dropout=0.1)
    assert_equal(result(peft, name), result(peft, "torch", "fp32"))


@each_fp32
@pytest.mark.parametrize(
    "more",
    [
        {"pos_att_type": "c2p", "norm_rel_ebd": "none"},
        {"pos_att_type": ["p2c"], "position_buckets": -1, "max_relative_positions": 6},
        {"position_buckets": 40, "max_relative_positions": 90},
    ],
    ids=["by key, no norm", "by query, far ones alike", "far ones by logarithm"],
)
def test_distances_of_every_kind(more, name):
    model = tiny("deberta-v2", dropout=True, **{**WIDE, **more})
    peft = adapted(model, modules("deberta-v2", *EVERYWHERE), lora_dropout=0.1, bias="all")
    assert_equal(result(peft, name), result(peft, "torch", "fp32"))


@OPTIONS
@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert", "deberta-v2"])
def test_the_unit_for_matrix_units_rounds_alone(model_type, options, matrix_units):
    assert_rounding_alone(matrix_units, model_type, options)


@pytest.mark.parametrize("lengths", [(1,), (31, 33), (96,) * 3])
def test_the_unit_for_matrix_units_takes_any_number_of_tokens(lengths, matrix_units):
    peft = adapted_wide("mpnet", EVERYWHERE, dropout=True, lora_dropout=0.1)
    exact = result(peft, "torch", "bf16", lengths=lengths)
    assert distance(result(peft, matrix_units, lengths=lengths), exact) < 0.05


@pytest.mark.parametrize("unit", building.MACHINES["x86_64"])
def test_every_unit_compiles_without_a_warning_and_shares_no_variable(unit):
    if (
        building.compiler() is None
        or not building.is_known_system()
        or unit not in building.MACHINES[os.uname().machine]
    ):
        pytest.skip("no compiler for it here")
    flags = ["-O0", "-Wall", "-Wextra", "-Werror"]
    library_of_unit = building.kept(building.compiler(), unit, caches.cache("compared"), flags)
    if shutil.which("nm"):  # a variable that units share by name has the value of the one that was loaded first
        command = ["nm", "-D", "--defined-only", library_of_unit]
        named = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "forward_pass" in named
        assert " u " not in named


@each
def test_other_masks_would_be_seen(name):
    """What the test above would say of a mask that is not its own."""
    peft = adapted_wide("bert", dropout=True, lora_dropout=0.1)
    one, other = (made(peft, name) for _ in range(2))
    one.set_step(3)
    other.set_step(4)
    first, second = (result_of(made_, made_(made_.collate(texts(LENGTHS)))) for made_ in (one, other))
    assert distance(first, second) > 0.2


@pytest.mark.sampled(6)
@each
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (1, 1, 1), (32,), (31, 33), (96,) * 5, (128, 2)])
def test_any_number_of_tokens(lengths, use_dora, name):
    peft = adapted_wide("mpnet", EVERYWHERE, dropout=True, lora_dropout=0.1, use_dora=use_dora)
    assert distance(result(peft, name, lengths=lengths), plain(peft, name, lengths=lengths)) < bound(name)


@each
def test_adapters_in_some_layers_biases_alone_and_nothing_at_all(name):
    """Whatever trains, its gradients are there; what lies below it is left alone."""
    for options in ({"layers_to_transform": [1]}, {"layers_to_transform": [0]}, {"bias": "all"}):
        for peft in (adapted_wide("bert", ("query",), **options), adapted_wide("bert", ("ffn_out",), **options)):
            assert distance(result(peft, name), plain(peft, name)) < bound(name)
    classifier = made(adapted_wide("bert"), name)
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    assert not classifier(classifier.collate(texts(LENGTHS))).requires_grad


@each
def test_copies_compute_with_their_own_tensors(name):
    classifier = made(adapted_wide("bert"), name)
    batch = classifier.collate(texts(LENGTHS))
    before = classifier(batch)
    copied = copy.deepcopy(classifier)
    with torch.no_grad():
        for parameter in classifier.layers.parameters():
            parameter.add_(1.0)
    assert torch.equal(copied(batch), before)
    assert not torch.equal(classifier(batch), before)


@each
def test_what_trains_may_change_after_the_first_pass(name):
    classifier = made(adapted_wide("bert", bias="all"), name)
    batch = classifier.collate(texts(LENGTHS))
    chosen = next(classifier.layers[1].parameters())
    chosen.requires_grad_(False)
    classifier(batch).sum().backward()
    assert chosen.grad is None
    chosen.requires_grad_(True)
    classifier(batch).sum().backward()
    assert chosen.grad is not None


@each
def test_tensors_that_take_the_place_of_others_are_seen(name):
    """As `nn.utils.vector_to_parameters` does; norms' and joint biases among them."""
    classifier = made(adapted_wide("bert", EVERYWHERE, bias="all", use_dora=True), name)
    batch = classifier.collate(texts(LENGTHS))
    before = classifier(batch)
    for parameter in classifier.layers.parameters():
        parameter.data = parameter.data + 0.5
    assert torch.equal(classifier(batch), copy.deepcopy(classifier)(batch))
    assert not torch.equal(classifier(batch), before)


@each
@pytest.mark.parametrize("options", [{}, {"words": EVERYWHERE, "bias": "all"}], ids=["adapters", "biases too"])
def test_passes_may_be_open_at_one_time_and_threads_may_share_a_model(options, name):
    classifier = made(adapted_wide("bert", **options), name)
    batches = [classifier.collate(texts(lengths)) for lengths in (LENGTHS, (5, 40), (100, 31, 64))]

    def gradients(both_open):
        classifier.zero_grad()
        losses = (classifier(batch).sum() for batch in batches)
        losses = list(losses) if both_open else losses
        for loss in losses:
            loss.backward()
        return [parameter.grad.clone() for parameter in classifier.parameters()]

    assert all(map(torch.equal, gradients(both_open=True), gradients(both_open=False)))
    expected = [classifier(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            assert all(map(torch.equal, pool.map(classifier, batches), expected))


@each
def test_parameters_that_change_before_the_backward_pass_are_seen(name):
    classifier = made(adapted_wide("bert"), name)
    loss = classifier(classifier.collate(texts(LENGTHS))).sum()
    with torch.no_grad():
        next(classifier.layers[1].parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@each
def test_the_number_of_threads_changes_no_bit(name):
    peft, threads = adapted_wide("roberta", EVERYWHERE, dropout=True, lora_dropout=0.1), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(result(peft, name).tensors())
    finally:
        torch.set_num_threads(threads)
    first, *others = found
    for other in others:  # the head's gradients are torch's, whose sums may be split
        assert all(torch.equal(other[name], value) for name, value in first.items() if "classifier" not in name)


@each
def test_panels_give_their_matrix_back_and_moving_keeps_the_weights(name):
    backend = backends.named(name)
    weights = [torch.randn(32, 64).to(backend.precision), torch.randn(64, 64).to(backend.precision)]
    assert torch.equal(backend.unpack(backend.pack(weights), 64, 96), torch.cat(weights))
    linear = FrozenLinear(weights, backend.precision)
    linear.lay_out(backend)
    x, grad = torch.randn(40, 64).to(backend.precision), torch.randn(40, 96).to(backend.precision)
    before = linear(x), linear.backward(grad)
    packed = linear._packed
    assert (packed is not None) is backend.packs
    linear.to(torch.device("cpu"))  # moved nowhere: packed it stays
    assert linear._packed is packed
    linear.double().to(backend.precision)  # away and back
    assert linear._packed is None
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip((linear(x), linear.backward(grad)), before, strict=True)
    )
    expected = x.float() @ torch.cat(weights).float().t()
    assert error(before[0].float(), expected) < (5e-3 if name in BF16 else 1e-6)


@each
@pytest.mark.parametrize(("rows", "d_in"), [((96, 320), 3072), ((1024, 2048), 416)])
def test_deep_products_of_several_parts_are_exact(rows, d_in, name):
    """Deeper than a piece, wider than a part; the deep one is that of the first pass or of the second."""
    backend = backends.named(name)
    weights = [torch.randn(count, d_in).to(backend.precision) for count in rows]
    linear = FrozenLinear(weights, backend.precision)
    linear.lay_out(backend)
    x, grad = (torch.randn(40, width).to(backend.precision) for width in (d_in, sum(rows)))
    whole, bound = torch.cat(weights).double(), 5e-3 if name in BF16 else 2e-6
    assert error(linear(x), x.double() @ whole.t()) < bound
    assert error(linear.backward(grad), grad.double() @ whole) < bound


@each
def test_gelu_and_its_slope_are_exact(name):
    backend = backends.named(name)
    x = torch.linspace(-9, 9, 4096).to(backend.precision).view(64, 64)
    found, found_slope = torch.empty_like(x), torch.empty_like(x)
    backend.call("gelu_of_all", x.data_ptr(), *x.shape, found.data_ptr(), found_slope.data_ptr())
    wide = x.double().requires_grad_()
    exact = torch.nn.functional.gelu(wide)
    (slope,) = torch.autograd.grad(exact.sum(), wide)
    exact, step = exact.detach(), 2**-8 if name in BF16 else 2**-20
    assert float((found.double() - exact).abs().max()) <= step * 9
    far = exact.abs() > 1e-5  # below it the polynomial's own error of 1e-7 begins to show
    assert float(((found.double() - exact) / exact)[far].abs().max()) < (2**-7 if name in BF16 else 0.02)
    assert float((found_slope.double() - slope).abs().max()) < max(2 * step, 1e-6)


@each
def test_what_is_not_a_number_stays_so(name):
    """A diverged run must be seen."""
    classifier = made(adapted_wide("mpnet"), name)
    for parameter in classifier.layers[0].parameters():
        parameter.data.fill_(torch.nan)
    assert classifier(classifier.collate(texts(LENGTHS))).isnan().all()
