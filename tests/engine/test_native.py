"""Our own kernels (AMX) against the engine in plain torch, which is held to transformers and peft elsewhere."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from engine.parity import adapted, distance, engine, error, families, modules, reference, result_of, texts, tiny
from rankwise.engine import FastClassifier
from rankwise.engine.frozen import FrozenLinear
from rankwise.engine.fused import Product
from rankwise.engine.native import calls, library

needs_kernels = pytest.mark.skipif(library.library() is None, reason="no AMX for bf16, or no C++ compiler, here")
# Widths that tiles take; lengths around their borders.
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "dim": 64, "n_heads": 2, "hidden_dim": 96}
WIDE |= {"max_position_embeddings": 140, "initializer_range": 0.1}
LENGTHS = (3, 70, 33, 100, 64, 31, 32, 9, 17, 1, 65, 12)
EVERYWHERE = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


def adapted_wide(model_type, words=("query", "value"), *, dropout=False, seed=0, **options):
    more = dict(WIDE) if model_type == "distilbert" else {k: v for k, v in WIDE.items() if k not in ("dim", "n_heads")}
    return adapted(tiny(model_type, dropout=dropout, seed=seed, **more), modules(model_type, *words), **options)


def made(peft, precision, *, native):
    classifier = FastClassifier.from_peft(copy.deepcopy(peft), precision=precision, native=native, seed=7).train()
    assert classifier.native == native
    # DistilBERT's head is rectified: a unit that rounding turns on or off would drown what is measured.
    classifier.classifier.activation = torch.tanh
    return classifier


def result(peft, precision, *, native, lengths=LENGTHS):
    classifier = made(peft, precision, native=native)
    classifier.set_step(3)
    return result_of(classifier, classifier(classifier.collate(texts(lengths))))


@needs_kernels
@families
def test_no_further_from_fp32_than_autocast(model_type):
    ours, theirs = [], []
    for seed in range(4):
        peft = adapted_wide(model_type, seed=seed, use_dora=seed % 2 == 1)
        rows = texts(LENGTHS)
        exact = reference(peft, rows)
        ours.append(distance(engine(peft, rows, "bf16"), exact))
        theirs.append(distance(reference(peft, rows, autocast=True), exact))
    print(f"{model_type}: distance of bf16 from fp32: kernels {np.mean(ours):.4f}, autocast {np.mean(theirs):.4f}")
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.sampled(8)
@needs_kernels
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"words": EVERYWHERE, "r": 40, "bias": "all"},
        {"words": EVERYWHERE, "use_dora": True},
        {"lora_dropout": 0.2, "use_dora": True},
    ],
    ids=["query and value", "everywhere, rank 40, biases", "DoRA everywhere", "DoRA, dropped"],
)
@families
def test_with_dropout_no_further_from_fp32_than_plain_torch(model_type, options):
    """fp32 and both ways in bf16 draw the same masks, so they differ by rounding alone. Medians of three models."""
    exact, plain, ours = [], [], []
    for seed in range(3):
        peft = adapted_wide(model_type, dropout=True, seed=seed, **{"lora_dropout": 0.1, **options})
        exact.append(result(peft, "fp32", native=False))
        plain.append(result(peft, "bf16", native=False))
        ours.append(result(peft, "bf16", native=True))
    of_plain, of_ours = ([distance(*pair) for pair in zip(found, exact, strict=True)] for found in (plain, ours))
    assert min(of_plain) > 1e-4  # rounding there is
    assert np.median(of_ours) < 1.25 * np.median(of_plain)
    for name, value in exact[0].tensors().items():
        if float(value.norm()) > 1e-4:  # but for a key's bias, whose gradient is rounding as softmax ignores it
            pairs = zip(ours, exact, strict=True)
            assert np.median([error(one.tensors()[name], right.tensors()[name]) for one, right in pairs]) < 0.1, name


@needs_kernels
def test_other_masks_would_be_seen():
    """What the test above would say of a mask that is not its own."""
    peft = adapted_wide("bert", dropout=True, lora_dropout=0.1)
    one, other = (made(peft, "bf16", native=True) for _ in range(2))
    one.set_step(3)
    other.set_step(4)
    first, second = (result_of(made_, made_(made_.collate(texts(LENGTHS)))) for made_ in (one, other))
    assert distance(first, second) > 0.2


@pytest.mark.sampled(6)
@needs_kernels
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (1, 1, 1), (32,), (31, 33), (96,) * 5, (128, 2)])
def test_any_number_of_tokens(lengths, use_dora):
    peft = adapted_wide("mpnet", EVERYWHERE, dropout=True, lora_dropout=0.1, use_dora=use_dora)
    plain, ours = (result(peft, "bf16", native=native, lengths=lengths) for native in (False, True))
    assert distance(ours, plain) < 0.05


@needs_kernels
def test_adapters_in_some_layers_biases_alone_and_nothing_at_all():
    """Whatever trains, its gradients are there; what lies below it is left alone."""
    for options in ({"layers_to_transform": [1]}, {"layers_to_transform": [0]}, {"bias": "all"}):
        for peft in (adapted_wide("bert", ("query",), **options), adapted_wide("bert", ("ffn_out",), **options)):
            plain, ours = (result(peft, "bf16", native=native) for native in (False, True))
            assert distance(ours, plain) < 0.05
    classifier = made(adapted_wide("bert"), "bf16", native=True)
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    assert not classifier(classifier.collate(texts(LENGTHS))).requires_grad


@needs_kernels
def test_copies_compute_with_their_own_tensors():
    classifier = made(adapted_wide("bert"), "bf16", native=True)
    batch = classifier.collate(texts(LENGTHS))
    before = classifier(batch)
    copied = copy.deepcopy(classifier)
    with torch.no_grad():
        for parameter in classifier.layers.parameters():
            parameter.add_(1.0)
    assert torch.equal(copied(batch), before)
    assert not torch.equal(classifier(batch), before)


@needs_kernels
def test_what_trains_may_change_after_the_first_pass():
    classifier = made(adapted_wide("bert", bias="all"), "bf16", native=True)
    batch = classifier.collate(texts(LENGTHS))
    chosen = next(classifier.layers[1].parameters())
    chosen.requires_grad_(False)
    classifier(batch).sum().backward()
    assert chosen.grad is None
    chosen.requires_grad_(True)
    classifier(batch).sum().backward()
    assert chosen.grad is not None


@needs_kernels
def test_tensors_that_take_the_place_of_others_are_seen():
    """As `nn.utils.vector_to_parameters` does; norms' and joint biases among them."""
    classifier = made(adapted_wide("bert", EVERYWHERE, bias="all", use_dora=True), "bf16", native=True)
    batch = classifier.collate(texts(LENGTHS))
    before = classifier(batch)
    for parameter in classifier.layers.parameters():
        parameter.data = parameter.data + 0.5
    assert torch.equal(classifier(batch), copy.deepcopy(classifier)(batch))
    assert not torch.equal(classifier(batch), before)


@needs_kernels
@pytest.mark.parametrize("options", [{}, {"words": EVERYWHERE, "bias": "all"}], ids=["adapters", "biases too"])
def test_passes_may_be_open_at_one_time_and_threads_may_share_a_model(options):
    classifier = made(adapted_wide("bert", **options), "bf16", native=True)
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


@needs_kernels
def test_parameters_that_change_before_the_backward_pass_are_seen():
    classifier = made(adapted_wide("bert"), "bf16", native=True)
    loss = classifier(classifier.collate(texts(LENGTHS))).sum()
    with torch.no_grad():
        next(classifier.layers[1].parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_kernels
def test_the_number_of_threads_changes_no_bit():
    peft, threads = adapted_wide("roberta", EVERYWHERE, dropout=True, lora_dropout=0.1), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(result(peft, "bf16", native=True).tensors())
    finally:
        torch.set_num_threads(threads)
    first, *others = found
    for other in others:  # the head's gradients are torch's, whose sums may be split
        assert all(torch.equal(other[name], value) for name, value in first.items() if "classifier" not in name)


@needs_kernels
def test_panels_give_their_matrix_back_and_moving_keeps_the_weights():
    matrix = torch.randn(64, 96).bfloat16()
    assert torch.equal(calls.TileLayout(matrix).matrix(), matrix)
    weights = [torch.randn(32, 64), torch.randn(64, 64)]
    linear = FrozenLinear(weights, torch.bfloat16, native=True)
    x, grad = torch.randn(40, 64).bfloat16(), torch.randn(40, 96).bfloat16()
    before = linear(Product(x)), linear.backward(Product(grad))
    packed = linear._packed
    linear.to(torch.device("cpu"))  # moved nowhere: packed it stays
    assert linear._packed is packed
    linear.double().to(torch.bfloat16)  # away and back
    assert linear._packed is None
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip((linear(Product(x)), linear.backward(Product(grad))), before, strict=True)
    )
    expected = x.float() @ torch.cat(weights).bfloat16().float().t()
    assert error(before[0].float(), expected) < 5e-3


@needs_kernels
def test_gelu_and_its_slope_are_exact_to_bf16():
    x = torch.linspace(-9, 9, 4096).bfloat16()
    found, found_slope = torch.empty_like(x), torch.empty_like(x)
    calls.loaded().gelu(x.data_ptr(), len(x), found.data_ptr(), found_slope.data_ptr())
    wide = x.double().requires_grad_()
    exact = torch.nn.functional.gelu(wide)
    (slope,) = torch.autograd.grad(exact.sum(), wide)
    exact = exact.detach()
    assert float((found.double() - exact).abs().max()) <= 2**-8 * 9
    far = exact.abs() > 1e-5  # below it the polynomial's own error of 1e-7 begins to show
    assert float(((found.double() - exact) / exact)[far].abs().max()) < 2**-7
    assert float((found_slope.double() - slope).abs().max()) < 2**-7


@needs_kernels
def test_what_is_not_a_number_stays_so():
    """A diverged run must be seen."""
    classifier = made(adapted_wide("mpnet"), "bf16", native=True)
    for parameter in classifier.layers[0].parameters():
        parameter.data.fill_(torch.nan)
    assert classifier(classifier.collate(texts(LENGTHS))).isnan().all()


@needs_kernels
def test_compiled_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    path = library._compiled()
    made_at = path.stat().st_mtime_ns
    assert library._compiled() == path
    assert path.stat().st_mtime_ns == made_at
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_compiler_that_fails_leaves_plain_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "_has_tiles", lambda: True)
    monkeypatch.setattr(library.building, "compiler", lambda: "false")
    library.library.cache_clear()
    try:
        assert library.library() is None
        classifier = FastClassifier.from_peft(adapted_wide("bert"), precision="bf16")
        assert not classifier.native
        assert torch.isfinite(classifier(classifier.collate(texts()))).all()
    finally:
        library.library.cache_clear()


def test_narrow_models_and_fp32_are_left_to_plain_torch():
    assert not FastClassifier.from_peft(adapted(tiny("bert"), ["query"]), precision="bf16").native
    assert not FastClassifier.from_peft(adapted_wide("bert"), precision="fp32").native
