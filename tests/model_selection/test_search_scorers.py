"""What FDANSearchCV hands to the scorers of a stack."""

import pickle
import weakref

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skfdan import SCORING, FDANClassifier, FDANSearchCV

CLF = FDANClassifier(
    visual=slice(0, 7),
    audio=slice(7, 12),
    bottleneck=8,
    max_epochs=6,
    batch_size=8,
    lr=0.05,
    momentum=0.9,
    random_state=0,
    verbose=0,
)


def matrix(n=36):
    rng = np.random.default_rng(1)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 12)) + 1.5 * np.eye(3, 12)[y], y


def searches(estimator, scoring, **settings):
    """Search over alpha, trained together and alone; return the results of both."""
    X, y = matrix()
    name = "fdanclassifier__alpha" if isinstance(estimator, Pipeline) else "alpha"
    arguments = estimator, {name: [1e-3, 1e-1, 1.0]}
    settings = {"cv": 2, "scoring": scoring, "refit": False} | settings
    two = FDANSearchCV(*arguments, stack=2, **settings), GridSearchCV(*arguments, **settings)
    return [search.fit(X.copy(), y).cv_results_ for search in two]


def score_without_voices(estimator, X, y):
    clean = estimator.score(X, y)
    X[:, 7:] = 0
    return {"clean": clean, "muted": estimator.score(X, y), "mean": X.mean()}


def size_pickled(estimator, X, y):
    return len(pickle.dumps(estimator)) > 0 and estimator.score(X, y)


@pytest.mark.parametrize("scoring", [score_without_voices, size_pickled])
@pytest.mark.parametrize("estimator", [CLF, make_pipeline(StandardScaler(), CLF)])
def test_a_scorer_may_do_what_it_likes(estimator, scoring):
    found, expected = searches(estimator, scoring, return_train_score=True, error_score="raise")
    scores = [key for key in expected if key.startswith("split")]
    assert len(scores) in (4, 12)
    for key in scores:
        assert np.isfinite(expected[key]).all()
        np.testing.assert_array_equal(found[key], expected[key])


def test_what_a_scorer_predicts_is_not_kept():
    seen = []

    def scorer(estimator, X, y):
        assert [ref() for ref in seen] == [None] * len(seen)
        rows = X + 0.0
        seen.append(weakref.ref(rows))
        return estimator.score(rows, y)

    searches(make_pipeline(StandardScaler(), CLF), scorer, error_score="raise")
    assert len(seen) == 12


class Counted(TransformerMixin, BaseEstimator):
    """Counts how often rows are transformed after the fit."""

    calls: list = []  # noqa: RUF012 - shared by the clones of a search

    def __init__(self, fails=False):
        self.fails = fails

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def fit_transform(self, X, y=None):
        return X

    def transform(self, X):
        self.calls.append(len(X))
        if self.fails:
            raise RuntimeError("no rows today")
        return X


@pytest.mark.parametrize(
    ("scoring", "calls"),
    [
        (None, 1),
        ("accuracy", 1),
        (make_scorer(accuracy_score), 1),
        (["accuracy", "neg_log_loss"], 1),
        (SCORING | {"own": make_scorer(accuracy_score, normalize=False)}, 1),
        (lambda e, X, y: e.score(X, y), 3),
        (SCORING | {"own": lambda e, X, y: e.score(X, y)}, 3 * 2),
    ],
)
def test_rows_are_transformed_once_a_fold_for_scorers_that_only_predict(scoring, calls):
    X, y = matrix()
    grid = {"fdanclassifier__alpha": [1e-3, 1e-1, 1.0]}
    search = FDANSearchCV(make_pipeline(Counted(), CLF), grid, cv=2, scoring=scoring, refit=False)
    Counted.calls.clear()
    search.set_params(return_train_score=True).fit(X, y)
    assert Counted.calls == [18] * 2 * 2 * calls  # two folds, test and training rows
    found, expected = searches(make_pipeline(Counted(), CLF), scoring)
    for key in (key for key in expected if "test" in key):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-6)


@pytest.mark.parametrize("scoring", [None, SCORING])
def test_rows_that_cannot_be_transformed(scoring):
    estimator = make_pipeline(Counted(fails=True), CLF)
    with pytest.warns(UserWarning, match="no rows today"):
        found, expected = searches(estimator, scoring, error_score=-1.0)
    for key in (key for key in expected if key.startswith("mean_test")):
        assert found[key].tolist() == expected[key].tolist() == [-1.0] * 3
