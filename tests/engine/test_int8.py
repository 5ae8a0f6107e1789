"""Frozen matrices in eight bits: the products exactly, everything else as the engine's other backends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

import rankwise
from engine import test_boundary, test_native
from engine.parity import adapted, distance, error, tiny
from rankwise.engine import FastClassifier
from rankwise.engine.native import backend as backends
from rankwise.errors import UserError
from rankwise.machine import isa as isas
from rankwise.machine.isa import ISAS
from support import sentences, write_csv

NAME = "avx512vnni"
needs_unit = pytest.mark.skipif(not test_native.there(NAME), reason=f"no {NAME}, or no compiler, here")


def rounded(rows):
    """Rows in whole numbers up to 127, and the scale of each."""
    most = rows.abs().amax(1, keepdim=True)
    return (rows * (127.0 / most)).round().double(), (most / 127.0).double()


@needs_unit
@pytest.mark.parametrize("count", [1, 11, 12, 13, 40])
def test_products_are_those_of_whole_numbers(count):
    generator = torch.Generator().manual_seed(count)
    weights = [torch.randn(rows, 64, generator=generator).bfloat16() for rows in (32, 64)]
    backend = backends.named(NAME)
    packed = backend.pack(weights)
    matrix = backend.matrix(weights)
    matrix.panel, matrix.count = packed.data_ptr(), 0
    W, scales = rounded(torch.cat(weights).float())
    assert error(backend.unpack(packed, 64, 96).double(), W * scales) < 2**-8

    x, bias = torch.randn(count, 64, generator=generator).bfloat16(), torch.randn(96, generator=generator)
    whole, of_rows = rounded(x.float())
    expected = whole @ W.t() * of_rows * scales.t() + bias
    assert error(backend.product(matrix, x, bias, transposed=False).double(), expected) < 2**-8

    grad = torch.randn(count, 96, generator=generator).bfloat16()
    whole, of_rows = rounded(grad.float() * scales.t().float())
    assert error(backend.product(matrix, grad, None, transposed=True).double(), whole @ W * of_rows) < 2**-8


@needs_unit
@test_native.OPTIONS
@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "distilbert"])
def test_with_dropout_a_layer_is_plain_torch_within_eight_bits(model_type, options):
    peft = test_native.adapted_wide(model_type, dropout=True, **{"lora_dropout": 0.1, **options})
    assert distance(test_native.result(peft, NAME), test_native.result(peft, "torch", "fp32")) < 0.1


@needs_unit
@pytest.mark.parametrize(
    "test",
    [
        test_native.test_copies_compute_with_their_own_tensors,
        test_native.test_what_trains_may_change_after_the_first_pass,
        test_native.test_tensors_that_take_the_place_of_others_are_seen,
        test_native.test_parameters_that_change_before_the_backward_pass_are_seen,
        test_native.test_the_number_of_threads_changes_no_bit,
        test_native.test_what_is_not_a_number_stays_so,
        test_boundary.test_a_token_that_the_embedding_lacks_is_refused,
        test_boundary.test_what_kernels_cannot_read_is_refused,
    ],
    ids=lambda test: test.__name__,
)
def test_what_holds_for_every_backend(test):
    test(NAME)


@pytest.fixture(scope="module")
def wide_model(tiny_model, tmp_path_factory):
    """The tiny model's tokenizer with layers as wide as the kernels take."""
    folder = tmp_path_factory.mktemp("models") / "wide-bert"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    shape = json.loads((Path(tiny_model) / "config.json").read_text())
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}
    BertModel(BertConfig(**{**shape, **sizes})).save_pretrained(folder)
    return folder


@needs_unit
def test_a_run_is_proven_evaluated_and_answers_as_it_was_trained(wide_model, tmp_path, monkeypatch):
    rows = write_csv(tmp_path / "rows.csv", sentences(120, seed=0))
    config = {
        "model": {"name": str(wide_model), "precision": "int8"},
        "adapter": {"rank": 4},
        "data": {"train": str(rows), "validation_size": 0.25},
        "train": {"steps": 30, "batch_size": 8, "learning_rate": 3e-3},
    }
    run = rankwise.train(config, out=tmp_path / "run")  # proven: the reloaded adapter repeats the live logits
    assert run.result["engine"]["precision"] == "int8"
    asked = [text for text, _ in sentences(40, seed=1)]
    own = rankwise.load(run).predict_proba(asked)
    assert np.abs(own - rankwise.load(run, precision="fp32").predict_proba(asked)).max() < 0.05
    # Where no processor computes so, it answers in what there is.
    monkeypatch.setattr(isas, "features", lambda: ISAS["avx2"].features)
    assert np.abs(own - rankwise.load(run).predict_proba(asked)).max() < 0.05


def test_where_nothing_computes_in_it_it_is_refused(monkeypatch):
    peft = test_native.adapted_wide("bert")
    monkeypatch.setattr(isas, "features", lambda: ISAS["avx2"].features)
    with pytest.raises(UserError, match="int8 needs kernels"):
        FastClassifier.from_peft(peft, precision="int8")


@needs_unit
def test_models_that_the_kernels_do_not_compute_are_refused():
    peft = adapted(tiny("bert"), ["query"])
    with pytest.raises(UserError, match="not multiples of 32"):
        FastClassifier.from_peft(peft, precision="int8")
