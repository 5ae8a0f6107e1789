"""Cleaning shortens texts as its words say; augmentation depends on seed, epoch and row alone."""

import sys

import pytest

from rankwise.data import text
from rankwise.data.cleaning import preprocess
from rankwise.data.text import augment
from rankwise.errors import UserError

TEXT = "The Cats weren't running; it’s ran_away, said U.S. leaves!"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], TEXT),
        (["lowercase"], "the cats weren't running; it’s ran_away, said u.s. leaves!"),
        (["punctuation"], "The Cats werent running its ran away said U S leaves"),
        (["punctuation", "lowercase"], "the cats werent running its ran away said u s leaves"),
    ],
)
def test_plain_steps(steps, expected):
    assert preprocess([TEXT], steps) == [expected]


@pytest.mark.parametrize(
    ("step", "package", "given", "expected"),
    [
        ("stem", "snowballstemmer", "Running, easily fishes' generalizations", "run, easili fish' general"),
        ("lemmatize", "simplemma", "the mice were better houses.", "the mouse be good house."),
    ],
)
def test_steps_of_other_packages(monkeypatch, step, package, given, expected):
    pytest.importorskip(package)
    assert preprocess([given], [step]) == [expected]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'rankwise\[text\]'"):
        preprocess([given], [step])


def test_stop_words_go_also_after_punctuation():
    given = "They aren't done, it’s the world’s bill: he'll be Well there"
    assert preprocess([given], ["stopwords"]) == ["done, world’s bill: Well"]
    assert preprocess([given], ["punctuation", "stopwords"]) == ["done worlds bill hell Well"]


def test_a_step_that_would_leave_nothing_is_skipped():
    assert preprocess(["The Who", "?!", "a dog"], ["stopwords", "punctuation"]) == ["The Who", "?!", "dog"]


# --- augmentation -------------------------------------------------------------------------------------

LONG = "One first sentence here. And a second one! Is this the third? Then the last of them all."


@pytest.mark.parametrize("change", list(text._CHANGES))
def test_a_change_depends_on_seed_epoch_and_row(change):
    changes = {change: 0.9}

    def at(seed, epoch, row):
        return augment(LONG, changes, seed=seed, epoch=epoch, row=row)

    assert at(1, 2, 3) == at(1, 2, 3)
    base = [at(1, 2, row) for row in range(20)]
    assert len(set(base)) > 5
    assert base != [at(2, 2, row) for row in range(20)]
    assert base != [at(1, 3, row) for row in range(20)]


def test_sentences_are_shuffled_whole():
    made = {augment(LONG, {"sentence_shuffle": 0.99}, seed=0, epoch=0, row=row) for row in range(60)}
    sentences = text._SENTENCE_END.split(LONG)
    assert len(made) > 10
    assert all(sorted(text._SENTENCE_END.split(one)) == sorted(sentences) for one in made)


def test_words_are_dropped_at_their_rate_and_never_all():
    words = " ".join(f"w{i}" for i in range(1000))
    kept = augment(words, {"word_dropout": 0.3}, seed=0, epoch=0, row=0).split()
    assert 650 < len(kept) < 750
    assert kept == sorted(kept, key=lambda word: int(word[1:]))
    assert all(augment("only", {"word_dropout": 0.99}, seed=0, epoch=0, row=row) for row in range(50))


def test_two_words_are_swapped_at_their_rate():
    words = [f"w{i}" for i in range(10)]
    moved = [
        sum(
            a != b
            for a, b in zip(
                augment(" ".join(words), {"word_swap": 0.5}, seed=0, epoch=0, row=row).split(), words, strict=True
            )
        )
        for row in range(400)
    ]
    assert set(moved) == {0, 2}
    assert 150 < moved.count(2) < 250


def test_without_changes_a_text_stays():
    assert augment(LONG, {}, seed=0, epoch=0, row=0) == LONG
    assert augment(LONG, {"word_dropout": 0.0}, seed=0, epoch=0, row=0) == LONG
    assert augment("one", {"word_swap": 0.99, "sentence_shuffle": 0.99}, seed=0, epoch=0, row=0) == "one"


def test_the_order_of_keys_does_not_matter():
    changes = {"word_swap": 0.9, "sentence_shuffle": 0.9, "word_dropout": 0.2}
    backwards = dict(reversed(changes.items()))
    for row in range(20):
        assert augment(LONG, changes, seed=0, epoch=0, row=row) == augment(LONG, backwards, seed=0, epoch=0, row=row)


def test_a_crop_is_a_run_of_words():
    text = " ".join(map(str, range(40)))
    cropped = [augment(text, {"crop": 0.6}, seed=0, epoch=epoch, row=0).split() for epoch in range(200)]
    assert all(words == list(map(str, range(int(words[0]), int(words[-1]) + 1))) for words in cropped)
    assert min(map(len, cropped)) >= 16
    assert len({words[0] for words in cropped}) > 5
    assert augment("of few words", {"crop": 0.9}, seed=0, epoch=0, row=0) == "of few words"
