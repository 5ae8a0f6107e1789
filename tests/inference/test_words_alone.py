"""A classifier of words alone goes wherever one with an encoder does, and is refused by its name where it cannot."""

import csv
import json
import pickle
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import rankwise
from rankwise import config as configuration
from rankwise import data
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.search.floors.floor import fit_words, write_words
from support import sentences

pytest.importorskip("sklearn")
TEXTS = ["the goal of the match", "shares of a bank", "half \ud83d of an emoji", ""]


def _table(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def _run(folder: Path, tree) -> Path:
    config = configuration.from_dict({"data": tree})
    roles = data.load(config.data)
    write_words(fit_words(config, roles.train, roles.label_names), config, roles, folder, time.time())
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs: of texts, of texts with several labels, of pairs."""
    root, made = tmp_path_factory.mktemp("words"), {}
    rows = {
        role: sentences(count, seed) for role, count, seed in (("train", 90, 1), ("validation", 30, 2), ("test", 30, 3))
    }
    for name, header, of_row, more in (
        ("one", ["text", "label"], lambda row: row, {}),
        ("several", ["text", "label"], lambda row: (row[0], f"{row[1]};odd"), {"multi_label": True, "label_separator": ";"}),
        ("pair", ["first", "second", "label"], lambda row: (row[0], row[1], row[1]), {"text": ["first", "second"], "pair": True}),
    ):  # fmt: skip
        named = {
            role: _table(root / f"{name}-{role}.csv", header, [of_row(row) for row in rows[role]]) for role in rows
        }
        made[name] = _run(root / name, {"text": "text", "label": "label"} | named | more)
    return made


@pytest.fixture
def beside(adapt, base):
    """An adapter on a base, read with its tokenizer."""
    folder = adapt()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    return folder


def test_among_others_it_answers_as_alone(runs, beside):
    many = rankwise.load_many({"words": runs["one"], "lora": beside, "several": runs["several"]})
    assert many.names == ["words", "lora", "several"]
    for folder, name in ((runs["one"], "words"), (beside, "lora"), (runs["several"], "several")):
        alone = rankwise.load(folder)
        np.testing.assert_allclose(many.logits(TEXTS)[name], alone.logits(TEXTS), atol=1e-5)
        np.testing.assert_allclose(many.mixed(TEXTS, [name] * 4), alone.logits(TEXTS), atol=1e-5)
    assert pickle.loads(pickle.dumps(many)).predict(TEXTS) == many.predict(TEXTS)


def test_it_has_its_runs_name_also_where_that_is_words(runs, tmp_path):
    copy = shutil.copytree(runs["one"], tmp_path / "words")
    assert rankwise.load_many([copy, runs["one"] / "words"]).names == ["words", "one"]


def test_a_file_is_labelled_by_it_and_others(runs, beside, tmp_path):
    source = _table(tmp_path / "new.csv", ["text"], [(text,) for text in TEXTS[:2]])
    for words in (runs["one"], runs["one"] / "words"):
        assert main(["predict", str(words), str(beside), source, str(tmp_path / "out.csv")]) == 0
        with (tmp_path / "out.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["one"] for row in rows] == rankwise.load(words).predict(TEXTS[:2])


def test_labels_are_joined_as_training_had_them(runs, tmp_path):
    source = _table(tmp_path / "new.csv", ["text"], [(TEXTS[0],)])
    assert main(["predict", str(runs["several"]), source, str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as file:
        assert (
            next(csv.DictReader(file))["predicted"].split(";") == rankwise.load(runs["several"]).predict(TEXTS[:1])[0]
        )


def test_pairs(runs):
    predictor = rankwise.load(runs["pair"])
    assert predictor.predict([("the", "science")]) == ["science"]
    assert rankwise.load_many([runs["pair"]]).predict([("the", "science")]) == {"pair": ["science"]}
    with pytest.raises(UserError, match="text 0 is no pair, and this classifier reads pairs"):
        predictor.predict(["one text"])


def test_its_folder_alone_is_scored_on_named_rows(runs, capsys):
    assert main(["evaluate", str(runs["one"]), "--json"]) == 0
    of_run = json.loads(capsys.readouterr().out)["metrics"]["test"]
    test = runs["one"].parent / "one-test.csv"
    assert main(["evaluate", str(runs["one"] / "words"), f"data.test={test}", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["metrics"]["test"]
    assert (alone["accuracy"], alone["loss"]) == (of_run["accuracy"], of_run["loss"])


def test_it_is_calibrated(runs):
    with pytest.raises(UserError, match="has no temperature yet"):
        rankwise.load(runs["one"], calibrated=True)
    assert main(["calibrate", str(runs["one"])]) == 0
    temperature = rankwise.load(runs["one"], calibrated=True).temperature
    assert temperature == rankwise.load(runs["one"] / "words", calibrated=True).temperature
    assert temperature == rankwise.load_many([runs["one"]], calibrated=True).get("one").temperature != 1.0


@pytest.mark.parametrize(
    "words", [("export", "--to", "merged", "--out", "x"), ("share", "me/x", "--dry-run"), ("adapters", "info")]
)
def test_what_takes_an_adapter_says_what_it_is(runs, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    verb, *rest = words
    place = 1 if verb == "adapters" else 0
    for folder in (runs["one"], runs["one"] / "words"):
        assert main([verb, *rest[:place], str(folder), *rest[place:]]) == 2
        assert "is TF-IDF of words alone" in capsys.readouterr().err


def _changed(**keys):
    return lambda details, numbers: details.update(keys)


DAMAGES = {
    "an expression": (_changed(token="("), "holds no whole classifier of words"),
    "a step of cleaning": (_changed(preprocess=["polish"]), "cleaned by 'polish', which this version does not know"),
    "numbers that are none": (lambda details, numbers: numbers["offsets"].fill(np.nan), "are not finite"),
    "offsets": (lambda details, numbers: numbers.update(offsets=numbers["offsets"][:1]), "its numbers have shapes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(runs, tmp_path, damage):
    from safetensors.numpy import load_file, save_file

    change, sentence = DAMAGES[damage]
    folder = shutil.copytree(runs["one"] / "words", tmp_path / "words")
    details, numbers = json.loads((folder / "words.json").read_text()), load_file(folder / "words.safetensors")
    change(details, numbers)
    (folder / "words.json").write_text(json.dumps(details))
    save_file(numbers, folder / "words.safetensors")
    with pytest.raises(UserError, match=sentence):
        rankwise.load(folder).predict(TEXTS)


def test_a_report_of_a_run_without_steps_warns_of_nothing(runs, tmp_path):
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rankwise.report(runs["one"], tmp_path / "report.html")
