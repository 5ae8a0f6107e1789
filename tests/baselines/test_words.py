"""A classifier of words: chosen by its own rows, saved without a pickle, and refused when it is damaged."""

import json
import re
import time

import numpy as np
import pytest

from conftest import sentences
from rankwise.baselines import regression, timed, words
from rankwise.deadline import NEVER, Deadline
from rankwise.errors import UserError

NAMES = ["business", "science", "sport"]


def rows(count, seed):
    made = sentences(count, seed)
    return [text for text, _ in made], np.array([NAMES.index(topic) for _, topic in made])


@pytest.fixture(scope="module")
def classifier():
    return words.fit(*rows(240, 0), NAMES)


def test_it_tells_topics_apart(classifier):
    texts, labels = rows(90, 1)
    assert (classifier.logits(texts).argmax(1) == labels).mean() > 0.9


def test_what_is_saved_gives_the_same_logits(classifier, tmp_path):
    texts, _ = rows(30, 2)
    classifier.save(tmp_path / "words")
    assert {path.suffix for path in (tmp_path / "words").iterdir()} == {".json", ".safetensors"}
    np.testing.assert_allclose(
        words.WordClassifier.load(tmp_path / "words").logits(texts), classifier.logits(texts), atol=1e-5
    )


def endings(count):
    """Texts of one word that never comes twice, told apart by its ending."""
    chance = np.random.default_rng(0)
    labels = np.arange(count) % 2
    stems = ["".join(chance.choice(list("bdfgklmnprst"), 6)) for _ in labels]
    return [stem + ("ation" if label else "ling") for stem, label in zip(stems, labels, strict=True)], labels


def test_endings_of_words_decide_where_words_do_not():
    texts, labels = endings(400)
    assert words.fit(texts[:300], labels[:300], ["a", "b"]).kinds == "words and characters"


@pytest.mark.parametrize(
    ("pools", "between"),
    [
        (("电影剧情演员导演镜头", "经济银行利率股票市场"), ""),
        (("ภาพยนตร์นักแสดง", "ธนาคารเศรษฐกิจ"), ""),
        (("😀😍🎉", "😡💔👎"), ""),
        (("कीकुके", "काकिकू"), " "),
    ],
    ids=["Chinese", "Thai", "emoji", "Hindi"],
)
def test_every_script_has_words(pools, between):
    """Without spaces between words, of pictures alone, and with vowels that are marks: none comes as a run that is there once."""
    chance, labels = np.random.default_rng(0), np.arange(200) % 2
    letters = [re.findall(words.TOKEN, pool) if not between else [pool[n : n + 2] for n in (0, 2, 4)] for pool in pools]
    texts = ["the film " + between.join(chance.choice(letters[label], 9)) for label in labels]
    found = words.fit(texts[:150], labels[:150], ["a", "b"])
    assert found.kinds == "words"
    assert (found.logits(texts[150:]).argmax(1) == labels[150:]).mean() > 0.9


@pytest.mark.parametrize(
    "word",
    [
        "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u078b\u07a8\u0788\u07ac\u0780\u07a8",
        "\u0f56\u0f7c\u0f51",
        "e\u0301te\u0301",
        "\ud55c\uad6d\uc5b4",
    ],
    ids=["Hebrew", "Persian", "Thaana", "Tibetan", "accents", "Korean"],
)
def test_marks_and_joiners_are_inside_of_words(word):
    assert re.findall(words.TOKEN, f"{word}, {word}") == [word, word]


def test_words_that_were_saved_before_are_read_as_they_were(tmp_path):
    texts, labels = ["两个词 一" if label else "别的话 二" for label in np.arange(40) % 2], np.arange(40) % 2
    words.fit(texts, labels, ["a", "b"]).save(tmp_path / "words")
    details = json.loads((tmp_path / "words" / words.DETAILS).read_text())
    for grams in details["ngrams"].values():
        grams[0] = "两个词"
    del details["token"]
    (tmp_path / "words" / words.DETAILS).write_text(json.dumps(details))
    before = words.WordClassifier.load(tmp_path / "words")
    assert before.vectorizers["words"].transform(["两个词"]).nnz == 1


def test_two_classes_several_labels_and_a_class_without_rows():
    texts, labels = rows(120, 3)
    two = words.fit([t for t, one in zip(texts, labels, strict=True) if one < 2], labels[labels < 2], NAMES)
    assert two.logits(texts).shape == (120, 3)
    assert not (two.logits(texts).argmax(1) == 2).any()
    hot = np.eye(3, dtype=int)[labels]
    several = words.fit(texts, hot, NAMES)
    assert several.multi_label
    assert ((several.logits(texts) > 0) == hot).mean() > 0.9


def test_texts_without_a_word_make_no_classifier():
    assert words.fit(["", " "] * 20, np.arange(40) % 2, ["a", "b"]) is None


def test_a_clock_takes_as_many_rows_as_it_has_time_for(monkeypatch):
    ticks = iter([0.0, 10.0, 20.0, 20.5])
    monkeypatch.setattr(timed.time, "perf_counter", lambda: next(ticks))
    clock, endless = timed.Pace(Deadline.after(3600)), timed.Pace(NEVER)
    for one in (clock, endless):
        with one.measuring("words", 100):
            pass
    assert 2_000 <= clock.rows(["words"], 10**6) < 3600 * 100 / 10, "a tenth of a second a row, and not all of the hour"
    half = clock.part(0.5)
    assert half.room(["words"], 4_000) == 1
    assert 0 < half.room(["words"], 10**6) < 0.01
    assert half.room(["words", "characters"], 10) == 0, "a kind that was not timed"
    assert endless.part(0.5).room(["words"], 10**6) == 1
    assert endless.rows(["words"], 10**6) == 10**6


@pytest.mark.parametrize(
    ("slow", "kinds"),
    [((), "words and characters"), (("characters",), "words"), (("characters", "words"), "single words")],
)
def test_all_rows_by_plainer_grams_come_before_fewer_by_richer_ones(monkeypatch, slow, kinds):
    texts, labels = endings(3_000)
    monkeypatch.setattr(timed.Pace, "_room", lambda clock, which, seconds: 500 if set(which) & set(slow) else 10**6)
    found = words.fit(texts, labels, ["a", "b"], deadline=Deadline.after(3600))
    assert (found.kinds, found.fitted_on) == (kinds, 3_000)


@pytest.mark.parametrize(("most", "kinds"), [(1_500, "words and characters"), (500, "words")])
def test_richer_grams_of_a_share_of_the_rows_are_judged_by_as_small_a_share(monkeypatch, most, kinds):
    texts, labels = endings(3_000)
    shares, held_out = [], words._held_out
    monkeypatch.setattr(timed.Pace, "_room", lambda clock, which, seconds: most if "characters" in which else 10**6)
    monkeypatch.setattr(words, "_held_out", lambda *given: (shares.append(given[8:]), held_out(*given))[1])
    found = words.fit(texts, labels, ["a", "b"], deadline=Deadline.after(3600))
    assert (found.kinds, found.fitted_on) == (kinds, 2_000 if most == 1_500 else 3_000)
    assert shares == ([(), (0.5,)] if most == 1_500 else [()])


def test_choosing_leaves_time_for_all_rows(monkeypatch):
    texts, labels = rows(3_000, 5)
    now = time.time()
    monkeypatch.setattr(timed.time, "time", lambda: now)
    solved, ends = timed.Pace.solved, []

    def timed_solver(clock, vectors, *rest):
        ends.append((vectors.shape[0], clock.deadline.at() - now))
        return solved(clock, vectors, *rest)

    monkeypatch.setattr(timed.Pace, "solved", timed_solver)
    words.fit(texts, labels, NAMES, deadline=Deadline(now + 100))
    assert [rows for rows, _ in ends][-1] == 3_000
    assert all(left <= 50 for rows, left in ends if rows < 3_000), "half is kept for what all rows take"
    assert ends[-1][1] == 100


def test_a_clock_that_ends_keeps_what_the_solver_has(monkeypatch):
    texts, labels = rows(240, 4)
    _, vectors = words._fitted(texts, ("words",), 500)
    whole = timed.Pace(NEVER).solved(vectors, labels, 3, 10.0)
    monkeypatch.setattr(regression, "_PIECE", 1)
    cut = timed.Pace(Deadline.after(-1)).solved(vectors, labels, 3, 10.0)
    assert cut.iterations == 1
    assert np.abs(cut.coefficients).max() < np.abs(whole.coefficients).max()
    again = timed.Pace(NEVER).solved(vectors, labels, 3, 100.0, whole)
    assert np.abs(again.coefficients).max() > np.abs(whole.coefficients).max()


def test_a_clock_that_has_ended_still_leaves_an_answer():
    texts, labels = rows(3_000, 0)
    late = words.fit(texts, labels, NAMES, deadline=Deadline.after(-1))
    assert (late.kinds, late.fitted_on) == ("single words", 2_000)
    assert (late.logits(texts[2_000:]).argmax(1) == labels[2_000:]).mean() > 0.9


def test_a_damaged_folder_is_refused(classifier, tmp_path):
    classifier.save(tmp_path / "words")
    path = tmp_path / "words" / words.WEIGHTS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a whole safetensors file|no whole classifier"):
        words.WordClassifier.load(tmp_path / "words")
