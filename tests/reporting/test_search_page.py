"""A search's page: every trial, the groups, and searches that hold nothing yet."""

import json

import pytest

from rankwise.reporting import report
from rankwise.scoring import predictions
from reporting.made import search_folder
from reporting.pages import Page, resolve, shown_value


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    return search_folder(tmp_path_factory.mktemp("searches") / "twelve", 12, with_runs=12)


def test_every_number_is_the_searchs_number(twelve):
    html = report(twelve).read_text(encoding="utf-8")
    search = json.loads((twelve / "search.json").read_text(encoding="utf-8"))
    page = Page(html)
    own = [number for number in page.numbers if number.at.startswith("/search/")]
    assert len(own) > 100
    for number in own:
        value = resolve({"search": search}, number.at)
        assert number.value == ("" if value is None else repr(value)), number
    for number in page.numbers:
        if number.value:
            shown, rounding = shown_value(number)
            assert abs(shown - float(number.value)) <= rounding, number
    allowed = ("95% interval", "Green", "Means over the seeds", "By ")
    assert [text for text in page.stray if not text.startswith(allowed)] == []


def test_agreement_is_that_of_the_predictions(twelve):
    page = Page(report(twelve).read_text(encoding="utf-8"))
    cells = {number.at: float(number.value) for number in page.numbers if number.at.startswith("/derived/agreement")}
    search = json.loads((twelve / "search.json").read_text())
    done = [row["trial"] for row in search["table"] if row["status"] == "done"]
    first, second = (predictions.read(twelve / f"trials/{number:04d}", "validation").predicted for number in done[:2])
    assert cells["/derived/agreement/0/1"] == pytest.approx((first == second).mean())
    assert len(cells) == len(done) ** 2


def test_means_by_value(twelve):
    page = Page(report(twelve).read_text(encoding="utf-8"))
    search = json.loads((twelve / "search.json").read_text())
    rows = [row for row in search["table"] if row["chosen"] is not None and row["point"]["adapter.dropout"] == 0.05]
    means = [
        n for n in page.numbers if n.at.startswith("/derived/by_value/adapter.dropout/") and n.at.endswith("/mean")
    ]
    assert pytest.approx(sum(row["chosen"] for row in rows) / len(rows)) in [float(n.value) for n in means]


def test_two_hundred_trials(tmp_path):
    html = report(search_folder(tmp_path / "many", 200)).read_text(encoding="utf-8")
    assert sum(number.at.endswith("/trainable") for number in Page(html).numbers) == 201  # and the winner's card
    assert len(html) < 1_000_000


@pytest.mark.parametrize("trials", [0, 1])
def test_nearly_nothing(tmp_path, trials):
    html = report(search_folder(tmp_path / "few", trials)).read_text(encoding="utf-8")
    trainable = [number for number in Page(html).numbers if number.at.endswith("/trainable")]
    assert len(trainable) == 2 * trials  # a row of the table, and the winner's card


def test_no_trial_has_a_score(tmp_path):
    folder = search_folder(tmp_path / "failed", 3)
    search = json.loads((folder / "search.json").read_text())
    for row in search["table"]:
        row |= {"status": "failed", "peak": None, "chosen": None, "final": None, "chosen_ci95": None, "loss": None}
        row["in_best_group"] = False
    (folder / "search.json").write_text(json.dumps(search | {"winner": None, "status": "running"}))
    html = report(folder).read_text(encoding="utf-8")
    assert "no winner yet" in html
    assert "--resume" in html
