"""Every target of every method and head on six families, answered where there is the target's library alone."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from bases import LABELS
from rankwise.data.rows import Rows
from rankwise.export import alone, onnx_graph, onnx_int8, openvino_ir, static, subject
from rankwise.export.command import export
from rankwise.export.targets import TARGETS, Options
from support import sentences

from .fresh import Environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra 'export'"),
]
FAMILIES = ["bert", "roberta", "mpnet", "distilbert", "deberta-v2", "modernbert"]
METHODS = {
    "lora": [],
    "dora": ["adapter.dora=true"],
    "head": ["adapter.method=head"],
    "full": ["adapter.method=full"],
    "mean": ["head.pooling=mean"],
    "both": ["head.pooling=both"],
}
LIBRARIES = {
    "merged": ("transformers", "torch"),
    "onnx": ("onnxruntime", "tokenizers", "numpy"),
    "onnx-int8": ("onnxruntime", "tokenizers", "numpy"),
    "openvino": ("openvino", "tokenizers", "numpy"),
    "static": ("tokenizers", "numpy"),
}
LOSSY = ("onnx-int8", "static")
STRANGERS = {"rankwise", "peft", "accelerate", "scipy", "scikit-learn", "onnx", "onnxscript"}


@pytest.fixture(scope="session")
def environments(tmp_path_factory):
    """Makes the environment of a set of libraries, once."""
    made: dict[tuple[str, ...], Environment] = {}

    def get(libraries: tuple[str, ...]) -> Environment:
        if libraries not in made:
            made[libraries] = Environment(tmp_path_factory.mktemp("environment"), libraries)
            assert not STRANGERS & set(made[libraries].distributions)
        return made[libraries]

    yield get
    for environment in made.values():
        environment.close()


@pytest.fixture
def one_graph(monkeypatch):
    """The graph of a classifier is made once for the three targets that begin with it."""
    kept: dict[str, bytes] = {}
    write = onnx_graph.write_graph

    def once(made, folder):
        key, path = str(made.saved.adapter.folder), folder / onnx_graph.GRAPH
        if key in kept:
            path.write_bytes(kept[key])
        else:
            write(made, folder)
            kept[key] = path.read_bytes()
        return path

    for module in (onnx_graph, onnx_int8, openvino_ir):
        monkeypatch.setattr(module, "write_graph", once)


@pytest.fixture
def training_texts(monkeypatch):
    """What static learns from; and little time to learn it."""
    texts, labels = zip(*sentences(60, 0), strict=True)
    numbers = np.array([sorted(set(labels)).index(label) for label in labels])
    rows = Rows(list(texts), numbers, list(range(60)), "x", "x")
    monkeypatch.setattr(subject, "rows_again", lambda run, role: rows if role == "train" else None)
    monkeypatch.setattr(static, "_MOST_PASSES", 1)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_target(
    family, method, shallow, adapter_of, environments, one_graph, training_texts, tmp_path, monkeypatch
):
    adapter = adapter_of(shallow[family], *METHODS[method])
    peft = subject.subject_of(adapter).proof
    for target in TARGETS:
        if any(find_spec(name.replace("-", "_")) is None for name in LIBRARIES[target]):
            continue
        told = {}

        def answers(folder, texts, *, load, unwanted, target=target, told=told):
            told["alone"], told["together"] = environments(LIBRARIES[target]).answers(folder, texts, load)
            return told["alone"], told["together"]

        monkeypatch.setattr(alone, "answers", answers)
        outcome = export(adapter, target, tmp_path / target, Options(accept_loss=True))
        about = json.loads((tmp_path / target / "classifier.json").read_text())
        assert about["labels"] == LABELS
        assert outcome["texts"] == len(peft.texts)
        if target not in LOSSY:
            for said in told.values():
                assert np.abs(said - peft.logits).max() <= peft.bound, target
