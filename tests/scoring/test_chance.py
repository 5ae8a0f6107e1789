"""A score that says nothing is called that."""

import numpy as np

from rankwise.scoring import chance, metrics


def scores(labels, predicted):
    logits = np.eye(2, dtype=np.float32)[predicted]
    return metrics.evaluate(logits, np.array(labels), ["ham", "spam"])


def test_answers_of_one_class_or_at_random_are_told():
    labels = [0] * 70 + [1] * 30
    said = chance.note(scores(labels, [0] * 100), "test")
    assert said == "test accuracy is not told apart from always answering 'ham', the most frequent class"
    random = np.random.default_rng(0).integers(0, 2, 100)
    assert "always answering 'ham'" in chance.note(scores(labels, random), "validation")


def test_what_was_learned_is_not():
    labels = [0] * 70 + [1] * 30
    assert chance.note(scores(labels, [0] * 68 + [1] * 32), "test") is None


def test_several_labels_a_text_have_no_most_frequent_class():
    labels = np.array([[1, 0], [1, 1]] * 20)
    values = metrics.evaluate(np.zeros((40, 2), np.float32), labels, ["a", "b"])
    assert chance.note(values, "test") is None
