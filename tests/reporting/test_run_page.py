"""A run's page says what its files say, whatever state the run is in."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import yaml

from rankwise.errors import UserError
from rankwise.reporting import report
from rankwise.scoring import predictions
from reporting.pages import Page, resolve, shown_value


@pytest.fixture(scope="module")
def html(finished, tmp_path_factory):
    return report(finished, tmp_path_factory.mktemp("page") / "run.html").read_text(encoding="utf-8")


def copied(run, tmp_path, name="copy"):
    folder = tmp_path / name
    shutil.copytree(run, folder)
    return folder


def change(folder, **changes):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_number_is_the_files_number(finished, html):
    """The files are read here by other means than the page's own."""
    rows = [
        {name: float(cell) if cell else None for name, cell in row.items()}
        for row in csv.DictReader((finished / "history.csv").open(encoding="utf-8"))
    ]
    sources = {
        "result": json.loads((finished / "result.json").read_text(encoding="utf-8")),
        "config": yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8")),
        "history": rows,
    }
    page = Page(html)
    checked = 0
    for number in page.numbers:
        source = number.at.split("/")[1]
        if number.value == "":
            assert number.shown == "–"
        else:
            shown, rounding = shown_value(number)
            assert abs(shown - float(number.value)) <= rounding, number
        if source in sources:
            value = resolve(sources, number.at)
            assert number.value == ("" if value is None else repr(value)), number
            checked += 1
    assert checked > 150
    assert {"derived", "lowest_recall"} >= {number.at.split("/")[1] for number in page.numbers} - set(sources)


def test_no_number_stands_without_its_source(html):
    """Words that hold a digit by their nature are named here; any other digit needs a mark."""
    words = re.compile(r"95% intervals?|95th percentile|macro F1|weighted F1|F1|95% \(Wilson\)|sha256|to 1$")
    assert [text for text in Page(html).stray if re.search(r"\d", words.sub("", text))] == []


def test_derived_numbers_follow_from_the_predictions(finished, html):
    read = predictions.read(finished, "test")
    right = read.labels == read.predicted
    numbers = {number.at: float(number.value) for number in Page(html).numbers if number.at.startswith("/derived")}
    assert numbers["/derived/mistakes/test/wrong"] == (~right).sum()
    surest = np.sort(read.probabilities.max(axis=1)[~right])[::-1]
    shown = [value for at, value in numbers.items() if at.startswith("/derived/mistakes/test/examples")]
    assert shown == pytest.approx(surest[: len(shown)].tolist())
    result = json.loads((finished / "result.json").read_text())
    assert numbers["/derived/left"] == 20_000 - result["parameters"]["trainable"]


def test_mistakes_show_their_texts(finished, html, news):
    read = predictions.read(finished, "test")
    texts = [row["text"] for row in csv.DictReader(news["test"].open(encoding="utf-8"))]
    wrong = np.flatnonzero(read.labels != read.predicted)
    assert len(wrong)
    assert any(" ".join(texts[row].split()) in html for row in wrong)


def test_mistakes_fall_back_to_ids(finished, tmp_path, news):
    folder = copied(finished, tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["test"] = str(tmp_path / "gone.csv")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    html = report(folder).read_text(encoding="utf-8")
    assert "only their ids" in html
    assert "gone.csv" in html


def test_other_rows_are_not_shown_as_the_scored_ones(finished, tmp_path, news):
    folder = copied(finished, tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["test"] = str(tmp_path / "changed.csv")
    (tmp_path / "changed.csv").write_text(news["test"].read_text(encoding="utf-8").replace(" the ", " other "))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "no longer holds the rows that were scored" in report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_unfinished_runs_have_a_page(finished, tmp_path, status):
    folder = copied(finished, tmp_path)
    for file in ("history.csv", "predictions_test.parquet", "predictions_validation.parquet", "test_looks.jsonl"):
        (folder / file).unlink()
    change(folder, status=status, metrics={}, error="RuntimeError: <script>alert(1)</script>")
    html = report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert "--resume" in html
    assert "<script>alert" not in html
    assert not any(number.at.startswith("/result/metrics") for number in page.numbers)


def test_texts_cannot_inject(finished, tmp_path, tiny_model):
    folder = copied(finished, tmp_path)
    change(folder, notes=["<img src=x onerror=alert(1)>"])
    assert "<img" not in report(folder).read_text(encoding="utf-8")


def test_many_classes_fall_back_to_the_commonest_confusions(finished, tmp_path):
    folder = copied(finished, tmp_path)
    result = json.loads((folder / "result.json").read_text())
    names = [f"class {letter}{other}" for letter in "abcdef" for other in "uvwxyz"]
    scores = result["metrics"]["test"]
    row = {"precision": 0.5, "recall": 0.5, "recall_ci95": [0.25, 0.75], "f1": 0.5, "support": 4}
    scores["per_class"] = dict.fromkeys(names, row)
    scores["true_mix"] = scores["predicted_mix"] = dict.fromkeys(names, 1 / 36)
    scores["confusion"] = [[(7 if a == b + 1 else 2 if a == b else 0) for b in range(36)] for a in range(36)]
    texts = result["texts"]
    texts["balance"] = {role: dict.fromkeys(names, 1) for role in texts["balance"]}
    change(folder, metrics={"test": scores}, labels=names, texts=texts)
    html = report(folder, texts=False).read_text(encoding="utf-8")
    assert "commonest confusions" in html
    found = [number for number in Page(html).numbers if number.at.startswith("/result/metrics/test/confusion")]
    assert [number.value for number in found] == ["7"] * 30


def test_class_names_are_drawn_as_they_are_and_are_no_formulas(finished, tmp_path):
    folder = copied(finished, tmp_path)
    text = (folder / "result.json").read_text(encoding="utf-8")
    (folder / "result.json").write_text(text.replace('"sport"', '"$100 _to_ {$"'), encoding="utf-8")
    for path in folder.glob("predictions_*.parquet"):
        path.unlink()
    report(folder, tmp_path / "page.html", figures=tmp_path / "figures", texts=False)
    drawn = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "figures").glob("*.svg"))
    assert "$100 _to_ {$" in drawn


def test_figures_are_written_as_svg_and_png(finished, tmp_path):
    report(finished, tmp_path / "page.html", figures=tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"curves-loss.svg", "curves-loss.png", "reliability-test.svg", "mix-test.png"} <= names
    assert "var(--" not in (tmp_path / "figures" / "curves-loss.svg").read_text(encoding="utf-8")


def test_the_page_is_repeatable(finished, html, tmp_path):
    assert report(finished, tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        report(tmp_path)
