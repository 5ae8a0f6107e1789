"""Text pairs: to the tokenizer as a pair, with segment ids where the encoder has them, on both engines, saved and served."""

import csv
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.data.cleaning import PAIR
from rankwise.data.tokens import encode
from rankwise.errors import UserError
from rankwise.export.command import export
from rankwise.inference.many import load_many
from rankwise.machine import segments
from support import sentences, write_csv

needs_onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra 'export'")
needs_serve = pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra 'serve'")


@pytest.fixture(scope="module")
def paired_model(tmp_path_factory, tiny_model):
    """The tiny BERT with a tokenizer that knows pairs, as BERT's does."""
    folder = tmp_path_factory.mktemp("paired") / "bert"
    shutil.copytree(tiny_model, folder)
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text())
    special = lambda name, kind: {"SpecialToken": {"id": name, "type_id": kind}}  # noqa: E731
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}  # noqa: E731
    tree["post_processor"]["pair"] = [
        special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)
    ]  # fmt: skip
    path.write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="module")
def rows():
    """Premise and hypothesis are about one topic or about two."""
    made = sentences(90, 3)
    steps = [1 + 2 * (n % 2) for n in range(len(made))]
    pairs = [(made[n], made[(n + step) % len(made)]) for n, step in enumerate(steps)]
    return [(a, b, "same" if x == y else "other") for (a, x), (b, y) in pairs]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, paired_model, rows):
    folder = tmp_path_factory.mktemp("runs")
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["premise", "hypothesis", "label"])
        table.writerows(rows)
    made = {}
    for engine in ("fast", "reference"):
        tree = {
            "model": {"name": str(paired_model), "precision": "fp32"},
            "adapter": {"rank": 2},
            "engine": engine,
            "data": {"train": str(folder / "pairs.csv"), "text": ["premise", "hypothesis"], "pair": True},
            "train": {"steps": 6, "learning_rate": 1e-2},
        }
        made[engine] = rankwise.train(tree, out=folder / engine)
    return made


def test_both_engines_answer_as_transformers_does_with_segment_ids(runs, rows, paired_model):
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paired_model)
    pairs = [(a, b) for a, b, _ in rows[:20]]
    inputs = tokenizer(
        [a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt", return_token_type_ids=True
    )
    assert inputs["token_type_ids"].max() == 1
    for engine, run in runs.items():
        model = AutoPeftModelForSequenceClassification.from_pretrained(run.adapter, num_labels=2).eval()
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
            without = model(**{**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}).logits.numpy()
        found = rankwise.load(run).logits(pairs)
        np.testing.assert_allclose(found, expected, atol=5e-6, err_msg=engine)
        assert np.abs(found - without).max() > 1e-4, "segments matter to this encoder"


def test_a_file_of_pairs_is_answered_as_the_pairs_are(runs, rows, tmp_path, capsys):
    with (tmp_path / "new.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("premise", "hypothesis"), *((a, b) for a, b, _ in rows[:10])])
    assert main(["predict", str(runs["fast"].path), str(tmp_path / "new.csv"), str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as file:
        answers = [row["predicted"] for row in csv.DictReader(file)]
    predictor = rankwise.load(runs["fast"])
    assert answers == predictor.predict([(a, b) for a, b, _ in rows[:10]])
    assert rankwise.load(runs["fast"].adapter).pair
    with pytest.raises(UserError, match="text 0 is no pair"):
        predictor.predict(["one text"])


def test_a_worker_of_a_cluster_labels_pairs(runs, rows):
    from rankwise.search.bulk import _Labeller

    pairs = [*((a, b) for a, b, _ in rows[:5]), ("", "")]
    columns = dict(zip(("premise", "hypothesis"), map(np.array, zip(*pairs, strict=True)), strict=True))
    labelled = _Labeller(str(runs["fast"].path), list(columns), False, None)(columns)
    assert list(labelled["predicted"]) == rankwise.load(runs["fast"]).predict(pairs)


def test_pairs_need_two_columns_and_no_augmentation(runs, rows, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    tree = {"data": {"train": str(tmp_path / "a.csv"), "pair": True}}
    with pytest.raises(UserError, match="data.pair: true needs two text columns"):
        rankwise.train(tree, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"data.augment cannot apply with data.pair"):
        rankwise.train({"data": {**tree["data"], "augment": {"word_dropout": 0.1}}}, out=tmp_path / "run")


@pytest.mark.parametrize("most", [6, 8, 9, 12, 40])
def test_the_longer_text_of_a_pair_gives_way_first(paired_model, most):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paired_model)
    first, second = "the match goal team coach league", "bank market profit"
    for a, b in ((first, second), (second, first), (first, first), (first, ""), ("", first), ("", "")):
        (found,) = encode([f"{a}{PAIR}{b}"], tokenizer, most)
        # In lists: an empty second text alone would be none to transformers.
        expected = tokenizer([a], [b], truncation="longest_first", max_length=most, return_token_type_ids=True)
        assert [segments.ids_of(found).tolist()] == expected["input_ids"]
        assert [segments.types_of(found).tolist()] == expected["token_type_ids"]


@pytest.mark.parametrize("most", [8, 9, 12, 13])
def test_both_ends_of_each_text_of_a_pair_are_kept(paired_model, most):
    """As many tokens of each as its head alone would have."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paired_model)
    first, second = "the match goal team coach league", "bank market profit"
    whole = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)}
    for a, b in ((first, second), (second, first), (first, first)):
        pair = [f"{a}{PAIR}{b}"]
        (head,), (both,) = (encode(pair, tokenizer, most, truncation) for truncation in ("head", "head_and_tail"))
        np.testing.assert_array_equal(segments.types_of(head), segments.types_of(both))
        ids, types = segments.ids_of(both), segments.types_of(both)
        for text, of_text in ((a, ids[types == 0][1:-1]), (b, ids[types == 1][:-1])):
            tail = 0 if len(of_text) == len(whole[text]) else len(of_text) // 2
            expected = whole[text][: len(of_text) - tail] + whole[text][len(whole[text]) - tail :]
            assert of_text.tolist() == expected
        assert both[[0, -1]].tolist() == head[[0, -1]].tolist()


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory, tiny_model):
    """A run that reads one text."""
    folder = tmp_path_factory.mktemp("texts")
    tree = {
        "model": {"name": str(tiny_model), "precision": "fp32"},
        "adapter": {"rank": 2},
        "data": {"train": str(write_csv(folder / "texts.csv", sentences(30, 1)))},
        "train": {"steps": 2},
    }
    return rankwise.train(tree, out=folder / "run")


@needs_onnx
@pytest.mark.parametrize("target", ["merged", "onnx"])
def test_an_export_of_a_classifier_of_pairs_answers_pairs(target, runs, rows, tmp_path):
    outcome = export(runs["fast"], target, tmp_path / "out")
    assert outcome["largest_difference"] < 1e-4
    pairs = [(a, b) for a, b, _ in rows[:6]]
    expected = rankwise.load(runs["fast"]).predict(pairs)
    if target == "merged":
        from transformers import pipeline

        classify = pipeline("text-classification", str(tmp_path / "out"), truncation=True)
        answers = [classify({"text": a, "text_pair": b}) for a, b in pairs]
        assert [(one[0] if isinstance(one, list) else one)["label"] for one in answers] == expected
        return
    lines = "".join(f"{a}\t{b}\n" for a, b in pairs)
    command = [sys.executable, "-I", str(tmp_path / "out" / "predict.py")]
    said = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    assert [json.loads(line) for line in said.splitlines()] == expected
    assert "token_type_ids" in (tmp_path / "out" / "predict.py").read_text()


def test_a_mean_of_word_vectors_does_not_stand_for_pairs(runs, tmp_path):
    with pytest.raises(UserError, match="reads pairs of texts"):
        export(runs["fast"], "static", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_classifiers_take_pairs_and_texts_each(runs, rows, of_texts):
    pairs = [(a, b) for a, b, _ in rows[:6]]
    many = load_many({"pairs": runs["fast"], "texts": of_texts}, precision="fp32")
    np.testing.assert_allclose(
        many.logits(pairs, ["pairs"])["pairs"], rankwise.load(runs["fast"]).logits(pairs), atol=1e-5
    )
    mixed = many.mixed([pairs[0], "the goal"], ["pairs", "texts"])
    np.testing.assert_allclose(mixed[0], rankwise.load(runs["fast"]).logits(pairs[:1])[0], atol=1e-5)
    with pytest.raises(UserError, match="'texts' reads one text"):
        many.logits(pairs)
    with pytest.raises(UserError, match="'pairs' reads pairs"):
        many.logits(["one"], ["pairs"])
    split = f"the{PAIR}goal"
    assert many.predict([split], ["texts"]) == many.predict(["the goal"], ["texts"]), (
        "no text is a pair by its characters"
    )


@needs_serve
def test_a_server_takes_pairs(runs, rows, of_texts):
    from fastapi.testclient import TestClient

    from rankwise.serve.app import Service, make_app
    from rankwise.serve.collection import Collection
    from rankwise.serve.limits import Limits

    pairs = [[a, b] for a, b, _ in rows[:3]]
    many = load_many({"pairs": runs["fast"], "texts": of_texts}, precision="fp32")
    expected = rankwise.load(runs["fast"]).predict_proba(pairs)
    with TestClient(make_app(Service(Collection(many), Limits())), base_url="http://127.0.0.1") as client:
        told = {one["name"]: one["pair"] for one in client.get("/v1/models").json()["models"]}
        assert told == {"pairs": True, "texts": False}
        said = client.post("/v1/classify", json={"texts": pairs, "model": "pairs"}).json()["results"]["pairs"]
        found = [list(one["probabilities"].values()) for one in said]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        tei = client.post("/predict?model=pairs", json={"inputs": pairs}).json()
        assert [max(one["score"] for one in row) for row in tei] == pytest.approx(expected.max(1).tolist(), abs=1e-5)
        for asked in ({"texts": pairs}, {"texts": ["one"], "model": "pairs"}, {"texts": [["a", "b", "c"]]}):
            assert client.post("/v1/classify", json=asked).status_code == 422
