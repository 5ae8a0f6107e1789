"""Logistic regression of sparse vectors beside scikit-learn's: the same problem, the same answers."""

import numpy as np
import pytest
import torch
from scipy import sparse

from rankwise.baselines.regression import solve


def problem(classes, rows=300, width=40, seed=0):
    chance = np.random.default_rng(seed)
    vectors = sparse.random(rows, width, 0.2, format="csr", dtype=np.float32, random_state=seed)
    scores = vectors @ chance.normal(size=(width, classes)) * 4 + chance.gumbel(size=(rows, classes))
    return vectors, scores


def loss(coefficients, offsets, vectors, labels, strength):
    """Scikit-learn's, with one set of numbers for two classes."""
    from scipy.special import log_softmax

    said = log_softmax(np.asarray(vectors @ coefficients.T + offsets, dtype=np.float64), axis=1)
    squares = (coefficients**2).sum() * (2 if len(coefficients) == 2 else 1)
    return -strength * said[np.arange(len(labels)), labels].sum() + squares / 2


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_it_is_scikit_learns_problem(classes, strength):
    from sklearn.linear_model import LogisticRegression

    vectors, scores = problem(classes)
    labels = scores.argmax(1)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(vectors.astype(np.float64), labels)
    rows, bias = theirs.coef_, theirs.intercept_
    if classes == 2:
        rows, bias = np.vstack([-rows, rows]) / 2, np.array([-1, 1]) * bias / 2
    ours = solve(vectors, labels, classes, strength, iterations=500)
    least = loss(rows, bias, vectors, labels, strength)
    assert least <= loss(ours.coefficients.astype(np.float64), ours.offsets, vectors, labels, strength) * (1 + 1e-9)
    assert loss(ours.coefficients.astype(np.float64), ours.offsets, vectors, labels, strength) < 1.02 * least
    assert (ours.logits(vectors).argmax(1) == theirs.predict(vectors)).mean() > 0.97
    assert ours.accuracy(vectors, labels) == pytest.approx(theirs.score(vectors, labels), abs=0.03)


def test_each_of_several_labels_has_a_problem_of_its_own():
    vectors, scores = problem(5)
    labels = (scores > 0.5).astype(np.int64)
    labels[:, 3], labels[:, 4] = 0, 1
    together = solve(vectors, labels, 5, 10.0, iterations=500)
    for label in range(3):
        alone = solve(vectors, labels[:, label], 2, 10.0, iterations=500)
        np.testing.assert_allclose(
            torch.sigmoid(torch.from_numpy(together.logits(vectors)[:, label])),
            torch.softmax(torch.from_numpy(alone.logits(vectors)), 1)[:, 1],
            atol=0.02,
        )
    assert (together.logits(vectors)[:, 3] < -20).all()
    assert (together.logits(vectors)[:, 4] > 20).all()
    assert together.accuracy(vectors, labels) == ((together.logits(vectors) > 0) == labels).all(1).mean()


def test_no_label_that_tells_rows_apart_needs_no_solver():
    vectors, _ = problem(2)
    labels = np.tile([1, 0], (300, 1))
    found = solve(vectors, labels, 2, 10.0)
    assert found.iterations == 0
    assert found.accuracy(vectors, labels) == 1


def test_a_class_without_rows_is_never_the_answer_and_one_alone_is_refused():
    vectors, scores = problem(4)
    labels = np.where(scores.argmax(1) == 2, 3, scores.argmax(1))
    assert not (solve(vectors, labels, 5, 10.0).logits(vectors).argmax(1) == 2).any()
    with pytest.raises(ValueError, match="one class"):
        solve(vectors, np.ones(300, dtype=np.int64), 5, 10.0)


def test_it_goes_on_from_an_earlier_solution_and_stops_when_told():
    vectors, scores = problem(6)
    labels = scores.argmax(1)
    weaker = solve(vectors, labels, 6, 10.0, iterations=500)
    assert solve(vectors, labels, 6, 10.0, start=weaker, iterations=500).iterations <= 2
    asked = []
    stopped = solve(vectors, labels, 6, 10.0, over=lambda: not asked.append(None), iterations=500)
    assert len(asked) == 1
    assert 0 < stopped.iterations < weaker.iterations


def test_iterations_are_no_more_than_allowed():
    vectors, scores = problem(6)
    assert solve(vectors, scores.argmax(1), 6, 100.0, iterations=15).iterations == 15


def test_what_is_no_number_is_refused():
    vectors, scores = problem(3)
    vectors.data[0] = np.nan
    with pytest.raises(ValueError, match="no finite number"):
        solve(vectors, scores.argmax(1), 3, 10.0)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_rows_without_an_ngram_and_one_ngram_alone_are_solved(kind):
    """Of very large matrices places take eight bytes."""
    vectors = sparse.csr_matrix(np.array([[2.0], [2.0], [0.0], [0.0], [2.0], [0.0]]))
    vectors.indices, vectors.indptr = vectors.indices.astype(kind), vectors.indptr.astype(kind)
    labels = np.array([1, 1, 0, 0, 1, 0], dtype=np.uint8)
    assert solve(vectors, labels, 2, 10.0).accuracy(vectors, labels) == 1
    three = np.array([1, 1, 0, 0, 1, 2], dtype=np.int32)
    assert list(solve(vectors, three, 3, 10.0).logits(vectors).argmax(1)) == [1, 1, 0, 0, 1, 0]
    assert solve(vectors[:0:-1] * 0, labels[:0:-1], 2, 10.0).iterations < 100


@pytest.mark.parametrize(
    "host", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta"), lambda: torch.autocast("cpu")]
)
def test_a_host_computes_as_it_likes_and_so_do_we(host):
    vectors, scores = problem(3)
    labels = scores.argmax(1)
    alone = solve(vectors, labels, 3, 10.0)
    with host():
        beside = solve(vectors, labels, 3, 10.0, start=solve(vectors, labels, 3, 10.0, iterations=1))
        np.testing.assert_array_equal(solve(vectors, labels, 3, 10.0).coefficients, alone.coefficients)
    assert beside.accuracy(vectors, labels) == pytest.approx(alone.accuracy(vectors, labels), abs=0.02)


def test_the_hosts_threads_are_left_as_they_were():
    before, (vectors, scores) = torch.get_num_threads(), problem(3)
    solve(vectors, scores.argmax(1), 3, 10.0)
    assert torch.get_num_threads() == before
