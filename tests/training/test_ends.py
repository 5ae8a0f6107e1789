"""Texts whose label stands at the end: a head of them cannot know it, head and tail do, wherever the adapter goes."""

import csv
import json
import random
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import rankwise
from rankwise import BudgetedTextClassifier, data
from rankwise import config as configuration
from rankwise.cli import main
from rankwise.data.cleaning import PAIR
from rankwise.data.folds import splits
from rankwise.errors import UserError
from rankwise.export.command import export
from rankwise.inference.many import load_many
from rankwise.records.adapter import read_adapter
from rankwise.training.held_out import logits_of_heads, logits_of_held_out
from support import COMMON, TOPICS, write_csv

needs_onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra 'export'")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra 'export-openvino'")
needs_serve = pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra 'serve'")
MOST = 15


def letters(count: int, seed: int) -> list[tuple[str, str]]:
    """Thirty words that say nothing, then five that say all."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        topic = ("sport", "business")[number % 2]
        words = chance.choices(COMMON, k=30) + chance.choices(TOPICS[topic], k=5)
        made.append((" ".join(words), topic))
    return made


NEW = [text for text, _ in letters(24, 9)] + ["the goal of the match", "", "shares"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("letters")
    return {
        "model": {"name": str(tiny_model), "precision": "fp32"},
        "adapter": {"scope": "all", "rank": 4},
        "data": {
            "train": str(write_csv(folder / "train.csv", letters(240, 0))),
            "validation": str(write_csv(folder / "validation.csv", letters(60, 1))),
            "max_length": MOST,
            "truncation": "head_and_tail",
        },
        "train": {"steps": 120, "batch_size": 16, "learning_rate": 1e-2, "seed": 3},
    }


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "ends")


def test_the_end_is_learnt_where_it_is_read(run, tree, tmp_path):
    head = {**tree, "data": {**tree["data"], "truncation": "head"}}
    other = rankwise.train(head, out=tmp_path / "head")
    assert run.record.metrics.validation.accuracy > 0.95
    assert other.record.metrics.validation.accuracy < 0.65, "guessing is a half"
    assert other.config.data.truncation == "head"


@pytest.mark.parametrize("options", [{}, {"engine": "reference"}], ids=["fast", "reference"])
def test_a_reloaded_adapter_reads_as_the_one_that_was_trained(run, tmp_path, options):
    """As the run scored, from a copy of the adapter's folder alone."""
    shutil.copytree(run.adapter, tmp_path / "copy")
    assert read_adapter(tmp_path / "copy").config.data.truncation == "head_and_tail"
    rows = letters(60, 1)
    predictor = rankwise.load(tmp_path / "copy", **options)
    right = [answer == label for answer, (_, label) in zip(predictor.predict([t for t, _ in rows]), rows, strict=True)]
    assert np.mean(right) == run.record.metrics.validation.accuracy
    cut = [" ".join([*text.split()[:7], *text.split()[-6:]]) for text in NEW[:24]]
    np.testing.assert_array_equal(predictor.logits(cut), predictor.logits(NEW[:24]))


def test_an_adapter_without_the_key_reads_heads(run, tmp_path):
    shutil.copytree(run.adapter, tmp_path / "copy")
    path = tmp_path / "copy" / "rankwise.json"
    record = json.loads(path.read_text())
    del record["config"]["data"]["truncation"]
    path.write_text(json.dumps(record))
    cut = [" ".join(text.split()[:13]) for text in NEW]
    older = rankwise.load(tmp_path / "copy")
    np.testing.assert_array_equal(older.logits(cut), older.logits(NEW))
    record["config"]["data"]["truncation"] = "tail"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="is damaged, invalid enum value 'tail'"):
        rankwise.load(tmp_path / "copy")


def test_files_and_collections_are_answered_alike(run, tree, tmp_path, capsys):
    expected = rankwise.load(run).predict(NEW)
    write_csv(tmp_path / "new.csv", [(text, "") for text in NEW if text])
    assert main(["predict", str(run.path), str(tmp_path / "new.csv"), str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as file:
        answers = [row["predicted"] for row in csv.DictReader(file)]
    assert answers == [answer for text, answer in zip(NEW, expected, strict=True) if text]
    # Beside the same adapter that reads heads: the two share a base and a tokenizer, and no ids.
    shutil.copytree(run.adapter, tmp_path / "head")
    record = json.loads((tmp_path / "head" / "rankwise.json").read_text())
    record["config"]["data"]["truncation"] = "head"
    (tmp_path / "head" / "rankwise.json").write_text(json.dumps(record))
    many = load_many({"ends": run, "head": tmp_path / "head"}, precision="fp32")
    said = many.logits(NEW)
    for name, folder in (("ends", run.adapter), ("head", tmp_path / "head")):
        np.testing.assert_allclose(said[name], rankwise.load(folder).logits(NEW), atol=1e-5)
    mixed = many.mixed([NEW[0], NEW[0]], ["ends", "head"])
    np.testing.assert_allclose(mixed, [said["ends"][0], said["head"][0]], atol=1e-5)
    assert np.abs(said["ends"] - said["head"]).max() > 0.1


@needs_serve
def test_a_server_says_what_it_reads(run):
    from fastapi.testclient import TestClient

    from rankwise.serve.app import Service, make_app
    from rankwise.serve.collection import Collection
    from rankwise.serve.limits import Limits

    many = load_many({"ends": run}, precision="fp32")
    with TestClient(make_app(Service(Collection(many), Limits())), base_url="http://127.0.0.1") as client:
        (told,) = client.get("/v1/models").json()["models"]
        assert (told["max_tokens"], told["truncation"]) == (MOST, "head_and_tail")
        said = client.post("/v1/classify", json={"texts": NEW[:3]}).json()["results"]["ends"]
    assert [max(one["probabilities"], key=one["probabilities"].get) for one in said] == rankwise.load(run).predict(
        NEW[:3]
    )


def test_it_is_told_where_lengths_are(run, capsys):
    card = (run.adapter / "README.md").read_text()
    assert "It reads the first 8 and the last 7 tokens of a text; 240 training texts were longer." in card
    assert "Other programs read the first tokens of a long text alone" in card
    assert run.record.texts["tokens"]["train"]["truncation"] == "head_and_tail"
    assert main(["adapters", "info", str(run.adapter)]) == 0
    assert "reads the first 8 and the last 7 tokens of a text" in capsys.readouterr().out


def test_it_cannot_change_after_training(run, tree):
    with pytest.raises(UserError, match="cannot change at evaluation: only data.test"):
        rankwise.evaluate(run, ["data.truncation=head"])
    with pytest.raises(UserError, match="another data.truncation"):
        rankwise.train({**tree, "data": {**tree["data"], "truncation": "head"}}, out=run.path, resume=True)
    with pytest.raises(UserError, match="data.truncation"):
        configuration.from_dict({"data": {"truncation": "tail"}})


def test_changed_rows_are_cut_as_others_are(tree, tmp_path):
    tree = {**tree, "data": {**tree["data"], "augment": {"word_dropout": 0.05}}}
    run = rankwise.train(tree, out=tmp_path / "run")
    assert run.record.metrics.validation.accuracy > 0.9


def test_folds_read_both_ends(tree, tmp_path):
    tree = {**tree, "data": {**tree["data"], "validation": None, "folds": 2}}
    tree["train"] = {**tree["train"], "steps": 40}
    run = rankwise.train(tree, out=tmp_path / "run")
    assert run.record.metrics.validation.accuracy > 0.9


@pytest.mark.parametrize("method", ["lora", "probe"])
def test_rows_held_out_of_a_fold_are_cut_alike(tree, method):
    tree = {**tree, "adapter": {**tree["adapter"], "method": method} if method == "lora" else {"method": method}}
    tree["head"] = {"pooling": "mean" if method == "probe" else "first"}
    config = configuration.from_dict(tree)
    roles = data.load(config.data, roles=["train", "validation"])
    *_, logits = logits_of_held_out(config, roles.train, roles.validation, roles.label_names)
    assert (logits.argmax(1) == roles.validation.labels).mean() > 0.9


def test_heads_of_folds_are_those_that_each_fold_would_have(tree):
    tree = {**tree, "adapter": {"method": "probe"}, "head": {"pooling": "mean", "penalty": 10.0}}
    config = configuration.from_dict(tree)
    roles = data.load(config.data, roles=["train"])
    parts, names = splits(roles.train.labels, 3, 0), roles.label_names
    found = logits_of_heads(config, roles.train, parts[:2], names)
    for kept, out in parts[:2]:
        *_, expected = logits_of_held_out(config, roles.train.take(kept), roles.train.take(out), names)
        np.testing.assert_allclose(found[out], expected, atol=1e-4)
    assert not found[parts[2][1]].any(), "of the rows that no part holds out nothing is said"


def test_the_estimator_reads_both_ends(tree, tiny_model):
    texts, labels = zip(*letters(240, 0), strict=True)
    made = BudgetedTextClassifier(
        model=str(tiny_model), max_trainable=20_000, learning_rate=1e-2, steps=60, max_length=MOST,
        truncation="head_and_tail",
    )  # fmt: skip
    new, expected = zip(*letters(60, 1), strict=True)
    assert made.fit(list(texts), list(labels)).score(list(new), list(expected)) > 0.9


@needs_onnx
@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=needs_openvino), "static"])
def test_an_export_cuts_as_it_was_trained(run, tmp_path, target):
    outcome = export(run, target, tmp_path / "out")
    predict = f"import predict; print(__import__('json').dumps(predict.predict({NEW!r})))"
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'out')!r}); {predict}"
    said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    agreed = np.mean([a == b for a, b in zip(json.loads(said), rankwise.load(run).predict(NEW), strict=True)])
    assert agreed > 0.9 if target == "static" else agreed == 1
    assert "segments.py" in outcome["files"]
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["truncation"] is None
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "It reads the first 8 and the last 7 tokens of a text" in readme
    assert "`tokenizer.json` alone does not" in readme


@needs_onnx
def test_an_export_of_pairs_cuts_each_text(bases, adapter_of, tmp_path):
    adapter = adapter_of(
        bases["bert"], "data.pair=true", "data.text=[a,b]", "data.max_length=8", "data.truncation=head_and_tail",
        "data.preprocess=[lowercase]",
    )  # fmt: skip
    outcome = export(adapter, "onnx", tmp_path / "out")
    assert {"segments.py", "cleaning.py"} <= outcome["files"].keys()
    assert outcome["largest_difference"] < 1e-4
    predictor = rankwise.load(adapter, engine="reference", precision="fp32")
    first, second = "the match goal team coach league", "bank market profit shares merger"
    assert len(predictor.tokens_of([f"{first}{PAIR}{second}"])[0]) == 8


def test_transformers_own_truncation_does_not_stand_for_it(run, tmp_path):
    with pytest.raises(UserError, match="transformers keeps the first alone: export it with --to onnx"):
        export(run, "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()
