"""The shipped recipes: their counts, their files, and that each of them trains."""

import json
import os
from pathlib import Path

import pytest

import rankwise
from rankwise import config as configuration
from rankwise import recipes
from rankwise.cli import main

COUNTS = {
    "noppe-brandon": 999_172,
    "dasari-as-written": 888_580,
    "dasari-as-run": 888_580,
    "sarkar": 759_556,
    "team-yan": 759_556,
    "bengochea-low": 704_260,
    "bengochea-high": 925_444,
}
# A folder with config.json and tokenizer of roberta-base; weights are not needed.
ROBERTA = os.environ.get("RANKWISE_TEST_ROBERTA", "")
SHORT = [
    "train.epochs=null",
    "train.steps=2",
    "train.warmup_steps=null",
    "train.warmup_ratio=0.5",
    "train.eval_every=1",
]


def data_of(news) -> list[str]:
    return [f"data.train={news['train']}", "data.validation_size=6"]


def test_the_list_shows_seven_recipes_with_their_exact_counts(capsys):
    assert main(["recipes", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert {row["name"]: row["trainable"] for row in rows} == COUNTS
    assert all(row["summary"].endswith(".") for row in rows)
    assert "assumed" in next(row["summary"] for row in rows if row["name"] == "team-yan")


@pytest.mark.parametrize("name", list(COUNTS))
def test_a_recipe_says_its_source_and_fits_its_budget(name):
    text = recipes.path(name).read_text(encoding="utf-8")
    assert "# Source:" in text
    assert "# Reported:" in text or "states no accuracy" in text
    plan = rankwise.plan(name)
    assert plan.fits
    assert plan.budget == 1_000_000
    assert configuration.load(name).data.train == "ag_news"


@pytest.mark.parametrize("name", list(COUNTS))
def test_two_overrides_bring_a_recipe_to_other_models_and_data(name, tiny_model, news, tmp_path):
    two = [f"model.name={tiny_model}", f"data.train={news['train']}"]
    planned = rankwise.plan(name, two, num_labels=3)
    assert planned.fits
    # Three classes instead of the recipe's four. The rest makes it short, for an encoder of 64 tokens and 240 rows.
    small = ["data.validation_size=20", "data.max_length=32", *SHORT]
    run = rankwise.train(name, [*two, *small], out=tmp_path / "run")
    assert run.result["timing"]["steps"] == 2
    assert run.result["parameters"]["trainable"] == planned.trainable
    recipe, used = configuration.load(name), run.config
    assert used.adapter.rank == recipe.adapter.rank
    assert used.train.learning_rate == recipe.train.learning_rate
    assert used.train.optimizer == recipe.train.optimizer
    assert run.result["parameters"]["trainable"] == rankwise.plan(used).trainable


@pytest.mark.slow
@pytest.mark.skipif(
    not ROBERTA, reason="RANKWISE_TEST_ROBERTA names no folder with roberta-base's config and tokenizer"
)
@pytest.mark.parametrize("name", list(COUNTS))
def test_a_recipe_trains_on_the_real_architecture(name, news, tmp_path):
    words = [f"model.name={Path(ROBERTA)}", "model.random_weights=true", *data_of(news)]
    small = ["train.batch_size=4", "train.accumulate=1"]
    run = rankwise.train(name, [*words, *SHORT, *small, "train.eval_every=2"], out=tmp_path / "run")
    assert run.result["timing"]["steps"] == 2
    # One class less than AG News takes one row of the projection away.
    assert run.result["parameters"]["trainable"] == COUNTS[name] - 769
