"""Predicting files: every format, the order of rows, and memory that does not grow with them."""

import csv
import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from support import sentences, write_csv


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, news):
    tree = {
        "model": {"name": str(tiny_model)},
        "adapter": {"rank": 2},
        "data": {"train": str(news["train"]), "max_length": 32},
        "train": {"steps": 30, "batch_size": 16, "learning_rate": 1e-2},
    }
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of 50 texts, some of them repeated, of unequal lengths."""
    rows = sentences(50, seed=4)
    return write_csv(tmp_path_factory.mktemp("texts") / "new.csv", rows), [text for text, _ in rows]


def test_every_format_holds_the_same_predictions_in_the_order_of_rows(run, texts, tmp_path):
    source, rows = texts
    expected = rankwise.load(run).predict(rows)
    outputs = {ending: tmp_path / f"out.{ending}" for ending in ("csv", "jsonl", "parquet")}
    for path in outputs.values():
        assert main(["predict", str(run.path), str(source), str(path)]) == 0
    with outputs["csv"].open(encoding="utf-8") as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == expected
    lines = outputs["jsonl"].read_text().splitlines()
    assert [json.loads(line)["predicted"] for line in lines] == expected
    table = pq.read_table(outputs["parquet"])
    assert table["predicted"].to_pylist() == expected
    assert table["id"].to_pylist() == list(range(50))
    total = sum(table[name].to_numpy() for name in table.column_names if name.startswith("p_"))
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_the_papers_hidden_test_file(run, texts, tmp_path):
    source, rows = texts
    predictor = rankwise.load(run)
    assert main(["predict", str(run.path), str(source), str(tmp_path / "sub.csv"), "--format", "kaggle"]) == 0
    lines = (tmp_path / "sub.csv").read_text().splitlines()
    assert lines[0] == "ID,Label"
    expected = [predictor.label_names.index(name) for name in predictor.predict(rows)]
    assert [tuple(map(int, line.split(","))) for line in lines[1:]] == list(enumerate(expected))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, tiny_model):
    """A run whose labels are the numbers 1 to 3 in a column of its own name."""
    topics = {"sport": "1", "business": "2", "science": "3"}
    folder = tmp_path_factory.mktemp("numbered")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "keyword", "text", "target"])
        rows.writerows([7 * n, "", text, topics[topic]] for n, (text, topic) in enumerate(sentences(60, 1)))
    tree = {
        "model": {"name": str(tiny_model)},
        "adapter": {"rank": 2},
        "data": {"train": str(folder / "train.csv"), "text": "text", "label": "target", "max_length": 24},
        "train": {"steps": 2},
    }
    return rankwise.train(tree, out=folder / "run")


def test_a_submission_carries_the_files_ids_and_the_labels_of_training(numbered, tmp_path, capsys):
    (tmp_path / "test.csv").write_text('id,keyword,text\n0,,"a goal, again"\n2,,shares fell\n9,,\n')
    answers = rankwise.load(numbered).predict(["a goal, again", "shares fell", ""])
    assert set(answers) <= {"1", "2", "3"}
    words = ["predict", str(numbered.path), str(tmp_path / "test.csv"), str(tmp_path / "sub.csv"), "--format", "kaggle"]
    for options, header in (([], "id,target"), (["--kaggle-header", "ID,label"], "ID,label")):
        assert main([*words, *options]) == 0
        lines = (tmp_path / "sub.csv").read_text().splitlines()
        assert lines == [header, *(f"{name},{answer}" for name, answer in zip((0, 2, 9), answers, strict=True))]
    assert "1 row without a text got the answer of an empty one" in capsys.readouterr().err
    assert main([*words, "--empty", "refuse"]) == 2
    assert "row 3 (line 4) has no text" in capsys.readouterr().err
    assert main([*words, "--kaggle-header", "a,b,c"]) == 2
    assert "expected two: the id and the label" in capsys.readouterr().err
    (tmp_path / "plain.csv").write_text("text\na goal\n")
    words[2] = str(tmp_path / "plain.csv")
    assert main(words) == 0
    (answer,) = rankwise.load(numbered).predict(["a goal"])
    assert (tmp_path / "sub.csv").read_text() == f"ID,Label\n0,{answer}\n", "numbers are never numbered anew"


def test_a_sample_submission_decides_columns_order_and_ids(run, tmp_path, capsys):
    (tmp_path / "test.csv").write_text("tweet_id,text\na1,the match\na2,the bank\na3,a planet\n")
    predictor = rankwise.load(run)
    answers = dict(zip(("a1", "a2", "a3"), predictor.predict(["the match", "the bank", "a planet"]), strict=True))
    (tmp_path / "like.csv").write_text("tweet_id,sentiment\na3,x\na1,x\n")
    words = ["predict", str(run.path), str(tmp_path / "test.csv"), str(tmp_path / "sub.csv"), "--like"]
    assert main([*words, str(tmp_path / "like.csv")]) == 0
    assert (tmp_path / "sub.csv").read_text() == f"tweet_id,sentiment\na3,{answers['a3']}\na1,{answers['a1']}\n"
    (tmp_path / "shares.csv").write_text("tweet_id,sport,business\na2,0,0\na1,0,0\na3,0,0\n")
    assert main([*words, str(tmp_path / "shares.csv")]) == 0
    with (tmp_path / "sub.csv").open() as file:
        rows = list(csv.DictReader(file))
    place = predictor.label_names.index("sport")
    assert [row["tweet_id"] for row in rows] == ["a2", "a1", "a3"]
    assert float(rows[1]["sport"]) == pytest.approx(predictor.predict_proba(["the match"])[0][place], abs=1e-5)
    for content, sentence in (("id,x\na9,0\n", "the id a9, one of 1"), ("id,sport,z\na1,0,0\n", "'z' is no class")):
        (tmp_path / "bad.csv").write_text(content)
        before = (tmp_path / "sub.csv").read_bytes()
        assert main([*words, str(tmp_path / "bad.csv")]) == 2
        assert sentence in capsys.readouterr().err
        assert (tmp_path / "sub.csv").read_bytes() == before


def test_names_become_numbers_only_in_the_papers_file_and_are_told(run, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("text\nthe match\n")
    assert (
        main(["predict", str(run.path), str(tmp_path / "new.csv"), str(tmp_path / "s.csv"), "--format", "kaggle"]) == 0
    )
    assert "labels are written as numbers: 0 is business, 1 is science, 2 is sport" in capsys.readouterr().err
    words = ["--format", "kaggle", "--kaggle-header", "row,topic"]
    assert main(["predict", str(run.path), str(tmp_path / "new.csv"), str(tmp_path / "s.csv"), *words]) == 0
    assert (tmp_path / "s.csv").read_text() == f"row,topic\n0,{rankwise.load(run).predict(['the match'])[0]}\n"


def test_texts_may_be_written_in_any_way(run, tmp_path, capsys):
    rows = [("caf\u00e9; \u2019s match", "x"), ("the bank", "y")]
    content = "text\tother\n" + "".join(f"{text}\t{other}\n" for text, other in rows)
    (tmp_path / "new.txt").write_bytes(content.encode("cp1252"))
    expected = rankwise.load(run).predict([text for text, _ in rows])
    words = ["predict", str(run.path), str(tmp_path / "new.txt"), str(tmp_path / "out.csv")]
    for options in ([], ["data.encoding=cp1252", "data.delimiter=tab", "data.header=true"]):
        assert main([*words, *options]) == 0
        assert "Windows-1252, tabs, 2 rows" in capsys.readouterr().out
        with (tmp_path / "out.csv").open(encoding="utf-8") as file:
            assert [row["predicted"] for row in csv.DictReader(file)] == expected
    assert main([*words, "data.label=x"]) == 2
    assert "'data.label=x' cannot change at prediction" in capsys.readouterr().err


def test_a_header_is_refused_where_the_format_has_none(run, texts, tmp_path, capsys):
    source, _ = texts
    words = ["predict", str(run.path), str(source), str(tmp_path / "out.csv"), "--kaggle-header", "ID,label"]
    assert main(words) == 2
    assert "a kaggle header cannot apply to csv: add --format kaggle" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_a_comma_in_a_columns_name(run, tmp_path):
    (tmp_path / "test.csv").write_text('"row, id",text\n7,a goal\n9,shares fell\n')
    sub = tmp_path / "sub.csv"
    assert main(["predict", str(run.path), str(tmp_path / "test.csv"), str(sub), "--format", "kaggle"]) == 0
    assert sub.read_text().splitlines()[0] == '"row, id",label'


def test_halves_of_characters_in_ids(run, tmp_path):
    source = tmp_path / "new.jsonl"
    source.write_text('{"id": "a\\ud83d", "text": "the goal"}\n{"id": "\\ud83d\\ude42", "text": "the bank"}\n')
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        assert main(["predict", str(run.path), str(source), str(tmp_path / name)]) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["a\ufffd", "\U0001f642"]


def test_packed_in_and_out(run, texts, tmp_path, capsys):
    source, _ = texts
    packed = tmp_path / "new.csv.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    for name in ("out.csv", "out.csv.gz", "out.jsonl", "out.jsonl.gz"):
        assert main(["predict", str(run.path), str(packed), str(tmp_path / name)]) == 0
    for name in ("out.csv", "out.jsonl"):
        assert gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) == (tmp_path / name).read_bytes()
    assert main(["predict", str(run.path), str(packed), str(tmp_path / "out.parquet.gz")]) == 2
    assert "Parquet is packed in itself, leave .gz out" in capsys.readouterr().err


def test_the_texts_are_not_overwritten(run, texts, tmp_path, capsys):
    source, _ = texts
    (tmp_path / "mine.csv").write_bytes(source.read_bytes())
    (tmp_path / "link.csv").symlink_to(tmp_path / "mine.csv")
    for target in ("mine.csv", "link.csv"):
        assert main(["predict", str(run.path), str(tmp_path / "mine.csv"), str(tmp_path / target)]) == 2
        assert "is the file of texts itself" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_bytes() == source.read_bytes()


def test_one_string_is_no_sequence_of_texts(run):
    predictor = rankwise.load(run)
    with pytest.raises(UserError, match="got one string"):
        predictor.predict("hello")
    assert len(predictor.predict(text for text in ("a", "b"))) == 2


def test_an_adapter_folder_alone_predicts_the_same(run, texts, tmp_path):
    _, rows = texts
    alone, whole = rankwise.load(run.adapter), rankwise.load(run)
    np.testing.assert_allclose(alone.predict_proba(rows), whole.predict_proba(rows), atol=1e-6)


def test_a_failure_leaves_no_file(run, texts, tmp_path, capsys):
    source, _ = texts
    for target in (tmp_path / "out.xlsx", tmp_path / "missing" / "out.csv"):
        assert main(["predict", str(run.path), str(source), str(target)]) == 2
        assert not target.exists()
    assert main(["predict", str(run.path), str(source), str(tmp_path / "out.csv"), "--text", "body"]) == 2
    assert "no column 'body'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_rows(run, tmp_path):
    peaks = [peak_mb(run, tmp_path, rows) for rows in (20_000, 400_000)]
    assert peaks[1] - peaks[0] < 40, peaks


def peak_mb(run, folder, rows: int) -> float:
    """The peak resident memory of predicting a file of so many rows, with a predictor that costs nothing."""
    source = folder / f"{rows}.csv"
    with source.open("w") as file:
        file.write("text\n")
        file.writelines(f"row {row} of a file that is longer than memory should care about\n" for row in range(rows))
    code = f"""
import numpy as np
from rankwise.machine import description
from rankwise.inference import predict_file
class Cheap:
    label_names, multi_label, computes_with = ["a", "b", "c"], False, ""
    def predict_proba(self, texts):
        return np.full((len(texts), 3), 1 / 3)
    def decide(self, probabilities):
        return probabilities.argmax(1)
predict_file.predictor_of = lambda *_, **__: Cheap()
outcome = predict_file.predict_file({str(run.path)!r}, {str(source)!r}, {str(folder / f"{rows}.parquet")!r})
assert outcome["rows"] == {rows}, outcome
print(description.peak_mb())
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(outcome.stdout)
