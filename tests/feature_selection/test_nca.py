import math

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.preprocessing import minmax_scale

from skfdan.feature_selection import nca_weights
from skfdan.feature_selection.nca import nca_objective


@pytest.fixture
def problem():
    return make_classification(
        n_samples=90, n_features=20, n_informative=4, n_redundant=0, n_classes=3, random_state=3
    )


def slow_objective(w, X, y, sigma, regularization):
    """MathWorks' description of fscnca, word for word."""
    n = len(X)
    total = 0.0
    for i in range(n):
        kernels = []
        for j in range(n):
            distance = sum(w[r] ** 2 * abs(X[i, r] - X[j, r]) for r in range(len(w)))
            kernels.append(0.0 if i == j else math.exp(-distance / sigma))
        total += sum(k for k, label in zip(kernels, y, strict=True) if label == y[i]) / sum(kernels)
    return total / n - regularization * sum(v**2 for v in w)


@pytest.mark.parametrize(("sigma", "regularization"), [(1.0, 0.1), (0.3, 0.0), (2.5, 0.02)])
def test_objective_and_gradient(sigma, regularization):
    rng = np.random.default_rng(0)
    # Ties between values, a constant feature and a weight of zero among them.
    X = np.column_stack([rng.random((12, 4)), rng.integers(0, 3, 12) / 2, np.full(12, 0.5)])
    y = rng.integers(0, 3, 12)
    w = np.array([1.0, 0.5, -2.0, 0.0, 0.7, 0.3])
    value, gradient = nca_objective(w, X, y, sigma, regularization)
    assert value == pytest.approx(slow_objective(w, X, y, sigma, regularization))
    for r, direction in enumerate(np.eye(6) * 1e-6):
        slope = slow_objective(w + direction, X, y, sigma, regularization)
        slope -= slow_objective(w - direction, X, y, sigma, regularization)
        assert gradient[r] == pytest.approx(slope / 2e-6, abs=1e-7)


def test_gradient_of_many_features():
    # More columns than one block of the gradient has.
    rng = np.random.default_rng(1)
    X, y = rng.random((9, 600)), rng.integers(0, 2, 9)
    w = rng.random(600) / 10
    _, gradient = nca_objective(w, X, y, 1.0, 0.01)
    for r in (0, 255, 256, 599):
        step = np.zeros(600)
        step[r] = 1e-5
        slope = slow_objective(w + step, X, y, 1.0, 0.01) - slow_objective(
            w - step, X, y, 1.0, 0.01
        )
        assert gradient[r] == pytest.approx(slope / 2e-5, abs=1e-8)


def test_distant_rows_do_not_underflow():
    X = np.array([[0.0], [1e4], [3e4], [7e4]])
    value, gradient = nca_objective(np.ones(1), X, np.array([0, 0, 1, 1]), 1.0, 0.0)
    assert value == pytest.approx(0.75)
    assert np.isfinite(gradient).all()


def test_weights_climb_to_a_stationary_point(problem):
    X, y = problem
    X = minmax_scale(X).astype(np.float32)
    codes = np.unique(y, return_inverse=True)[1]
    weights = nca_weights(X, y, max_iter=500)
    value, gradient = nca_objective(weights, X, codes, 1.0, 1 / 90)
    assert value > nca_objective(np.ones(20), X, codes, 1.0, 1 / 90)[0] + 0.1
    assert np.abs(gradient).max() < 1e-3
    np.testing.assert_array_equal(nca_weights(X, y, regularization=1 / 90, max_iter=500), weights)


def test_constant_features_weigh_nothing(problem):
    X, y = problem
    X = minmax_scale(X)
    X[:, [0, 5]] = 0.25
    weights = nca_weights(X, y)
    assert np.flatnonzero(weights == 0).tolist() == [0, 5]
    others = np.setdiff1d(np.arange(20), [0, 5])
    # Near zero the objective, of squared weights, is flat: where the optimiser stops is chance.
    np.testing.assert_allclose(weights[others], nca_weights(X[:, others], y), rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sigma": 0}, "sigma=0 must be positive"),
        ({"regularization": -1}, "regularization=-1 must be None"),
        ({"max_iter": 0}, "max_iter=0 must be a whole number"),
    ],
)
def test_refused(problem, parameters, message):
    with pytest.raises(ValueError, match=message):
        nca_weights(*problem, **parameters)


def test_nca_of_one_class_is_refused(problem):
    with pytest.raises(ValueError, match="y has 1 class only"):
        nca_weights(problem[0], np.zeros(90))
