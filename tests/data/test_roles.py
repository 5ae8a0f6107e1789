"""Roles are split as asked, never share a row, and are the same every time."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise import config, data
from rankwise.data import duplicates, labels, roles
from rankwise.errors import UserError


def settings(**keys):
    return config.from_dict({"data": keys}).data


def write(path, rows):
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return str(path)


@pytest.fixture
def train(tmp_path):
    """A thousand different texts of three uneven classes."""
    names = ["a"] * 700 + ["b"] * 200 + ["c"] * 100
    return write(tmp_path / "train.jsonl", [(f"Text number {i}", name) for i, name in enumerate(names)])


# --- splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rows"), [(640, 2000), (0.1, 1999), (1, 7)])
def test_the_papers_split_is_that_of_the_datasets_library(tmp_path, size, rows):
    """`train_test_split(test_size=640, seed=42)` of the library itself, row for row."""
    datasets = pytest.importorskip("datasets")
    path = write(tmp_path / "rows.jsonl", [(f"text {i}", i % 4) for i in range(rows)])
    parts = datasets.Dataset.from_dict({"row": list(range(rows))}).train_test_split(test_size=size, seed=42)
    ours = data.load(settings(train=path, validation_size=size, stratify=False, split_seed=42), audit=False)
    assert ours.validation.ids == list(parts["test"]["row"])
    assert ours.train.ids == list(parts["train"]["row"])


def test_by_default_a_tenth_is_held_out_with_the_mix_of_classes(train):
    loaded = data.load(settings(train=train))
    assert [len(loaded.train), len(loaded.validation), loaded.test] == [900, 100, None]
    assert np.bincount(loaded.validation.labels).tolist() == [70, 20, 10]
    assert loaded.validation.ids == sorted(loaded.validation.ids)


def test_at_most_five_thousand_rows_are_held_out_by_default():
    assert [roles.default_validation_rows(rows) for rows in (5, 100, 49_999, 50_000, 120_000)] == [
        1,
        10,
        4999,
        5000,
        5000,
    ]


def test_another_seed_holds_out_other_rows_and_the_same_seed_the_same(train):
    first, again, other = (data.load(settings(train=train, split_seed=seed)).validation for seed in (1, 1, 2))
    assert first.ids == again.ids
    assert first.sha256 == again.sha256
    assert len(set(first.ids) & set(other.ids)) < 30


def test_the_test_rows_do_not_depend_on_the_validation_size(train):
    asked = ("train", "validation", "test")
    small, large = (data.load(settings(train=train, test_size=100, validation_size=n), asked) for n in (50, 200))
    assert small.test.ids == large.test.ids
    assert [len(large.train), len(large.validation), len(large.test)] == [700, 200, 100]
    alone = data.load(settings(train=train, test_size=100), ("test",), label_names=["a", "b", "c"])
    assert alone.test.sha256 == small.test.sha256
    assert (alone.train, alone.validation) == (None, None)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_a_stratified_split_is_exact_fair_and_leaves_every_class_in_train(sizes, share, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = max(1, int(share * len(strata)))
    held, left = roles.split(strata, count, seed)
    assert len(held) == count
    assert sorted([*held, *left]) == list(range(len(strata)))
    held_of = np.bincount(strata[held], minlength=len(sizes))
    if count <= len(strata) - len(sizes):
        assert np.all(held_of < sizes)
    exact = np.array(sizes) * count / len(strata)
    large = np.array(sizes) - exact >= 1  # where a row could be left without going below the share
    if large.all():
        assert np.all(np.abs(held_of - exact) < 1)


def test_a_multi_label_split_keeps_the_mix_of_label_sets():
    array = np.array([[1, 0]] * 40 + [[1, 1]] * 20 + [[0, 0]] * 10 + [[0, 1]], dtype=np.float32)
    held, _ = roles.split(labels.strata(array), 14, seed=0)
    kinds = array[held] @ [1, 2]
    assert [int((kinds == kind).sum()) for kind in (1, 3, 0)] == [8, 4, 2]


def test_without_validation_asked_for_all_rows_train(train):
    assert len(data.load(settings(train=train), ("train",)).train) == 1000
    assert len(data.load(settings(train=train, validation_size=300), ("train",)).train) == 700


def test_repeated_texts_can_be_dropped_before_the_split(tmp_path):
    rows = [(f"text {i}", i % 2) for i in range(50)] + [(f"TEXT  {i}!", i % 2) for i in range(50)]
    path = write(tmp_path / "rows.jsonl", rows)
    loaded = data.load(settings(train=path, drop_duplicates=True))
    assert len(loaded.train) + len(loaded.validation) == 50
    assert max(loaded.train.ids + loaded.validation.ids) == 49, "the first of each stays"


# --- roles of their own -------------------------------------------------------------------------------


def test_a_role_of_its_own_uses_the_classes_of_train(tmp_path, train):
    other = write(tmp_path / "other.jsonl", [("x", "c"), ("y", "a")])
    loaded = data.load(settings(train=train, validation=other, test=train.replace("train", "other2")), ("train",))
    assert loaded.test is None, "a role that is not asked for is not even read"
    loaded = data.load(settings(train=train, validation=other))
    assert loaded.validation.labels.tolist() == [2, 0]
    assert len(loaded.train) == 1000


def test_numbers_stand_for_named_classes_only_in_an_order_that_was_declared(tmp_path, train):
    other = write(tmp_path / "other.jsonl", [("x", 2), ("y", 0)])
    with pytest.raises(UserError, match=r"numbers its labels \(0, 2\) and training names them \(a, b, c\)"):
        data.load(settings(train=train, validation=other))
    loaded = data.load(settings(train=train, validation=other, classes=["c", "a", "b"]))
    assert loaded.label_names == ["c", "a", "b"]
    assert loaded.validation.labels.tolist() == [2, 0]
    assert loaded.data.classes == ["c", "a", "b"], "the run's record keeps the order"
    with pytest.raises(UserError, match="label 3"):
        data.load(settings(train=train, validation=write(tmp_path / "o.jsonl", [("x", 3)]), classes=["c", "a", "b"]))


def test_numbers_count_from_one_where_the_training_rows_say_so(tmp_path):
    train = write(tmp_path / "train.jsonl", [("x", 1), ("y", 2), ("z", 3), ("w", 1)])
    test = write(tmp_path / "test.jsonl", [("x", 1), ("y", 2)])
    loaded = data.load(settings(train=train, test=test, classes=["a", "b", "c"]), ("train", "test"))
    assert loaded.train.labels.tolist() == [0, 1, 2, 0]
    assert loaded.test.labels.tolist() == [0, 1]
    assert loaded.data.classes == {"1": "a", "2": "b", "3": "c"}


def test_a_finished_runs_classes_are_enough_to_read_a_test_set(tmp_path):
    other = write(tmp_path / "other.jsonl", [("x", "c"), ("y", "a")])
    loaded = data.load(settings(test=other), ("test",), label_names=["a", "b", "c"])
    assert loaded.test.labels.tolist() == [2, 0]


def test_the_hash_is_of_texts_and_classes_in_order(tmp_path):
    def sha256(rows, **keys):
        path = write(tmp_path / "rows.jsonl", rows)
        return data.load(settings(train=path, **keys), ("train",)).train.sha256

    rows = [("One text", "a"), ("two", "b")]
    first = sha256(rows)
    assert first == sha256(rows)
    assert first == sha256(rows, preprocess=["lowercase"]), "cleaning is a setting, not other rows"
    assert first != sha256(rows[::-1])
    assert first != sha256([("One text", "b"), ("two", "a")])
    assert sha256([("xa", "a"), ("y", "b")]) != sha256([("x", "aa"), ("y", "b")])


def test_cleaning_reaches_every_role(train):
    loaded = data.load(settings(train=train, test_size=10, preprocess=["punctuation", "lowercase"]), roles.ROLES)
    upper = data.load(settings(train=train, test_size=10), roles.ROLES)
    for role, rows in loaded.named().items():
        assert rows.texts == [text.lower() for text in upper.named()[role].texts]


def test_truth_is_one_class_however_it_is_written(tmp_path):
    train = write(tmp_path / "train.jsonl", [("x", True), ("y", False), ("v", True)])
    for name, words in (("excel", ("TRUE", "FALSE")), ("numbers", (1, 0)), ("words", ("true", "False"))):
        other = write(tmp_path / f"{name}.jsonl", [("z", words[0]), ("w", words[1])])
        loaded = data.load(settings(train=train, test=other), ("train", "test"))
        assert loaded.label_names == ["False", "True"]
        assert loaded.test.labels.tolist() == [1, 0], name
        assert any(f"{words[0]} is True" in note for note in loaded.report.notes), loaded.report.notes


def test_duplicates_of_the_same_rows_are_counted_once(tmp_path, train, monkeypatch):
    monkeypatch.setattr(roles, "_CACHED_AUDIT_ROWS", 1)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    counted = []
    audit = duplicates.audit
    monkeypatch.setattr(duplicates, "audit", lambda given: counted.append(1) or audit(given))

    def overlaps(**keys):
        return data.load(settings(train=train, **keys)).report.duplicates

    first = overlaps()
    assert overlaps() == first
    assert len(counted) == 1
    overlaps(preprocess=["lowercase"])
    overlaps(split_seed=7)
    assert len(counted) == 3, "other texts, or others in a role"
    for file in (tmp_path / "cache" / "duplicates").iterdir():
        file.write_text("[{", encoding="utf-8")
    assert overlaps() == first


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "other", "keys", "expected"),
    [
        ([("x", "a"), ("y", "a")], None, {}, ["only the class 'a'", "at least two"]),
        (
            [("x", "a"), ("y", "b")],
            [("z", "d"), ("w", "a")],
            {},
            ["other.jsonl (validation)", "unseen in training: 'd'", "a, b"],
        ),
        ([("x", "sport"), ("y", "b")], [("z", "sports")], {}, ["did you mean 'sport'"]),
        ([("x", 0), ("y", 1)], [("z", 2)], {}, ["a label unseen in training: '2'"]),
        ([("x", "a"), ("y", "b")], None, {"validation_size": 2}, ["data.validation_size asks for 2 rows of 2"]),
        ([("x", "a"), ("y", "b")], None, {"validation_size": 1, "stratify": False}, ["left", "only the class"]),
        ([("x", "a"), ("y", "b")], [("z", "a")], {"validation_size": 1}, ["both given"]),
    ],
)
def test_a_mistake_in_the_roles_is_told(tmp_path, rows, other, keys, expected):
    keys = {"train": write(tmp_path / "train.jsonl", rows), **keys}
    if other:
        keys["validation"] = write(tmp_path / "other.jsonl", other)
    with pytest.raises(UserError) as caught:
        data.load(settings(**keys))
    for part in expected:
        assert part in str(caught.value)


def test_two_roles_cannot_read_the_same_rows(tmp_path, train, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.train and data\.test are the same rows .* data\.test_size"):
        data.load(settings(train=train, test="train.jsonl"))
    with pytest.raises(UserError, match="are the same rows"):
        data.load(settings(train=train, validation="ag_news[test]", test="ag_news"))


def test_no_source_at_all_is_told():
    with pytest.raises(UserError, match=r"data\.train is not set"):
        data.load(settings())
    with pytest.raises(UserError, match=r"no test rows: name a source with data\.test"):
        data.load(settings(), ("test",), label_names=["a", "b"])
