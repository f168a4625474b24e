import numpy as np
import pytest
from joblib import parallel_config
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from skfdan.feature_selection import INCASelector


@pytest.fixture
def problem():
    return make_classification(
        n_samples=90, n_features=20, n_informative=4, n_redundant=0, n_classes=3, random_state=3
    )


@pytest.mark.parametrize("estimator", [None, GaussianNB()], ids=["1-NN", "Bayes"])
def test_loop_equals_the_plain_one(problem, estimator):
    X, y = problem
    X[:, 7] = 3.0
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    selector = INCASelector(k_min=2, k_max=18, step=3, cv=folds, estimator=estimator)
    selector.fit(X, np.array(["a", "b", "c"])[y])
    assert selector.candidates_.tolist() == [2, 5, 8, 11, 14, 17]
    ranking = sorted(range(20), key=lambda r: (-selector.weights_[r], r))
    assert selector.ranking_.tolist() == ranking
    # The reference scales for itself; the constant column becomes zeros.
    scaled = (X - X.min(0)) / np.where(np.ptp(X, axis=0) == 0, 1, np.ptp(X, axis=0))
    plain = KNeighborsClassifier(1, metric="cityblock") if estimator is None else estimator
    for k, loss in zip(selector.candidates_, selector.losses_, strict=True):
        best = scaled[:, ranking[:k]]
        # Folds have 18 rows each, so that the mean over folds is the share of rows.
        assert loss == pytest.approx(1 - cross_val_score(plain, best, y, cv=folds).mean())
    expected = min(zip(selector.losses_, selector.candidates_, strict=True))[1]
    assert selector.k_ == expected
    assert sorted(selector.get_support(indices=True)) == sorted(ranking[:expected])
    np.testing.assert_array_equal(selector.transform(X), X[:, selector.get_support()])


def test_blocks_of_test_rows(problem, monkeypatch):
    X, y = problem
    parameters = {"k_min": 1, "k_max": 20, "cv": 3, "random_state": 0}
    expected = INCASelector(**parameters).fit(X, y).losses_
    monkeypatch.setattr("skfdan.feature_selection.inca._CELLS", 60 * 7)
    np.testing.assert_array_equal(INCASelector(**parameters).fit(X, y).losses_, expected)


def test_folds_judged_at_the_same_time(problem):
    X, y = problem
    for estimator in (None, GaussianNB()):
        parameters = {"k_min": 3, "cv": 3, "estimator": estimator, "random_state": 0}
        one = INCASelector(**parameters).fit(X, y)
        with parallel_config("threading"):
            two = INCASelector(**parameters, n_jobs=2).fit(X, y)
        np.testing.assert_array_equal(one.losses_, two.losses_)


def test_losses_weigh_rows_alike():
    # 7 rows in 2 folds, of which one is larger: a loss is a share of 7.
    rng = np.random.default_rng(0)
    X, y = rng.random((7, 3)), np.array([0, 0, 0, 0, 1, 1, 1])
    losses = INCASelector(k_min=1, cv=2, random_state=0).fit(X, y).losses_
    np.testing.assert_allclose(losses * 7, np.round(losses * 7), atol=1e-12)


def test_fewest_features_win_a_tie():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    X = np.column_stack([y + 0.1 * rng.random(40), y + 0.1 * rng.random(40), rng.random(40) / 10])
    selector = INCASelector(k_min=1, cv=5, random_state=0).fit(X, y)
    assert selector.losses_[0] == selector.losses_[1] == 0
    assert selector.k_ == 1


def test_scale_does_not_matter_and_constants_come_last(problem):
    X, y = problem
    X[:, [4, 11]] = 5.0
    selector = INCASelector(k_min=1, random_state=0).fit(X, y)
    assert selector.ranking_[-2:].tolist() == [4, 11]
    # Powers of two, which no float rounds.
    other = INCASelector(k_min=1, random_state=0).fit(X * 2.0 ** np.arange(-10, 10), y)
    np.testing.assert_array_equal(other.ranking_, selector.ranking_)
    np.testing.assert_array_equal(other.losses_, selector.losses_)


def test_informative_features_are_found():
    rng = np.random.default_rng(0)
    X = rng.random((150, 60))
    y = np.digitize(X[:, 13] + X[:, 41], [0.8, 1.2])
    selector = INCASelector(k_min=1, k_max=30, random_state=0).fit(X, y)
    assert set(selector.ranking_[:2]) == {13, 41}
    assert {13, 41} <= set(selector.get_support(indices=True))
    assert selector.k_ < 10


def test_bounds_are_clipped_to_the_features(problem):
    X, y = problem
    assert INCASelector(random_state=0).fit(X, y).candidates_.tolist() == [20]
    selector = INCASelector(k_min=18, random_state=0).fit(X, y)
    assert selector.candidates_.tolist() == [18, 19, 20]


@pytest.mark.parametrize("fewest", [1, 3])
def test_rare_class_makes_fewer_folds(fewest):
    rng = np.random.default_rng(0)
    y = np.array([0] * 20 + [1] * 20 + [2] * fewest)
    splitter = INCASelector()._splitter(y, np.random.RandomState(0))
    assert splitter.get_n_splits() == max(2, fewest)
    if fewest == 1:
        with pytest.warns(UserWarning, match="least populated class"):
            INCASelector().fit(rng.random((len(y), 4)), y)
    else:
        INCASelector().fit(rng.random((len(y), 4)), y)


def test_groups_reach_the_folds(problem):
    X, y = problem
    groups = np.arange(90) % 6
    by_speaker = INCASelector(k_min=1, cv=GroupKFold(6)).fit(X, y, groups=groups)
    folds = [(np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in range(6)]
    expected = INCASelector(k_min=1, cv=folds).fit(X, y)
    np.testing.assert_array_equal(by_speaker.losses_, expected.losses_)


def test_partitions_are_equal_and_stratified(problem, monkeypatch):
    X, y = problem
    X[:, 0] = np.linspace(0, 1, 90)
    seen = []

    def record(X, y, *args):
        seen.append((X, y))
        return np.full(X.shape[1], float(len(seen))), len(seen)

    monkeypatch.setattr("skfdan.feature_selection.inca.fit_nca", record)
    selector = INCASelector(partition_size=31, random_state=0).fit(X, y)
    assert [len(part) for _, part in seen] == [30, 30, 30]
    for _, part in seen:
        assert np.ptp(np.bincount(part) - np.bincount(y) / 3) <= 2
    # Every row is in one partition, with its own label.
    rows = np.concatenate([part[:, 0] for part, _ in seen]) * 89
    assert sorted(np.round(rows).astype(int)) == list(range(90))
    labels = np.concatenate([part for _, part in seen])
    np.testing.assert_array_equal(labels, y[np.round(rows).astype(int)])
    assert selector.weights_.tolist() == [2.0] * 20
    assert selector.n_iter_ == 3


def test_partition_without_the_rare_class_is_left_out():
    X = np.random.default_rng(0).random((60, 3))
    y = np.array([0] * 59 + [1])
    with pytest.warns(UserWarning, match="least populated class"):
        weights = INCASelector(partition_size=20, random_state=0).fit(X, y).weights_
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k_min": 0}, "k_min=0 must be a whole number"),
        ({"step": 1.5}, "step=1.5 must be a whole number"),
        ({"k_min": 20, "k_max": 10}, "k_min=20 is more than k_max=10"),
        ({"cv": 1}, "cv=1 must be at least 2"),
        ({"sigma": 0}, "sigma=0 must be positive"),
        ({"regularization": -1}, "regularization=-1 must be None"),
        ({"max_iter": 0}, "max_iter=0 must be a whole number"),
        ({"partition_size": 1}, "partition_size=1 must be None"),
    ],
)
def test_bad_parameters(problem, parameters, message):
    with pytest.raises(ValueError, match=message):
        INCASelector(**parameters).fit(*problem)


def test_the_output_that_sklearn_is_set_to_does_not_matter(problem):
    X, y = problem
    plain = INCASelector(k_min=2, k_max=6, random_state=0).fit(X, y)
    with config_context(transform_output="pandas"):
        selector = INCASelector(k_min=2, k_max=6, random_state=0).fit(X, y)
    np.testing.assert_array_equal(selector.ranking_, plain.ranking_)
    np.testing.assert_array_equal(selector.losses_, plain.losses_)


def test_one_class_is_refused(problem):
    with pytest.raises(ValueError, match="INCASelector compares classes, and y has 1 class only"):
        INCASelector().fit(problem[0], np.zeros(90))


def test_fidelity():
    assert INCASelector.fidelity == "partial"
