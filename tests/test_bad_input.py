"""What users get wrong: each is told in one sentence with exit code 2, and nothing is left half-written."""

import json
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise.cli import main
from support import sentences, write_csv

ROWS = sentences(60, seed=9)


@pytest.fixture
def told(capsys):
    """Run a command line that must fail; give the sentence it prints."""

    def run(*words: str) -> str:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        assert code == 2, printed
        lines = [line for line in printed.err.splitlines() if line.startswith("rankwise: ")]
        assert len(lines) == 1, printed.err
        assert "Traceback" not in printed.err
        assert printed.out == ""
        return lines[0]

    return run


@pytest.fixture
def train(told, tiny_model, tmp_path):
    """Train on a file; the run's folder must not come into being."""

    def run(source, *words, model=tiny_model) -> str:
        out = tmp_path / "run"
        sentence = told(
            "train",
            f"model.name={model}",
            f"data.train={source}",
            "adapter.rank=2",
            "train.steps=2",
            *words,
            "--out",
            out,
        )
        assert not out.exists()
        return sentence

    return run


def test_a_name_too_long_for_a_file(told, tiny_model, news):
    long = "x" * 300
    for words in (["train", f"data.train={news['train']}", "--out", long], ["train", f"data.train={long}"]):
        assert "it is too long" in told(*words, f"model.name={tiny_model}")


def test_a_configuration_that_holds_itself(told, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: &data {train: rows.csv, classes: [*data]}\n")
    assert "an alias stands inside of what it names" in told("plan", tmp_path / "mine.yaml")


def test_an_empty_file(train, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    assert "empty" in train(tmp_path / "empty.csv")
    write_csv(tmp_path / "header.csv", [])
    assert "header.csv" in train(tmp_path / "header.csv")


def test_one_class(train, tmp_path):
    source = write_csv(tmp_path / "one.csv", [(text, "sport") for text, _ in ROWS])
    assert "sport" in train(source)


def test_a_missing_column(train, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    sentence = train(source, "data.text=txt")
    assert "no column 'txt', did you mean 'text'?" in sentence


def test_a_missing_text(train, tmp_path):
    table = pa.table({"text": [None, *(text for text, _ in ROWS)], "label": ["sport", *(label for _, label in ROWS)]})
    pq.write_table(table, tmp_path / "nan.parquet")
    assert "row 1 has no text" in train(tmp_path / "nan.parquet")


def test_a_label_unseen_in_training(train, tmp_path):
    source = write_csv(tmp_path / "train.csv", ROWS)
    other = write_csv(tmp_path / "validation.csv", [*ROWS[:9], ("stars and planets", "astrology")])
    assert "'astrology'" in train(source, f"data.validation={other}")


def test_a_line_of_ten_megabytes(train, tmp_path):
    source = write_csv(tmp_path / "long.csv", [*ROWS, ("word " * 2_000_000, "sport")])
    assert "line 62 is longer than" in train(source)


def test_a_wrong_encoding(train, tmp_path):
    source = tmp_path / "latin.csv"
    source.write_bytes("text,label\nGrüße aus Köln,sport\n".encode("latin-1"))
    assert "is not UTF-8: byte 13 (line 2)" in train(source, "data.encoding=utf-8")
    assert "there is no encoding 'utf8x'" in train(source, "data.encoding=utf8x")


def test_a_pickle_is_refused_with_the_way_to_convert_it(train, tmp_path):
    (tmp_path / "test_unlabelled.pkl").write_bytes(b"\x80\x04N.")
    sentence = train(tmp_path / "test_unlabelled.pkl")
    assert "pickle" in sentence
    assert "to_parquet" in sentence


def test_a_file_that_does_not_exist(train, tmp_path):
    assert "nowhere.csv" in train(tmp_path / "nowhere.csv")


def test_a_model_folder_without_weights(train, tiny_model, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "weights" in train(source, model=tmp_path / "model")


def test_truncated_weights(train, tiny_model, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    sentence = train(source, model=tmp_path / "model")
    assert "model.safetensors" in sentence
    assert "truncated" in sentence or "cut" in sentence or "bytes" in sentence


def test_a_hub_model_with_the_hub_refused(train, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    sentence = train(source, model="distilroberta-base")
    assert "distilroberta-base" in sentence
    assert "offline" in sentence.lower() or "Hub" in sentence


def test_an_output_folder_that_cannot_be_written(told, tiny_model, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "run"
    sentence = told("train", f"model.name={tiny_model}", f"data.train={source}", "adapter.rank=2", "--out", out)
    assert "cannot be written" in sentence


def test_over_budget_says_the_excess_and_the_largest_rank(train, tmp_path):
    source = write_csv(tmp_path / "news.csv", ROWS)
    sentence = train(source, "budget.max_trainable=700", "adapter.scope=[query]", "data.num_labels=3", "adapter.rank=8")
    assert "over budget.max_trainable of 700: the largest rank that fits is 4" in sentence


def test_over_budget_in_plan_still_prints_the_json(capsys):
    words = ["model.name=roberta-base", "data.num_labels=4", "adapter.scope=[value]", "adapter.rank=23", "--json"]
    assert main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["trainable"] == 1_017_604
    assert "17,604 over" in printed.err
    assert "largest rank that fits is 22" in printed.err


def test_a_package_that_is_no_model_names_those_that_are(capsys):
    assert main(["plan", "model.name=packaged:nothing", "data.num_labels=4"]) == 2
    assert "expected one of packaged:all-MiniLM-L6-v2, packaged:all-mpnet-base-v2" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["250k", "250_000"])
def test_a_budget_in_words_is_tabled(capsys, budget):
    words = ["model.name=roberta-base", "data.num_labels=4", "head.kind=output", f"budget.max_trainable={budget}"]
    assert main(["plan", *words]) == 0
    assert "largest rank within 250,000 trainable parameters" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["evaluate", "predict", "compare"])
def test_a_folder_that_is_no_run(told, tmp_path, verb):
    (tmp_path / "in.csv").write_text("text\nhello\n")
    more = {"evaluate": [], "predict": [tmp_path / "in.csv", tmp_path / "out.csv"], "compare": [tmp_path]}[verb]
    assert "is not a run's folder" in told(verb, tmp_path, *more)
    assert not (tmp_path / "out.csv").exists()


def test_an_unknown_verb_and_an_unknown_key(told):
    assert "did you mean 'train'" in told("trian")
    assert "did you mean 'adapter.rank'" in told("plan", "rank=3")


@pytest.mark.parametrize(("errors", "expected"), [(subprocess.STDOUT, "True"), (subprocess.PIPE, "False")])
def test_lines_that_stand_on_the_screen_are_told_by_where_they_went(errors, expected):
    asked = "from rankwise.cli import common; print(common.is_one_screen())"
    told = subprocess.run([sys.executable, "-c", asked], stdout=subprocess.PIPE, stderr=errors, check=True, text=True)
    assert told.stdout.strip() == expected
