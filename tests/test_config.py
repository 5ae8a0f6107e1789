"""The configuration tree: what is read, what is refused and in which words."""

import numpy as np
import pytest

from rankwise import config as configuration
from rankwise import planning, recipes
from rankwise.cli.common import source_and_overrides
from rankwise.config import Config
from rankwise.errors import UserError


def test_yaml_reads_back_to_the_same_configuration_and_hash():
    config = configuration.load(None, ["adapter.scope=[value]", "adapter.rank=22", "train.learning_rate=5e-4"])
    again = configuration.from_dict(configuration.parse_yaml(configuration.to_yaml(config), "text"))
    assert again == config
    assert configuration.config_hash(again) == configuration.config_hash(config)
    assert configuration.config_hash(config) != configuration.config_hash(Config())


@pytest.mark.parametrize("word", ["5e-4", "5.0e-4", "0.0005", ".0005"])
def test_every_spelling_of_a_small_rate_is_a_number(word):
    assert configuration.load(None, [f"train.learning_rate={word}"]).train.learning_rate == 0.0005


def test_words_that_yaml_1_1_takes_for_booleans_stay_words():
    assert configuration.load(None, ["data.label=no"]).data.label == "no"


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("model.revision=0123456", "revision", "0123456"),
        ("model.revision=12e3456", "revision", "12e3456"),
        ("model.revision=1234567", "revision", "1234567"),
        ("model.revision=2020-01-01", "revision", "2020-01-01"),
        ("model.revision=true", "revision", "true"),
        ("model.revision=null", "revision", None),
        ("data.label=1:30", "label", "1:30"),
        ("data.label=017", "label", "017"),
        ("data.label=1.50", "label", "1.50"),
        ("data.text=[2, 010]", "text", ["2", "010"]),
        ("train.steps=010", "steps", 10),
        ("train.steps=1e3", "steps", 1000),
        ("train.steps=1_000", "steps", 1000),
        ("adapter.rank=017", "rank", 17),
        ("data.validation_size=0.2", "validation_size", 0.2),
        ("train.learning_rate=1e-5", "learning_rate", 1e-5),
    ],
)
def test_values_stay_what_they_look_like(word, key, value, tmp_path):
    config = configuration.load(None, [word])
    section = word.partition(".")[0]
    assert getattr(getattr(config, section), key) == value
    (tmp_path / "saved.yaml").write_text(configuration.to_yaml(config), encoding="utf-8")
    assert configuration.load(tmp_path / "saved.yaml") == config
    if not word.endswith(("12e3456", "true", "1.50")):  # where the key does not say so, these are no words
        (tmp_path / "own.yaml").write_text(f"{section}: {{{word.partition('.')[2].replace('=', ': ')}}}")
        assert configuration.load(tmp_path / "own.yaml") == config


@pytest.mark.parametrize("text", ["1e6", "1_000_000", "1M", "1e+06", "01_000_000"])
def test_a_million_is_a_million(text):
    assert configuration.max_trainable(configuration.load(None, [f"budget.max_trainable={text}"])) == 1_000_000


def test_a_path_may_hold_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1e-3").mkdir()
    for name in ("lr=1e-3/mine.yaml", "lr=5.yaml"):
        (tmp_path / name).write_text("adapter: {rank: 3}")
        source, overrides = source_and_overrides([name, "train.steps=5", "data.train=a=b.csv"])
        assert (source, overrides) == (name, ["train.steps=5", "data.train=a=b.csv"])
    assert source_and_overrides([f"{tmp_path}/lr=1e-3/mine.yaml"])[0] == f"{tmp_path}/lr=1e-3/mine.yaml"
    assert source_and_overrides(["adaptr.rank=3"]) == (None, ["adaptr.rank=3"])
    for unwritten in ("lr=1e-3/out.csv", "lr=1e-3.csv"):
        assert source_and_overrides([unwritten])[0] == unwritten
    assert source_and_overrides(["rank=8"]) == (None, ["rank=8"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("budget.max_trainable=1e-3", "expected a whole number or text or null, got 0.001"),
        ("data.quotes=[a]", "expected text or true or false, got"),
        ("data.validation_size=x", "expected a whole number or a number or null, got .x."),
    ],
)
def test_types_are_said_in_words(word, said):
    with pytest.raises(UserError, match=said):
        configuration.load(None, [word])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["adapter.rnk=8"], "unknown key 'adapter.rnk', did you mean 'adapter.rank'?"),
        (["rank=8"], "unknown key 'rank', did you mean 'adapter.rank'?"),
        (["adapter.rank=0"], "adapter.rank: expected a whole number >= 1, got 0"),
        (["adapter.rank=max8"], "unknown value, got 'max8'; expected a number or max"),
        (["adapter.scope=value"], r"adapter.scope: expected a list, got 'value'; write"),
        (["adapter.layers=3"], "adapter.layers: expected a list or null, got 3"),
        (
            ["data.augment={word_swp: 0.5}"],
            "data.augment: unknown value.*expected one of sentence_shuffle, word_dropout",
        ),
        (["adapter.scope=[vale]"], "adapter.scope.*'vale'; expected one of query, key, value"),
        (["train.optimizer=adamx"], "'adamx'; expected one of adamw"),
        (["adapter.alpha=twice"], "multiple of the rank such as '2r', got 'twice'"),
        (["budget.max_trainable=lots"], "250k or 1M, got 'lots'"),
        (["budget.max_trainable=0"], "budget.max_trainable"),
        (["adapter"], "'adapter' is not an override"),
        (["train.steps=1", "train.epochs=2"], "train.steps and train.epochs"),
        (["train.warmup_steps=1", "train.warmup_ratio=0.1"], "train.warmup_steps and train.warmup_ratio"),
        (["adapter.method=ia3", "adapter.dora=true"], "adapter.dora: true cannot apply to adapter.method: ia3"),
        (["adapter.method=bitfit", "train.loraplus_ratio=4"], "train.loraplus_ratio cannot apply to adapter.method"),
        (["train.evaluate=false", "train.schedule=plateau"], "train.schedule: plateau needs train.evaluate"),
        (["train.evaluate=false", "train.early_stopping={patience: 2}"], "train.early_stopping needs train.evaluate"),
        (["adapter.scope=[]"], "adapter.scope is empty"),
        (["adapter={"], "not valid YAML"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(words, sentence):
    with pytest.raises(UserError, match=sentence.replace("[", r"\[").replace("?", r"\?").replace("{", r"\{")) as caught:
        configuration.load(None, words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"), [("1M", 1_000_000), ("250k", 250_000), ("1.5M", 1_500_000), ("1_000_000", 1_000_000)]
)
def test_a_budget_is_read_as_people_write_it(text, count):
    config = configuration.load({"budget": {"max_trainable": text}})
    assert configuration.max_trainable(config) == count


def test_a_pattern_may_name_a_layer_by_number():
    config = configuration.load(None, ["adapter.rank_pattern={11: 4, value: 2}"])
    assert config.adapter.rank_pattern == {"11": 4, "value": 2}


def test_alpha_follows_the_rank_or_stands_alone():
    assert configuration.alpha_of("2r", 8) == 16
    assert configuration.alpha_of("0.5r", 8) == 4
    assert configuration.alpha_of("r", 8) == 8
    assert configuration.alpha_of(44, 22) == 44


def test_a_file_that_is_missing_or_no_mapping_is_named(tmp_path):
    with pytest.raises(UserError, match="no recipe or file 'noppe-brandn', did you mean 'noppe-brandon'"):
        configuration.load("noppe-brandn")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="holds a list, expected keys"):
        configuration.load(tmp_path / "list.yaml")
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(UserError, match=r"rows of data are named by data\.train="):
        configuration.load(tmp_path / "rows.csv")


UNUSED = [
    ("adapter.rank=8", "adapter.method: bitfit", "lora"),
    ("adapter.rank=8", "adapter.method: ia3", "vera"),
    ("adapter.alpha=8", "adapter.method: vera", "adalora"),
    ("adapter.scope=all", "adapter.method: head", "ia3"),
    ("adapter.dropout=0.3", "adapter.method: prompt", "lora"),
    ("adapter.virtual_tokens=5", "adapter.method: lora", "prefix"),
    ("head.rank=4", "head.kind: output", "low_rank"),
    ("train.betas=[0.8, 0.9]", "train.optimizer: sgd", "muon"),
    ("train.epsilon=1.0e-6", "train.optimizer: sgd", "rmsprop"),
    ("train.cycles=4", "train.schedule: linear", "step"),
    ("train.decay=0.1", "train.schedule: cosine", "plateau"),
    ("train.power=1", "train.schedule: cosine", "polynomial"),
    ("train.plateau_patience=3", "train.schedule: step", "plateau"),
    ("train.eval_every=5", "train.evaluate: false", "true"),
    ("train.select={metric: loss}", "train.evaluate: false", "true"),
    ("data.validation=some.csv", "train.evaluate: false", "true"),
    ("data.validation_size=0.5", "train.evaluate: false", "true"),
    ("data.label_separator=;", "data.multi_label: false", "true"),
]


@pytest.mark.parametrize(("set_to", "left_by", "used_by"), UNUSED, ids=lambda value: str(value))
def test_a_key_that_another_leaves_without_a_use_is_told(set_to, left_by, used_by):
    deciding, _, value = left_by.partition(": ")
    words = ["model.name=roberta-base", "data.num_labels=4", set_to]
    told = planning.plan(configuration.load(None, [*words, f"{deciding}={value}"]))
    key = set_to.partition("=")[0]
    assert f"{key} has no effect with {left_by}" in told.notes
    used = planning.plan(configuration.load(None, [*words, f"{deciding}={used_by}"]))
    assert not any(note.startswith(key) for note in used.notes)


@pytest.mark.parametrize("tree", [{"train.steps": 3}, {"data": {"augment.word_swap": 0.3}}, {"model.name": "tiny"}])
def test_a_dotted_key_in_a_file_is_refused(tree):
    with pytest.raises(UserError, match="has a dot: nest it here, as "):
        configuration.load(tree)


def test_numbers_of_numpy_are_numbers_and_paths_are_text(tmp_path):
    tree = {
        "adapter": {"rank": np.int64(3), "scope": np.array(["query"])},
        "train": {"learning_rate": np.float64(1e-3)},
        "data": {"train": tmp_path},
    }
    config = configuration.load(tree)
    assert (config.adapter.rank, config.adapter.scope, config.train.learning_rate) == (3, ["query"], 1e-3)
    assert config.data.train == str(tmp_path)


def test_every_key_has_help():
    assert [key for key, text, _ in configuration.every_key() if not text] == []


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_configuration(name):
    assert configuration.load(name).data.num_labels == 4


@pytest.mark.parametrize("mark", [",", ";", "|", "#", "\t"])
def test_a_mark_of_punctuation_is_a_value_as_it_stands(mark):
    words = [f"data.delimiter={mark}", f"data.label_separator={mark}", "data.multi_label=true"]
    data = configuration.load(None, words).data
    assert (data.delimiter, data.label_separator) == (mark, mark)
