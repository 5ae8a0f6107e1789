"""The papers' tables: every point is a valid configuration within its budget, and every row finds its runs."""

import json

import pytest

import rankwise
from rankwise import config as configuration
from rankwise import recipes
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.reporting import paper_table
from rankwise.search.sweep import spec
from rankwise.search.sweep.space import Space

EXPERIMENTS = {
    "noppe-brandon": "scope dropout alpha rank learning-rate schedule weight-decay optimizer steps",
    "dasari": "full-finetuning techniques",
    "sarkar": "table-1 dora initialisation preprocessing schedule",
    "team-yan": "grid epochs",
    "bengochea": "table-1 table-2 table-3 table-4 table-5 table-6 table-7",
}
NAMES = [f"{paper}-{what}" for paper, words in EXPERIMENTS.items() for what in words.split()]


def points(name):
    """The checked configuration of every point of a table."""
    space = Space.of(spec.load(name))
    return [configuration.from_dict(space.tree(point)) for point in space.every_point()]


def value_at(config, dotted):
    value = configuration.to_dict(config)
    for part in dotted.split("."):
        value = value[part]
    return value


def test_every_experiment_of_the_papers_has_a_table():
    assert recipes.table_names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_point_is_valid_and_within_its_budget(name):
    for config in points(name):
        assert rankwise.plan(config).fits


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_paper_is_one_point_of_its_search(name):
    found = points(name)
    for row in paper_table.load(name).rows:
        hits = [config for config in found if all(value_at(config, key) == value for key, value in row.at.items())]
        assert len(hits) == 1, row.at


def test_the_counts_of_the_tables_are_the_papers():
    def counts(name):
        return [rankwise.plan(config).trainable for config in points(name)]

    assert counts("noppe-brandon-scope") == [999_172, 999_172, 980_740, 999_172, 999_172, 999_172, 999_172]
    assert counts("noppe-brandon-rank") == [704_260, 796_420, 999_172]
    assert sorted(set(counts("bengochea-table-1"))) == [
        612_100, 630_532, 648_964, 667_396, 704_260, 741_124, 759_556, 814_852
    ]  # fmt: skip
    assert set(counts("bengochea-table-5")) == {925_444}
    assert counts("sarkar-table-1") == [888_580, 741_124, 741_124, 741_124, 741_124, 925_444, 796_420]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model, news):
    """Two finished runs, at two rows of the first paper's dropout table."""
    folder = tmp_path_factory.mktemp("search")
    base = [f"model.name={tiny_model}", f"data.train={news['train']}", "data.num_labels=3", "data.validation_size=60"]
    short = ["data.max_length=32", "train.steps=4", "train.warmup_steps=1", "train.eval_every=2", "engine=reference"]
    for dropout in (0.05, 0.15):
        words = [*base, *short, f"adapter.dropout={dropout}"]
        rankwise.train("noppe-brandon", words, out=folder / "trials" / str(dropout))
    return folder


def test_the_papers_numbers_stand_beside_ours_with_intervals(runs, capsys):
    assert main(["recipes", "table", "noppe-brandon-dropout", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["paper"].get("stated") for row in rows] == [91.09, 91.41, None]
    assert rows[1]["ours"] is None
    ours = rows[0]["ours"]
    result = json.loads((runs / "trials" / "0.05" / "result.json").read_text())
    assert ours["accuracy"] == result["metrics"]["validation"]["accuracy"]
    assert ours["accuracy_ci95"] == result["metrics"]["validation"]["accuracy_ci95"]
    assert ours["peak"] >= ours["last"]
    assert main(["recipes", "table", "noppe-brandon-dropout", str(runs)]) == 0
    text = capsys.readouterr().out
    low, high = ours["accuracy_ci95"]
    assert f"{100 * low:.2f} to {100 * high:.2f}" in text
    assert "rankwise search noppe-brandon-dropout" in text


def test_a_table_is_shown_copied_and_misspelt_like_a_recipe(tmp_path, capsys):
    assert main(["recipes", "copy", "sarkar-dora", str(tmp_path / "mine.yaml")]) == 0
    assert spec.load(tmp_path / "mine.yaml").axes == {"adapter.rslora": [False, True]}
    with pytest.raises(UserError, match="did you mean 'sarkar-dora'"):
        paper_table.load("sarkar-dorra")
    with pytest.raises(UserError, match="no finished run"):
        paper_table.load("sarkar-dora", tmp_path)


def test_a_papers_search_ends_with_its_table_beside_ours(tiny_model, news, tmp_path, capsys):
    words = [f"model.name={tiny_model}", f"data.train={news['train']}", "data.validation_size=20", "data.max_length=32"]
    short = ["train.steps=2", "train.warmup_steps=1", "train.eval_every=1", "seeds=1"]
    assert main(["search", "noppe-brandon-dropout", *words, *short, "--out", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    assert "winner: trial " in shown
    assert "paper peak" in shown
    assert "95% interval" in shown.partition("winner: trial ")[2]
    assert "rows without a run of ours" not in shown
