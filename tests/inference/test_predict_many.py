"""A file labelled by several classifiers at once: columns for each, as each alone gives them."""

import csv
import json
import shutil

import pytest

import rankwise
from rankwise.cli import main

from .test_many import alone, folders  # noqa: F401

TEXTS = ["the goal of the match", "shares of a bank", "", "a planet in orbit"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "new.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([f"r{row}", text] for row, text in enumerate(TEXTS))])
    return path


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_of_every_run(folders, alone, source, tmp_path):  # noqa: F811
    names = ["lora", "several", "whole"]
    out = tmp_path / "out.csv"
    assert (
        main(
            [
                "predict",
                *(str(folders[name]) for name in names),
                str(source),
                str(out),
                "model.name=" + str(base_of(folders)),
            ]
        )
        == 0
    )
    rows = rows_of(out)
    assert list(rows[0]) == ["id", "lora", "lora_p", "several", "several_p", "whole", "whole_p"]
    assert [row["id"] for row in rows] == ["r0", "r1", "r2", "r3"]
    assert [row["lora"] for row in rows] == alone["lora"].predict(TEXTS)
    assert [row["whole"] for row in rows] == alone["whole"].predict(TEXTS)
    assert [row["several"].split("|") if row["several"] else [] for row in rows] == alone["several"].predict(TEXTS)
    expected = alone["lora"].predict_proba(TEXTS).max(1)
    assert [float(row["lora_p"]) for row in rows] == pytest.approx(expected, abs=2e-5)


def test_several_labels_a_text(folders, alone, source, tmp_path, capsys):  # noqa: F811
    answers = alone["several"].predict(TEXTS)
    words = ["predict", str(folders["several"]), str(source)]
    assert main([*words, str(tmp_path / "o.csv")]) == 0
    assert [row["predicted"].split("|") if row["predicted"] else [] for row in rows_of(tmp_path / "o.csv")] == answers
    assert main([*words, str(tmp_path / "o.jsonl")]) == 0
    assert [json.loads(line)["predicted"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == answers
    assert main([*words, str(tmp_path / "k.csv"), "--format", "kaggle"]) == 2
    assert "one label a row" in capsys.readouterr().err
    (tmp_path / "like.csv").write_text("id,labels\nr2,x\nr0,x\n")
    assert main([*words, str(tmp_path / "l.csv"), "--like", str(tmp_path / "like.csv")]) == 0
    assert [row["labels"] for row in rows_of(tmp_path / "l.csv")] == ["|".join(answers[2]), "|".join(answers[0])]


def base_of(folders):  # noqa: F811
    return json.loads((folders["lora"] / "adapter_config.json").read_text())["base_model_name_or_path"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_likeliest_labels(ending, folders, alone, source, tmp_path):  # noqa: F811
    out = tmp_path / f"out.{ending}"
    assert main(["predict", str(folders["upper"]), str(source), str(out), "--top", "3", "--json"]) == 0
    if ending == "csv":
        rows = rows_of(out)
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(out).to_pylist()
    p = alone["upper"].predict_proba(TEXTS)
    for row, shares in zip(rows, p, strict=True):
        best = shares.argsort()[::-1][:3]
        assert [row[f"upper_{place}"] for place in (1, 2, 3)] == [f"upper-{label}" for label in best]
        assert [float(row[f"upper_{place}_p"]) for place in (1, 2, 3)] == pytest.approx(shares[best], abs=2e-5)


def test_what_is_refused(folders, source, tmp_path, capsys):  # noqa: F811
    runs = [str(folders["lora"]), str(folders["dora"])]
    for words, told in (
        ([*runs, str(source), str(tmp_path / "o.csv"), "--format", "kaggle"], "holds one answer a row"),
        ([*runs, str(source), str(tmp_path / "o.csv"), "--like", "x.csv"], "--like cannot apply"),
        ([runs[0], str(source), str(tmp_path / "o.csv"), "--top", "0"], "expected 1 or more"),
        ([runs[0], str(source)], "OUTPUT missing"),
        ([*runs, str(source), str(source)], "file of texts itself"),
    ):
        assert main(["predict", *words]) == 2, words
        assert told in capsys.readouterr().err
    for name in ("id", "lora_p"):  # whose column would stand twice
        shutil.copytree(folders["head"], tmp_path / name)
        assert main(["predict", runs[0], str(tmp_path / name), str(source), str(tmp_path / "o.jsonl")]) == 2
        assert f"two columns would be called '{name}'" in capsys.readouterr().err
    assert rankwise.load(runs[0]).predict([]) == []
    assert list(tmp_path.glob("*o.*")) == []
