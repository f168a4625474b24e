"""Diagonal neighborhood component analysis: one weight a feature."""

from __future__ import annotations

import numbers

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import squareform
from sklearn.utils import check_X_y
from sklearn.utils.multiclass import check_classification_targets

__all__ = ["nca_objective", "nca_weights"]

# Columns at a time of the gradient: a block of a thousand rows in single
# precision fits the processor's cache.
_BLOCK = 256


def nca_objective(
    weights: np.ndarray, X: np.ndarray, y: np.ndarray, sigma: float, regularization: float
) -> tuple[float, np.ndarray]:
    """Compute the regularized leave-one-out accuracy of random neighbours, and its gradient.

    With the distances ``d_ij = sum_r w_r**2 |x_ir - x_jr|``, row i takes row j
    as its reference with probability ``p_ij``, proportional to
    ``exp(-d_ij / sigma)``, and never itself. The objective is

        ``F(w) = 1/n sum_i sum_j p_ij [y_i = y_j] - regularization * sum_r w_r**2``

    Parameters
    ----------
    weights : ndarray of shape (d,), dtype float64
        Feature weights w.
    X : ndarray of shape (n, d), dtype float32 or float64
        Features. Distances are computed in this type.
    y : ndarray of shape (n,)
        Labels.
    sigma : float
        Width of the kernel.
    regularization : float
        Weight of the penalty.

    Returns
    -------
    objective : float
        F(w).
    gradient : ndarray of shape (d,), dtype float64
        Its derivative with respect to w.

    References
    ----------
    .. [1] Yang, W., Wang, K. and Zuo, W. (2012). Neighborhood component feature
       selection for high-dimensional data. Journal of Computers 7(1), 161-168.

    Examples
    --------
    >>> X, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> value, gradient = nca_objective(np.ones(1), X, y, sigma=1.0, regularization=0.0)
    >>> round(value, 4), (gradient > 0).tolist()
    (0.5512, [True])
    """
    # It is several times as fast as scipy's; and not imported with the module,
    # as only a fit needs it.
    import torch

    n = len(X)
    squared = (weights**2).astype(X.dtype)
    half = torch.pdist(torch.from_numpy(X * squared), p=1.0).numpy()
    distances = squareform(half).astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    p = np.exp((distances.min(axis=1, keepdims=True) - distances) / sigma)
    p /= p.sum(axis=1, keepdims=True)
    same = y[:, None] == y
    correct = np.where(same, p, 0).sum(axis=1)
    # dF / dd_ij, both of its occurrences taken together.
    pull = p * (correct[:, None] - same) / (n * sigma)
    pull += pull.T
    gradient = 2 * weights * (_weighted_differences(X, pull) - regularization)
    return float(correct.mean() - regularization * (weights @ weights)), gradient


def _weighted_differences(X: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """Compute sum_{i<j} pull_ij |x_ir - x_jr| for every feature r, pull being symmetric.

    |a - b| = 2 max(a, b) - a - b leaves one pass and one product for a row.
    """
    n, n_features = X.shape
    out = np.empty(n_features)
    row_sums = pull.sum(axis=1)
    pull = pull.astype(X.dtype)
    for first in range(0, n_features, _BLOCK):
        columns = np.ascontiguousarray(X[:, first : first + _BLOCK])
        larger = np.empty_like(columns)
        total = np.zeros(columns.shape[1])
        for i in range(n - 1):
            np.maximum(columns[i], columns[i + 1 :], out=larger[i + 1 :])
            total += pull[i, i + 1 :] @ larger[i + 1 :]
        out[first : first + _BLOCK] = 2 * total - row_sums @ columns
    return out


def nca_weights(
    X, y, *, sigma: float = 1.0, regularization: float | None = None, max_iter: int = 30
) -> np.ndarray:
    """Learn how much each feature tells about a row's class, by diagonal NCA.

    Maximises ``nca_objective`` from weights of 1 (constant features: 0) by
    L-BFGS. This is the method of MATLAB's ``fscnca``; scikit-learn's
    ``NeighborhoodComponentsAnalysis`` learns a full matrix instead.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Features, of one scale. Computed with in single precision.
    y : array-like of shape (n,)
        Labels.
    sigma : float, default=1.0
        Width of the kernel.
    regularization : float or None, default=None
        Weight of the penalty on squared weights; None is 1 / n.
    max_iter : int, default=30
        Iterations of L-BFGS at most.

    Returns
    -------
    ndarray of shape (d,), dtype float64
        Absolute weights. A weight's sign means nothing.

    Raises
    ------
    ValueError
        If a parameter is out of range, or y has one class only.

    References
    ----------
    .. [1] Yang, W., Wang, K. and Zuo, W. (2012). Neighborhood component feature
       selection for high-dimensional data. Journal of Computers 7(1), 161-168.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.random((60, 5))
    >>> int(nca_weights(X, X[:, 3] > 0.5).argmax())
    3
    """
    X, y = check_X_y(X, y)
    check_classification_targets(y)
    check_nca(sigma, regularization, max_iter)
    if len(np.unique(y)) < 2:
        raise ValueError("NCA compares classes, and y has 1 class only.")
    return fit_nca(X, y, sigma, regularization, max_iter)[0]


def fit_nca(
    X: np.ndarray, y: np.ndarray, sigma: float, regularization: float | None, max_iter: int
) -> tuple[np.ndarray, int]:
    """Do the work of :func:`nca_weights` on checked input; return the iterations too."""
    X = X.astype(np.float32)
    codes = np.unique(y, return_inverse=True)[1]
    penalty = 1 / len(X) if regularization is None else regularization

    def loss(weights):
        value, gradient = nca_objective(weights, X, codes, sigma, penalty)
        return -value, -gradient

    # A constant feature starts and stays at its optimum of 0, a stationary point;
    # the penalty alone would take it there more slowly than NCA takes bad features.
    start = (X.max(axis=0) > X.min(axis=0)).astype(float)
    result = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "gtol": 1e-6},
    )
    return np.abs(result.x), int(result.nit)


def check_nca(sigma: float, regularization: float | None, max_iter: int) -> None:
    """Raise a ValueError if a parameter of NCA is out of range."""
    if not sigma > 0:
        raise ValueError(f"NCA: sigma={sigma!r} must be positive.")
    if regularization is not None and not regularization >= 0:
        raise ValueError(
            f"NCA: regularization={regularization!r} must be None (1 / n) or at least 0."
        )
    if not isinstance(max_iter, numbers.Integral) or max_iter < 1:
        raise ValueError(f"NCA: max_iter={max_iter!r} must be a whole number of at least 1.")
