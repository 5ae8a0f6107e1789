"""Search files: what they say, and what is wrong with them in one sentence."""

from pathlib import Path

import msgspec
import pytest

import rankwise
from rankwise import config as configuration
from rankwise import planning, recipes
from rankwise.errors import UserError
from rankwise.search.driver import search
from rankwise.search.sweep import spec
from rankwise.search.sweep.constraints import check, violated
from rankwise.search.sweep.space import Space
from rankwise.search.sweep.strategies import Walk


def test_a_search_file_is_saved_with_its_base_and_reads_back_the_same(tmp_path, config):
    (tmp_path / "base.yaml").write_text(msgspec.yaml.encode(config).decode())
    (tmp_path / "search.yaml").write_text("base: base.yaml\naxes: {adapter.rank: [1, 2]}\nseeds: 2\n")
    read = spec.load(tmp_path / "search.yaml", ["train.steps=5", "seeds=3", "axes.adapter.rank=[2, 4]"])
    assert read.base == {**config, "train": {**config["train"], "steps": 5}}
    assert (read.seeds, read.axes) == (3, {"adapter.rank": [2, 4]})
    configuration.write_yaml(tmp_path / "copy.yaml", msgspec.to_builtins(read))
    again = spec.load(tmp_path / "copy.yaml")
    assert again == read
    assert spec.fingerprint(again) == spec.fingerprint(read), "a resume without the file finds the same study"
    assert spec.fingerprint(read) != spec.fingerprint(spec.load(tmp_path / "search.yaml"))


@pytest.mark.parametrize("name", recipes.search_names())
def test_shipped_searches_are_sound(name):
    search = spec.load(name)
    space = Space.of(search)
    assert Walk.of(search, space).rounds
    assert rankwise.plan({**space.tree({}), "data": {"num_labels": 4}}).fits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": {}}, "unknown key 'axis' in the search file, did you mean 'axes'"),
        ({"axes": {}}, "axes is empty"),
        ({"axes": {"adapter.rnak": [1]}}, "no configuration key 'adapter.rnak', did you mean 'adapter.rank'"),
        ({"axes": {"adapter.rank": []}}, "axes.adapter.rank is empty"),
        ({"axes": {"adapter.rank": [2, 2]}}, "holds 2 twice"),
        ({"axes": {"adapter.rank": {"low": 4, "high": 2}}}, "low must be below high"),
        ({"axes": {"both": [{"adapter.rang": 2}]}}, "unknown configuration key 'adapter.rang', did you mean"),
        (
            {"strategy": {"name": "gird"}},
            "strategy.name: unknown value, got 'gird'; expected one of one_at_a_time, grid",
        ),
        ({"metric": "acc"}, "metric: unknown value, got 'acc'; expected one of accuracy, loss, macro_f1"),
        ({"strategy": {"trials": "many"}}, "strategy.trials: expected a whole number or null, got 'many'"),
        ({"axes": {"adapter.rank": 3}}, "axes.adapter.rank: expected a list or a mapping, got 3"),
        ({"axes": {"adapter.rank": {"low": 1}}}, "axes.adapter.rank: needs 'high', got {'low': 1}"),
        ({"strategy": {"name": "factorial", "trials": 3}}, "strategy.trials cannot apply to factorial"),
        (
            {"halving": {"within": "train.learning_rat"}},
            "halving.within: 'train.learning_rat' is no axis of this search, did you mean 'train.learning_rate'",
        ),
        ({"halving": {"factor": 1}}, "halving.factor: expected a whole number >= 2, got 1"),
    ],
)
def test_mistakes_are_told_in_one_sentence(sweep, change, message):
    with pytest.raises(UserError, match=message):
        Space.of(spec.load({**sweep, **change}))


def test_an_override_of_an_axis_is_refused(sweep):
    with pytest.raises(UserError, match=r"train.learning_rate is an axis of this search"):
        spec.load(sweep, ["train.learning_rate=1e-3"])


def test_ranges_with_steps_are_lists_and_dependent_sets_change_together(sweep):
    sweep["axes"] = {
        "train.weight_decay": {"low": 1e-4, "high": 8e-4, "log": True, "step": 2},
        "adapter.rank": {"low": 2, "high": 8, "step": 3},
        "optimizer": [
            {"train.optimizer": "sgd", "train.learning_rate": 0.1},
            {"train.optimizer": "adamw", "train.learning_rate": 1e-3},
        ],
    }
    space = Space.of(spec.load(sweep))
    assert space.axes[0].choices == [1e-4, 2e-4, 4e-4, 8e-4]
    assert space.axes[1].choices == [2, 5, 8]
    assert space.size == 4 * 3 * 2
    tree = space.tree(next(iter(space.every_point())))
    assert (tree["train"]["optimizer"], tree["train"]["learning_rate"]) == ("sgd", 0.1)
    assert tree["data"] == sweep["base"]["data"]


def test_no_key_is_set_by_two(sweep):
    sweep["axes"] = {
        "train.learning_rate": [1e-4, 1e-3],
        "optimizer": [{"train.optimizer": "sgd", "train.learning_rate": 0.1}],
    }
    with pytest.raises(UserError, match=r"axes.train.learning_rate and axes.optimizer both set train.learning_rate"):
        Space.of(spec.load(sweep))
    del sweep["axes"]["train.learning_rate"]
    with pytest.raises(UserError, match=r"train.optimizer is an axis of this search: change .* axes.optimizer="):
        spec.load(sweep, ["train.optimizer=adamw"])


@pytest.mark.parametrize(
    ("values", "value", "edge"),
    [
        ([2e-5, 3e-5, 5e-5], 5e-5, "highest"),
        ([2e-5, 3e-5, 5e-5], 2e-5, "lowest"),
        ([2e-5, 3e-5, 5e-5], 3e-5, None),
        ([0.0, 0.1, 0.2], 0.0, None),
        (["linear", "cosine"], "cosine", None),
        ({"low": 1e-4, "high": 1e-2, "log": True}, 9.5e-3, "highest"),
        ({"low": 1e-4, "high": 1e-2, "log": True}, 5e-3, None),
    ],
)
def test_the_edge_of_an_axis(sweep, values, value, edge):
    name = "train.schedule" if values == ["linear", "cosine"] else "train.learning_rate"
    sweep["axes"] = {name: values}
    assert Space.of(spec.load(sweep)).axes[0].edge(value) == edge


@pytest.mark.parametrize("text", ["trainabel > 3", "adapter.rnk > 1 and trainable > 3", "trainable >"])
def test_a_constraint_that_no_plan_could_meet_leaves_nothing_behind(sweep, tmp_path, text):
    sweep["constraints"] = [text]
    with pytest.raises(UserError, match="constraint"):
        search(sweep, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_section_that_may_be_null_is_compared_as_a_whole(sweep):
    check(["train.early_stopping == null", "not adapter.dora"])


def test_constraints_compare_keys_and_planned_counts():
    planned = rankwise.plan({"model": {"name": "roberta-base"}, "data": {"num_labels": 4}})
    assert violated(["trainable <= 1_000_000", "adapter.rank == 11 and train.optimizer in ['adamw']"], planned) is None
    assert violated(["adapter.alpha > 2 * adapter.rank"], planned) == "adapter.alpha > 2 * adapter.rank"
    with pytest.raises(UserError, match="no configuration key, did you mean 'adapter.rank'"):
        violated(["adapter.rang > 2"], planned)
    with pytest.raises(UserError, match="cannot be read"):
        violated(["__import__('os')"], planned)


def test_the_example_is_a_search_of_twelve_trials_that_fit():
    file = Path(__file__).parents[3] / "examples" / "scopes_and_rates.yaml"
    space = Space.of(spec.load(file))
    assert space.size == 12
    for point in space.every_point():
        tree = space.tree(point)
        configuration.set_key(tree, "data.num_labels", 5)
        planned = planning.plan(configuration.from_dict(tree))
        assert planned.rank == planned.largest_rank
        assert planned.trainable <= 250_000
