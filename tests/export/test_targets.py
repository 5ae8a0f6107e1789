"""Every target, for families, methods and heads: written whole, answering alike in a fresh process, or refused."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import rankwise
from bases import LABELS, SHAPES
from rankwise.errors import UserError
from rankwise.export import alone, subject
from rankwise.export.command import export
from rankwise.export.onnx_graph import session_of, write_graph
from rankwise.export.targets import Options

from .test_matrix import FAMILIES

needs_onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra 'export'")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra 'export-openvino'")
TEXTS = ["the goal of the match", "", "shares of a bank said in a new merger with the market " * 3]
OTHERS = [family for family in SHAPES if family not in FAMILIES]
"""whose graphs test_matrix.py does not answer from where there is nothing else"""
METHODS = [
    "adapter.dora=true head.kind=low_rank",
    "adapter.bias=all adapter.rslora=true head.kind=output",
    "adapter.init=pissa",
    "head.pooling=both adapter.dora=true",
    "adapter.method=ia3",
    "adapter.method=vera",
    "adapter.method=bitfit",
    "adapter.method=prompt adapter.virtual_tokens=3",
]


def graph_logits(made: subject.Subject, folder) -> np.ndarray:
    """What the graph says of the proof's texts, all in one batch."""
    folder.mkdir()
    session = session_of(write_graph(made, folder))
    tokens = made.saved.tokenizer(
        made.proof.texts, padding=True, truncation=True, max_length=made.saved.max_length, return_tensors="np"
    )
    return session.run(None, {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")})[0]


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_every_other_family_as_a_graph(family, shallow, adapter_of, tmp_path):
    made = subject.subject_of(adapter_of(shallow[family]))
    made.proof.check(graph_logits(made, tmp_path / "graph"), family)


@needs_onnx
@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.parametrize("case", METHODS)
def test_every_method_as_a_graph(case, shallow, adapter_of, tmp_path):
    made = subject.subject_of(adapter_of(shallow["roberta"], *case.split()))
    made.proof.check(graph_logits(made, tmp_path / "graph"), case)


def test_merged_loads_in_transformers_alone(bases, adapter_of, tmp_path):
    from transformers import pipeline

    adapter = adapter_of(bases["bert"], "adapter.dora=true")
    outcome = export(adapter, "merged", tmp_path / "out")
    assert outcome["texts"] > 10
    assert 0 <= outcome["largest_difference"] < 1e-4
    assert "adapter_config.json" not in outcome["files"]
    expected = rankwise.load(adapter, engine="reference", precision="fp32").predict_proba(TEXTS)
    answers = pipeline("text-classification", str(tmp_path / "out"), top_k=None, truncation=True)(TEXTS)
    shares = [{row["label"]: row["score"] for row in rows} for rows in answers]
    assert np.abs(expected - [[row[name] for name in LABELS] for row in shares]).max() < 1e-4


@pytest.mark.parametrize("pooling", ["mean", "both"])
def test_a_pooled_head_merged_is_an_encoder_and_its_head(pooling, bases, adapter_of, tmp_path, request):
    if pooling == "both":
        request.getfixturevalue("answers_here")
    outcome = export(adapter_of(bases["roberta"], f"head.pooling={pooling}"), "merged", tmp_path / "out")
    assert outcome["largest_difference"] < 1e-4
    assert {"model.safetensors", "head.safetensors"} <= outcome["files"].keys()


@needs_onnx
def test_onnx_answers_by_its_own_program(bases, adapter_of, tmp_path):
    adapter = adapter_of(bases["bert"], "data.preprocess=[lowercase,punctuation]")
    record = json.loads((adapter / "rankwise.json").read_text())
    calibration = {"temperature": 2.5, "rows": 9, "rows_sha256": "x", "at_bound": False}
    calibration |= dict.fromkeys(("loss_before", "loss_after", "ece_before", "ece_after"), 0.1)
    (adapter / "rankwise.json").write_text(json.dumps(record | {"calibration": calibration}))
    export(adapter, "onnx", tmp_path / "out")
    predictor = rankwise.load(adapter, calibrated=True, engine="reference", precision="fp32")
    texts = ["Goal, goal! The MATCH", "SHARES: of a bank", ""]
    program = (
        f"import sys, json; sys.path.insert(0, {str(tmp_path / 'out')!r}); import predict\n"
        f"print(json.dumps([predict.predict({texts!r}), predict.probabilities({texts!r}).tolist()]))"
    )
    said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    names, shares = json.loads(said)
    assert names == predictor.predict(texts)
    assert np.abs(np.array(shares) - predictor.predict_proba(texts)).max() < 1e-5
    piped = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "out" / "predict.py")],
        input="\n".join(texts[:2]), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert [json.loads(line) for line in piped.splitlines()] == names[:2]


@needs_onnx
def test_several_labels_a_text(bases, adapter_of, tmp_path):
    adapter = adapter_of(bases["distilbert"], "data.multi_label=true")
    export(adapter, "onnx", tmp_path / "out")
    program = f"import sys, json; sys.path.insert(0, {str(tmp_path / 'out')!r}); import predict; print(json.dumps(predict.predict({TEXTS!r})))"
    said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == rankwise.load(adapter, engine="reference", precision="fp32").predict(TEXTS)
    assert json.loads((tmp_path / "out" / "classifier.json").read_text())["thresholds"] == [0.5] * 3


@needs_onnx
@needs_openvino
def test_openvino(bases, adapter_of, tmp_path):
    outcome = export(adapter_of(bases["bert"]), "openvino", tmp_path / "out")
    assert {"model.xml", "model.bin", "tokenizer.json", "classifier.json", "predict.py"} <= outcome["files"].keys()


def test_a_prompt_cannot_be_merged(bases, adapter_of, tmp_path):
    adapter = adapter_of(bases["roberta"], "adapter.method=prompt", "adapter.virtual_tokens=3")
    with pytest.raises(UserError, match="nothing can be merged.*--to onnx"):
        export(adapter, "merged", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_an_artefact_that_answers_otherwise_is_not_left(bases, adapter_of, tmp_path, monkeypatch):
    adapter = adapter_of(bases["bert"])
    predictor = rankwise.load(adapter, engine="reference", precision="fp32")

    def off(folder, texts, **options):
        return predictor.logits(texts), predictor.logits(texts) + 1e-3

    monkeypatch.setattr(alone, "answers", off)
    with pytest.raises(UserError, match="logits differ by 0.001"):
        export(adapter, "merged", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_a_wrong_merge_is_seen_before_anything_is_written(bases, adapter_of, monkeypatch):
    monkeypatch.setattr(subject, "merged", lambda model: model.unload())
    with pytest.raises(UserError, match="the adapter merged into its base does not repeat"):
        subject.subject_of(adapter_of(bases["bert"]))


def test_where_it_may_be_written(bases, adapter_of, tmp_path):
    adapter = adapter_of(bases["bert"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match="not empty and no earlier export"):
        export(adapter, "merged", tmp_path / "full")
    with pytest.raises(UserError, match="does not exist, create it first"):
        export(adapter, "merged", tmp_path / "a" / "b")
    with pytest.raises(UserError, match="--to onnxx is no target, did you mean 'onnx'"):
        export(adapter, "onnxx", tmp_path / "out")
    assert (tmp_path / "full" / "thesis.tex").read_text() == "all of it"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, news):
    """A run whose validation rows are at hand."""
    tree = {
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": ["query", "value"], "rank": 4},
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"steps": 150, "batch_size": 16, "learning_rate": 5e-3, "eval_every": 150, "seed": 3},
        "budget": {"max_trainable": 20_000},
    }
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "run").path


@needs_onnx
@pytest.mark.slow
def test_int8_is_judged_on_validation_rows(trained, tmp_path):
    outcome = export(trained, "onnx-int8", tmp_path / "out")
    kept, *others = outcome["tried"]
    assert kept["agreement"] >= 0.995
    assert kept["points"] >= -0.3
    assert {"per column", "fixed scales", "per token and block"} <= {one["name"] for one in (kept, *others)}
    assert all(one["rows"] == 60 for one in (kept, *others))
    program = f"import sys, json; sys.path.insert(0, {str(tmp_path / 'out')!r}); import predict; print(json.dumps(predict.predict({TEXTS!r})))"
    said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == rankwise.load(trained).predict(TEXTS)


@needs_onnx
@pytest.mark.slow
def test_int8_that_loses_is_refused_unless_accepted(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.export.judge.LEAST_AGREEMENT", 1.01)
    with pytest.raises(UserError, match="int8 loses too much.*--accept-loss"):
        export(trained, "onnx-int8", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []
    assert export(trained, "onnx-int8", tmp_path / "out", Options(accept_loss=True))["files"]["model.onnx"] > 0


@needs_onnx
def test_int8_of_an_adapter_alone_cannot_be_judged(bases, adapter_of, tmp_path):
    with pytest.raises(UserError, match="validation rows cannot be read again"):
        export(adapter_of(bases["bert"]), "onnx-int8", tmp_path / "out")


def test_static_learns_the_run_and_needs_numpy_alone(trained, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    outcome = export(trained, "static", tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before), "the host's generator"
    (judgement,) = outcome["tried"]
    assert judgement["agreement"] > 0.9, judgement
    assert judgement["points_ci95"][0] <= judgement["points"] <= judgement["points_ci95"][1]
    assert outcome["bytes"] < 30e6
    assert "model.npz" in outcome["files"]


def test_static_of_an_adapter_alone_has_nothing_to_learn_from(bases, adapter_of, tmp_path):
    with pytest.raises(UserError, match="training texts cannot be read again"):
        export(adapter_of(bases["bert"]), "static", tmp_path / "out")
