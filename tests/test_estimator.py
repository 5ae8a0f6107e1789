"""The scikit-learn estimator among scikit-learn's own tools."""

import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

import rankwise
from conftest import sentences
from rankwise import BudgetedTextClassifier
from rankwise.errors import BudgetError

# Of scikit-learn's checks those that need no numeric X. The others feed matrices of floats, which are no texts:
# the estimator refuses them (test_refuses_what_is_no_text).
APPLICABLE = [
    checks.check_do_not_raise_errors_in_init_or_set_params,
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_estimators_unfitted,
    checks.check_get_params_invariance,
    checks.check_mixin_order,
    checks.check_no_attributes_set_in_init,
    checks.check_parameters_default_constructible,
    checks.check_set_params,
    checks.check_valid_tag_types,
]


@pytest.fixture(scope="module")
def rows():
    texts, topics = zip(*sentences(96, 5), strict=True)
    return np.array(texts, dtype=object), np.array(topics)


@pytest.fixture(scope="module")
def make(tiny_model):
    def unfitted(**changes):
        fast = {"scope": "all", "rank": 8, "dropout": 0.0, "learning_rate": 1e-2, "steps": 60, "max_length": 24}
        return BudgetedTextClassifier(
            **{"model": str(tiny_model), "max_trainable": 40_000, "options": {"engine": "reference"}, **fast, **changes}
        )

    return unfitted


@pytest.fixture(scope="module")
def fitted(make, rows):
    return make().fit(*rows)


@pytest.mark.parametrize("check", APPLICABLE, ids=lambda check: check.__name__)
def test_estimator_checks(check, make):
    check("BudgetedTextClassifier", make())


def test_learns(fitted, rows):
    texts, topics = rows
    assert list(fitted.classes_) == ["business", "science", "sport"]
    assert fitted.score(texts, topics) > 0.6
    p = fitted.predict_proba(texts)
    assert p.shape == (96, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert accuracy_score(topics, fitted.classes_[p.argmax(axis=1)]) == fitted.score(texts, topics)
    assert fitted.result_["parameters"]["trainable"] <= 40_000


def test_columns_follow_classes_of_any_type(make, rows):
    texts, topics = rows
    numbers = np.select([topics == "sport", topics == "business"], [10, 9], 2)
    model = make().fit(texts, numbers)
    assert list(model.classes_) == [2, 9, 10]
    assert model.predict(texts[:4]).dtype == numbers.dtype
    assert model.score(texts, numbers) > 0.6


@pytest.mark.parametrize("classes", [[0.0, 1.0], ["1.0", "2.0"], [" sports", "news"]], ids=str)
def test_classes_that_a_file_would_read_otherwise_keep_their_names(make, rows, classes):
    texts, topics = rows
    model = make(steps=5).fit(texts, np.where(topics == "sport", *classes))
    assert set(model.classes_) == set(classes)
    assert set(model.predict(texts)) <= set(classes)


@pytest.mark.parametrize("dump", ["pickle", "joblib"])
def test_a_copy_needs_no_path(fitted, rows, dump):
    """The adapter's folder is gone since fit ended; the copy predicts from the bytes alone."""
    before = fitted.predict_proba(rows[0][:8])
    if dump == "pickle":
        stored = pickle.dumps(fitted)
        copy = pickle.loads(stored)
        assert len(stored) < 200_000, "the frozen base is not in the pickle"
    else:
        file = io.BytesIO()
        joblib.dump(fitted, file)
        file.seek(0)
        copy = joblib.load(file)
    np.testing.assert_array_equal(copy.predict_proba(rows[0][:8]), before)


def test_same_seed_same_model(make, rows):
    """A clone is another object with the same settings: trained alike, it is the same model; a seed makes another."""
    first = make(steps=5).fit(*rows)
    again, other = clone(first).fit(*rows), make(steps=5, random_state=1).fit(*rows)
    np.testing.assert_array_equal(again.predict_proba(rows[0][:8]), first.predict_proba(rows[0][:8]))
    assert np.abs(other.predict_proba(rows[0][:8]) - first.predict_proba(rows[0][:8])).max() > 1e-6


@pytest.mark.slow
def test_cross_validates_in_a_pipeline(make, rows):
    pipeline = make_pipeline(
        FunctionTransformer(lambda texts: np.array([t.lower() for t in texts], dtype=object)), make()
    )
    scores = cross_val_score(pipeline, *rows, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert scores.mean() > 0.4


@pytest.mark.slow
def test_grid_search(make, rows):
    search = GridSearchCV(make(steps=40), {"learning_rate": [1e-7, 1e-2]}, cv=2, error_score="raise").fit(*rows)
    assert search.best_params_ == {"learning_rate": 1e-2}
    assert search.predict(rows[0][:2]).shape == (2,)


def test_without_validation_every_row_trains(make, rows):
    model = make(validation_size=None, steps=2).fit(*rows)
    assert model.result_["data"]["train"]["rows"] == 96


def test_saves_an_adapter_for_everything_else(fitted, rows, tmp_path):
    folder = fitted.save(tmp_path / "adapter")
    assert rankwise.load(folder).predict(list(rows[0][:5])) == list(fitted.predict(rows[0][:5]))


def test_the_budget_holds(make, rows):
    with pytest.raises(BudgetError, match="over"):
        make(max_trainable=500).fit(*rows)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("one string", ["a"], "one string"),
        (np.zeros((4, 2)), [0, 1, 0, 1], "one text a row"),
        ([1.0, 2.0], [0, 1], "expected strings, got float at row 0"),
        (["a", "b"], [1, 1], "two classes"),
        (["a", "b"], [0, 1, 0], "one class a text"),
        (["a", "b"], [0.5, 1.5], "Unknown label type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_is_no_text(make, texts, labels, message):
    with pytest.raises(ValueError, match=message):
        make().fit(texts, labels)


def test_options_may_not_replace_the_rows(make, rows):
    with pytest.raises(ValueError, match=r"data\.train"):
        make(options={"data.train": "elsewhere.csv"}).fit(*rows)


def test_unfitted(make):
    with pytest.raises(NotFittedError):
        make().predict(["a"])


@pytest.mark.parametrize(
    "pair", [(1.0, 2.0), (" ham", "ham "), ("01", "02"), ("nan", "x"), (True, False), (9, 10), ("a|b", "[c]")], ids=str
)
def test_a_saved_model_answers_in_the_classes_of_the_estimator(make, tmp_path, pair):
    texts = ["the boat came late", "she won the match"] * 6
    kind = object if isinstance(pair[0], str) else None
    model = make(steps=2, validation_size=None).fit(texts, np.array(pair * 6, dtype=kind))
    live = model.predict(texts[:2])
    assert list(live) == list(model.classes_[model.predict_proba(texts[:2]).argmax(axis=1)])
    assert rankwise.load(model.save(tmp_path / "a")).predict(texts[:2]) == [str(answer) for answer in live]


def test_random_state_is_what_scikit_learn_means_by_it(make, rows):
    texts, topics = rows
    seeds = set()
    for state in (None, np.random.RandomState(3), np.random.RandomState(3), 7):
        model = make(steps=1, validation_size=None, random_state=state).fit(texts[:12], topics[:12])
        seeds.add(model.result_["seed"])
    assert 7 in seeds
    assert len(seeds) == 3, "None draws anew, equal generators give equal seeds"


def test_half_a_character_is_fitted_and_predicted_alike(make):
    texts = ["love this \ud83d", "cold tea"] * 6
    model = make(steps=2, validation_size=None).fit(texts, ["good", "bad"] * 6)
    np.testing.assert_array_equal(model.predict_proba(texts[:1]), model.predict_proba(["love this \ufffd"]))
