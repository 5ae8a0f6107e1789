"""Records are read leniently, upgraded, and written back with all that they held."""

import json
import threading

import pytest

from rankwise.errors import UserError
from rankwise.records import AdapterRecord, Result, SearchRecord, read, record, write
from rankwise.records.record import of_tree

SCORES = {"examples": 4, "accuracy": 0.5, "accuracy_ci95": [0.2, 0.8], "loss": 1.0, "macro_f1": 0.4, "ece": 0.1}
V1_ADAPTER = {
    "labels": ["no", "yes"],
    "config": {
        "model": {"name": "a-base", "revision": "main", "precision": "bf16"},
        "adapter": {"method": "bitfit"},
        "data": {"text": ["title", "body"], "preprocess": ["lowercase"], "max_length": 96, "multi_label": True},
        "train": {"seed": 7, "a_key_that_was_renamed": 3},
    },
    "calibration": {"temperature": 1.5, "rows": 9},
}


def test_keys_of_another_version_are_written_back_where_they_were(tmp_path):
    tree = {
        "version": 9,
        "status": "finished",
        "added": [1, 2],
        "metrics": {"validation": {**SCORES, "auroc": 0.7, "per_class": {"a": {"recall": 1.0, "lift": 2}}}},
        "data": {"train": {"rows": 3, "sha256": "x", "bytes": 12}},
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    write(path, read(path, Result))
    again = json.loads(path.read_text(encoding="utf-8"))
    assert (again["version"], again["added"]) == (9, [1, 2])
    assert again["metrics"]["validation"]["auroc"] == 0.7
    assert again["metrics"]["validation"]["per_class"]["a"]["lift"] == 2
    assert again["data"]["train"]["bytes"] == 12


def test_absent_keys_take_their_defaults_and_absent_scores_stay_absent():
    result = of_tree(Result, {"status": "failed"})
    assert (result.version, result.timing.steps, result.metrics.test) == (2, 0, None)
    assert result.to_dict()["metrics"] == {}
    assert "calibration" not in result.to_dict()


def test_an_adapter_of_version_1_keeps_its_training_keys_and_is_read_without_them():
    adapter = of_tree(AdapterRecord, V1_ADAPTER)
    trained = adapter.config
    assert (adapter.version, trained.model.name, trained.train.seed) == (2, "a-base", 7)
    assert (trained.data.columns, trained.data.max_length, trained.data.multi_label) == (["title", "body"], 96, True)
    assert adapter.calibration is not None
    assert adapter.calibration.temperature == 1.5
    again = adapter.to_dict()["config"]
    assert again["train"]["a_key_that_was_renamed"] == 3
    assert again["adapter"] == {"method": "bitfit"}


@pytest.mark.parametrize(
    ("kind", "tree", "said"),
    [
        (Result, {"metrics": []}, "$.metrics"),
        (Result, {"metrics": {"test": {"accuracy": 1}}}, "$.metrics.test"),
        (Result, {"version": "two"}, "version"),
        (Result, {"data": {"test": 3}}, "damaged"),
        (AdapterRecord, {"labels": "a"}, "$.labels"),
        (AdapterRecord, {"labels": ["a"], "config": []}, "damaged"),
        (SearchRecord, {"table": {"trial": 0}}, "$.table"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_a_sentence(kind, tree, said):
    with pytest.raises(UserError, match="x.json is damaged") as refused:
        of_tree(kind, tree, "x.json")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "[1]", '{"status": ', "3", "\x00"])
def test_a_broken_file_is_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="result.json"):
        read(path, Result)


def test_changes_at_one_time_are_all_kept(tmp_path):
    path = tmp_path / "result.json"
    write(path, Result())

    def add(number):
        with record.changing(path, Result) as result:
            result.notes.append(str(number))

    threads = [threading.Thread(target=add, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, read(path, Result).notes)) == list(range(24))
