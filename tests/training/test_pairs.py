"""Text pairs: to the tokenizer as a pair, with segment ids where the encoder has them, on both engines, saved and served."""

import csv
import json
import shutil

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.data.cleaning import PAIR
from rankwise.data.tokens import encode
from rankwise.errors import UserError
from rankwise.machine import segments
from support import sentences


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
    for a, b in ((first, second), (second, first), (first, first)):
        (found,) = encode([f"{a}{PAIR}{b}"], tokenizer, most)
        expected = tokenizer(a, b, truncation="longest_first", max_length=most, return_token_type_ids=True)
        assert segments.ids_of(found).tolist() == expected["input_ids"]
        assert segments.types_of(found).tolist() == expected["token_type_ids"]


def test_what_reads_one_text_refuses_a_classifier_of_pairs(runs, tmp_path):
    from rankwise.export.command import export
    from rankwise.inference.many import load_many
    from rankwise.serve.collection import Collection

    with pytest.raises(UserError, match="trained on text pairs"):
        export(runs["fast"], "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="trained on text pairs"):
        Collection(load_many([runs["fast"]]))
