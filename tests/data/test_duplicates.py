"""Repeats are found, none are made up, and labels that disagree are counted."""

import time

import numpy as np
import pytest

from rankwise.data import duplicates
from rankwise.data.report import Report

WORDS = [f"word{i}" for i in range(3000)]


def role(texts, labels=None):
    return texts, list(range(len(texts))), np.zeros(len(texts), np.int64) if labels is None else np.array(labels)


def texts_of(count, seed, words=40):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]


def changed(text, count, seed=0):
    """The text with some of its words replaced, far from each other."""
    words = text.split()
    for place in np.linspace(1, len(words) - 2, count).astype(int):
        words[place] = f"other{seed}x{place}"
    return " ".join(words)


def test_each_kind_of_repeat_is_counted_once():
    train = texts_of(200, seed=0)
    test = [
        train[3],
        train[4].upper().replace(" ", ",  "),
        changed(train[5], 1),
        changed(train[6], 2),
        changed(train[7], 8),
        *texts_of(50, seed=1),
    ]
    labels = np.zeros(len(test), np.int64)
    labels[2] = 1
    within, between = duplicates.audit({"train": role([*train, train[0]]), "test": role(test, labels)})
    assert (within.roles, within.exact, within.near) == (("train", "train"), 1, 0)
    assert (between.roles, between.rows) == (("train", "test"), len(test))
    assert (between.exact, between.near, between.conflicts) == (2, 2, 1)
    assert between.examples[0].ids == (6, 3), "the least alike first"
    assert between.examples[0].similarity == round(duplicates.similarity(train[6], test[3]), 3)


def test_near_duplicates_are_found_as_often_as_the_module_says():
    """Against every pair compared by brute force: of those above 0.75, all but a hundredth."""
    train = texts_of(300, seed=2)
    test = [changed(text, 1 + i % 5, seed=i) for i, text in enumerate(train)]
    truth = sum(duplicates.similarity(a, b) >= 0.75 for a, b in zip(train, test, strict=True))
    assert 100 < truth < 300, "the case must hold both kinds"
    overlap = duplicates.audit({"train": role(train), "test": role(test)})[1]
    reported = sum(duplicates.similarity(a, b) >= duplicates.NEAR for a, b in zip(train, test, strict=True))
    assert truth * 0.99 <= overlap.near <= reported


def test_two_changed_words_in_forty_are_near_and_eight_are_not():
    (text,) = texts_of(1, seed=3)
    assert duplicates.similarity(text, changed(text, 2)) >= duplicates.NEAR
    assert duplicates.similarity(text, changed(text, 8)) < duplicates.NEAR
    assert duplicates.similarity(text, text) == 1


@pytest.mark.parametrize(
    "texts",
    [["a", "b", "a"], ["😀", "😁", "😀"], ["今日は晴れ", "明日は雨が降る", "今日は晴れ"], ["x y", "y x", "X, y!"]],
)
def test_short_texts_and_texts_without_spaces(texts):
    (within,) = duplicates.audit({"train": role(texts)})
    assert (within.exact, within.near) == (1, 0)
    assert duplicates.first_of_each(texts).tolist() == [0, 1]


def test_texts_without_spaces_can_be_near():
    a = "日本銀行は金融政策決定会合で大規模な金融緩和策の維持を決めたと発表した"
    (within,) = duplicates.audit({"train": role([a, a.replace("維持", "継続")])})
    assert (within.exact, within.near) == (0, 1)


def test_chunks_do_not_show(monkeypatch):
    train, test = texts_of(60, seed=4), texts_of(30, seed=5)
    test[7], test[8] = train[2], changed(train[3], 1)
    whole = duplicates.audit({"train": role(train), "test": role(test)})
    monkeypatch.setattr(duplicates, "_CHUNK_TEXTS", 7)
    assert duplicates.audit({"train": role(train), "test": role(test)}) == whole


def test_a_template_repeated_ten_thousand_times_takes_no_quadratic_time():
    """All pairs would be fifty million comparisons, several minutes."""
    rest = "has left our house and will reach you within three days if the weather on the roads is kind to us"
    texts = [f"your order number {i} {rest}" for i in range(10_000)]
    started = time.perf_counter()
    (within,) = duplicates.audit({"train": role(texts)})
    assert time.perf_counter() - started < 30
    assert within.near > 9_000
    assert within.exact == 0


def test_empty_roles_are_no_trouble():
    assert [o.exact for o in duplicates.audit({"train": role(["a b c"]), "test": role([])})] == [0, 0]
    assert [o.exact for o in duplicates.audit({"train": role([]), "test": role(["a b c"])})] == [0, 0]


def test_vowels_that_are_marks_belong_to_words():
    """As fragments between them two Hindi words would be alike."""
    (between,) = [
        one
        for one in duplicates.audit({"train": role(["की कु के"]), "test": role(["का कि कू"])})
        if one.roles[0] != one.roles[1]
    ]
    assert between.exact == 0


def test_repeats_that_flatter_or_contradict_are_told_where_data_are():
    def lines(train, test, labels):
        found = duplicates.audit({"train": role(train, labels), "test": role(test)})
        return Report({}, [], duplicates=found).lines()

    apart = texts_of(40, seed=3)
    assert lines(apart, texts_of(9, seed=4), [0] * 40) == []
    assert "1 of 41 rows of train repeat an earlier one (1 exactly, 0 nearly; 1 with another label)" in "".join(
        lines([*apart, apart[0]], texts_of(9, seed=4), [0] * 40 + [1])
    )
    assert "1 of 1 rows of test repeat one of train" in "".join(lines(apart, [apart[2]], [0] * 40))
