import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import balanced_accuracy_score, get_scorer, recall_score
from sklearn.model_selection import cross_validate

from skfdan import SCORING, uar_score, war_score, weighted_f1_score

# Rows are true classes, columns predicted ones.
CONFUSION = np.array([[5, 1, 0], [2, 3, 1], [0, 0, 8]])
# Precision 5/7, 3/4, 8/9; recall 5/6, 3/6, 8/8; F1 = 2 tp / (true + predicted).
F1 = np.array([10 / 13, 6 / 10, 16 / 17])
NAMES = np.array(["anger", "fear", "joy"])


def labels_of(confusion, names=None):
    true, predicted = [], []
    for i, row in enumerate(confusion):
        for j, n in enumerate(row):
            true += [i] * n
            predicted += [j] * n
    order = np.random.default_rng(0).permutation(len(true))
    true, predicted = np.array(true)[order], np.array(predicted)[order]
    return (true, predicted) if names is None else (names[true], names[predicted])


@pytest.mark.parametrize("names", [None, NAMES, NAMES.astype(object)], ids=["int", "str", "object"])
@pytest.mark.parametrize("container", [np.asarray, list])
def test_scores_of_a_confusion_matrix(names, container):
    y_true, y_pred = (container(y) for y in labels_of(CONFUSION, names))
    assert war_score(y_true, y_pred) == pytest.approx(16 / 20)
    assert uar_score(y_true, y_pred) == pytest.approx((5 / 6 + 3 / 6 + 1) / 3)
    assert weighted_f1_score(y_true, y_pred) == pytest.approx(
        (6 * F1[0] + 6 * F1[1] + 8 * F1[2]) / 20
    )


@pytest.mark.parametrize("score", [war_score, uar_score, weighted_f1_score])
def test_scores_are_plain_floats_between_nought_and_one(score):
    y = np.array([0, 1, 2, 2])
    assert type(score(y, y)) is float
    assert score(y, y) == 1.0
    assert score(y, (y + 1) % 3) == 0.0


@pytest.mark.parametrize(
    "container", [torch.tensor, pd.Series, pd.Categorical, lambda y: np.array(y)[:, None]]
)
def test_labels_come_in_any_container(container):
    y_true, y_pred = [0, 0, 1, 1, 2], [0, 0, 1, 2, 2]
    scores = [score(y_true, y_pred) for score in (war_score, uar_score, weighted_f1_score)]
    assert scores[:2] == [0.8, pytest.approx(2.5 / 3)]
    y_true, y_pred = container(y_true), container(y_pred)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A column-vector y was passed")
        assert [s(y_true, y_pred) for s in (war_score, uar_score, weighted_f1_score)] == scores


def test_a_class_that_is_never_predicted_gives_no_warning():
    y_true, y_pred = labels_of([[4, 0], [2, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert war_score(y_true, y_pred) == pytest.approx(4 / 6)
        assert uar_score(y_true, y_pred) == pytest.approx(1 / 2)
        # F1 of class 0 is 8 / 10, of class 1 it is 0.
        assert weighted_f1_score(y_true, y_pred) == pytest.approx(4 / 6 * 0.8)


def test_a_class_that_is_predicted_but_never_true_has_no_recall():
    y_true, y_pred = labels_of([[3, 1, 0], [0, 2, 2], [0, 0, 0]], NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uar = uar_score(y_true, y_pred)
        war_score(y_true, y_pred)
        weighted_f1_score(y_true, y_pred)
    assert uar == pytest.approx((3 / 4 + 2 / 4) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert uar == pytest.approx(balanced_accuracy_score(y_true, y_pred))
        macro = recall_score(y_true, y_pred, average="macro", zero_division=0)
    assert macro == pytest.approx((3 / 4 + 2 / 4) / 3)


def test_uar_is_balanced_accuracy_on_random_labels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y_true, y_pred = rng.integers(0, 5, (2, rng.integers(5, 60)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = balanced_accuracy_score(y_true, y_pred)
        assert uar_score(y_true, y_pred) == pytest.approx(expected)


def test_scoring_names_are_the_fields():
    assert list(SCORING) == ["WAR", "UAR", "wF1"]


def test_scorers_agree_with_the_functions():
    y_true, y_pred = labels_of(CONFUSION, NAMES)

    class Echo(DummyClassifier):
        def predict(self, X):
            return X[:, 0]

    X = y_pred[:, None]
    echo = Echo().fit(X, y_true)
    functions = {"WAR": war_score, "UAR": uar_score, "wF1": weighted_f1_score}
    for name, scorer in SCORING.items():
        assert get_scorer(scorer)(echo, X, y_true) == pytest.approx(functions[name](y_true, y_pred))


def test_scoring_serves_cross_validate():
    X, y = np.zeros((20, 1)), np.array([0] * 12 + [1] * 8)
    scores = cross_validate(DummyClassifier(), X, y, cv=4, scoring=SCORING)
    np.testing.assert_allclose(scores["test_WAR"], 3 / 5)
    np.testing.assert_allclose(scores["test_UAR"], 1 / 2)
    np.testing.assert_allclose(scores["test_wF1"], 3 / 5 * (2 * 3 / (3 + 5)))


@pytest.mark.parametrize("score", [war_score, uar_score, weighted_f1_score])
def test_labels_are_one_column(score):
    pairs = np.array([[0, 1], [1, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"should be a 1d array, got an array of shape \(3, 2\)"):
        score(pairs, pairs)


@pytest.mark.parametrize("name", SCORING)
def test_numbers_may_be_objects(name):
    """Those of an array in which other labels are missing."""
    X, y = np.zeros((3, 1)), np.array([0, 1, 1], dtype=object)
    model = DummyClassifier(strategy="constant", constant=1).fit(X, [0, 1, 1])
    expected = get_scorer(SCORING[name])(model, X, [0, 1, 1])
    assert get_scorer(SCORING[name])(model, X, y) == expected


@pytest.mark.parametrize("labels", [["a", None], ["a", float("nan")], [0, None], [0.0, np.nan]])
def test_what_is_missing_has_no_score(labels):
    with pytest.raises(ValueError, match=r"y_true is missing \(NaN or None\) in row 1"):
        uar_score(labels, labels)
