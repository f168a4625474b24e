"""Iterative neighborhood component analysis: which features, and how many."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .nca import check_nca, fit_nca

__all__ = ["INCASelector"]

# Distances kept at a time: a megabyte stays in the processor's cache.
_CELLS = 2**17


class INCASelector(SelectorMixin, BaseEstimator):
    """Iterative neighborhood component analysis: rank features, then try how many.

    1. Features are scaled to [0, 1] (for the selection; the selected columns
       come out as they went in).
    2. Diagonal NCA (:func:`~skfdan.feature_selection.nca_weights`) ranks them by absolute weight.
    3. For every k from ``k_min`` to ``k_max``, the k best are judged by the
       cross-validated error of a classifier; the smallest k of the lowest error
       is taken.

    Everything happens in ``fit``. In a ``Pipeline`` under cross-validation the
    selection therefore sees training rows only.

    Parameters
    ----------
    k_min : int, default=100
        Fewest features tried; the number of features if there are fewer.
    k_max : int, default=1000
        Most features tried; the number of features if there are fewer.
    step : int, default=1
        From one k to the next.
    estimator : classifier or None, default=None
        What judges k features. None is the nearest neighbour by Manhattan
        distance, whose distances are built up from one k to the next; any other
        classifier is fitted for every k and fold.
    cv : int, splitter or iterable, default=10
        Folds of the judgement. An integer is a shuffled, stratified k-fold, of
        fewer folds (at least 2) if a class has fewer rows.
    sigma : float, default=1.0
        Width of NCA's kernel.
    regularization : float or None, default=None
        Weight of NCA's penalty; None is 1 / n.
    max_iter : int, default=30
        Iterations of L-BFGS for NCA at most.
    partition_size : int or None, default=2000
        More rows than this are divided at random into equal, stratified
        partitions, whose weights are averaged, as NCA's cost grows with the
        square of the rows. None never divides.
    n_jobs : int or None, default=None
        Folds judged at the same time.
    random_state : int, RandomState instance or None, default=None
        Seed of folds and partitions.

    Attributes
    ----------
    weights_ : ndarray of shape (n_features_in,)
        NCA's absolute weights.
    ranking_ : ndarray of shape (n_features_in,), dtype int
        Feature indices from the largest weight to the smallest; equal weights
        in the order of their columns.
    candidates_ : ndarray of shape (n_candidates,), dtype int
        The numbers of features tried.
    losses_ : ndarray of shape (n_candidates,)
        Their cross-validated share of misclassified rows. The lowest is no
        estimate of the error on new rows: k and ranking have seen these rows.
    k_ : int
        Number of features selected.
    n_iter_ : int
        Iterations of L-BFGS; the most that a partition took.
    n_features_in_ : int
        Number of features at ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in,)
        Names of the features at ``fit``; only if all are strings.

    See Also
    --------
    make_inca_pipeline : The method of [1]_ with this selection.

    Notes
    -----
    Fidelity: **partial**. The paper was not at hand beyond its abstract. NCA
    follows the documentation of MATLAB's ``fscnca`` (weights from 1, sigma 1,
    penalty 1 / n, no standardization), which the authors use; the loop and its
    usual range of 100 to 1000 follow their other papers. ``fscnca`` takes SGD
    above 1000 rows and up to 1000 iterations of L-BFGS below. Here it is L-BFGS
    always, of few iterations; the averaging over partitions is one of
    ``fscnca``'s options (``FitMethod="average"``). The classifier of the loop is
    not known for this paper.

    A fit takes about 25 s for 1,000 rows of 4,608 features on one core.

    References
    ----------
    .. [1] Tuncer, T., Dogan, S. and Acharya, U. R. (2021). Automated accurate
       speech emotion recognition system using twine shuffle pattern and
       iterative neighborhood component analysis techniques. Knowledge-Based
       Systems 211, 106547.
    .. [2] Yang, W., Wang, K. and Zuo, W. (2012). Neighborhood component feature
       selection for high-dimensional data. Journal of Computers 7(1), 161-168.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.feature_selection import INCASelector
    >>> X = np.random.default_rng(0).random((80, 12))
    >>> y = (X[:, 2] + X[:, 7] > 1).astype(int)
    >>> selector = INCASelector(k_min=1, k_max=12, cv=5, random_state=0).fit(X, y)
    >>> selector.k_, selector.get_support(indices=True).tolist()
    (2, [2, 7])
    """

    fidelity = "partial"

    def __init__(
        self,
        *,
        k_min=100,
        k_max=1000,
        step=1,
        estimator=None,
        cv=10,
        sigma=1.0,
        regularization=None,
        max_iter=30,
        partition_size=2000,
        n_jobs=None,
        random_state=None,
    ):
        self.k_min = k_min
        self.k_max = k_max
        self.step = step
        self.estimator = estimator
        self.cv = cv
        self.sigma = sigma
        self.regularization = regularization
        self.max_iter = max_iter
        self.partition_size = partition_size
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X, y, groups=None):
        """Rank the features and choose their number.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Labels.
        groups : array-like of shape (n,) or None, default=None
            Speakers, for a ``cv`` that divides by them.

        Returns
        -------
        self : object
            The selector.

        Raises
        ------
        ValueError
            If a parameter is out of range, X is not finite, or y has one class.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        if len(np.unique(y)) < 2:
            raise ValueError(f"{type(self).__name__} compares classes, and y has 1 class only.")
        rng = check_random_state(self.random_state)
        # An array, whatever sklearn.set_config says.
        X = MinMaxScaler().set_output(transform="default").fit_transform(X)
        self.weights_, self.n_iter_ = self._weights(X, y, rng)
        self.ranking_ = np.argsort(-self.weights_, kind="stable")
        n_features = X.shape[1]
        k_max = min(self.k_max, n_features)
        self.candidates_ = np.arange(min(self.k_min, n_features), k_max + 1, self.step)
        best = np.ascontiguousarray(X[:, self.ranking_[:k_max]])
        splits = list(self._splitter(y, rng).split(best, y, groups))
        # Numpy lets go of the interpreter; of other classifiers nothing is known.
        prefer = "threads" if self.estimator is None else None
        errors = Parallel(n_jobs=self.n_jobs, prefer=prefer)(
            delayed(_errors)(self.estimator, best, y, train, test, self.candidates_)
            for train, test in splits
        )
        self.losses_ = np.sum(errors, axis=0) / sum(len(test) for _, test in splits)
        self.k_ = int(self.candidates_[np.argmin(self.losses_)])
        return self

    def _weights(
        self, X: np.ndarray, y: np.ndarray, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int]:
        n_parts = 1 if self.partition_size is None else math.ceil(len(X) / self.partition_size)
        # Dealt out class by class, so that every part gets its share of each.
        part = np.empty(len(X), dtype=int)
        shuffled = rng.permutation(len(X))
        part[shuffled[np.argsort(y[shuffled], kind="stable")]] = np.arange(len(X)) % n_parts
        # A part of one class, if one is that rare, has nothing to say.
        parts = [part == i for i in range(n_parts) if len(np.unique(y[part == i])) > 1]
        weights, n_iter = zip(
            *(
                fit_nca(X[rows], y[rows], self.sigma, self.regularization, self.max_iter)
                for rows in parts
            ),
            strict=True,
        )
        return np.mean(weights, axis=0), max(n_iter)

    def _splitter(self, y: np.ndarray, rng: np.random.RandomState) -> Any:
        if not isinstance(self.cv, numbers.Integral):
            return check_cv(self.cv, y, classifier=True)
        fewest = np.unique(y, return_counts=True)[1].min()
        n_splits = max(2, min(self.cv, fewest))
        return StratifiedKFold(n_splits, shuffle=True, random_state=rng)

    def _check_parameters(self) -> None:
        name = type(self).__name__
        for parameter in ("k_min", "k_max", "step"):
            value = getattr(self, parameter)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"{name}: {parameter}={value!r} must be a whole number of at least 1."
                )
        if self.k_min > self.k_max:
            raise ValueError(f"{name}: k_min={self.k_min!r} is more than k_max={self.k_max!r}.")
        if isinstance(self.cv, numbers.Integral) and self.cv < 2:
            raise ValueError(f"{name}: cv={self.cv!r} must be at least 2.")
        if self.partition_size is not None and not self.partition_size >= 2:
            raise ValueError(
                f"{name}: partition_size={self.partition_size!r} must be None or at least 2."
            )
        check_nca(self.sigma, self.regularization, self.max_iter)

    def _get_support_mask(self):
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.ranking_[: self.k_]] = True
        return mask

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _errors(
    estimator: Any,
    X: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """Count the misclassified test rows with the first k columns, for every k."""
    if estimator is None:
        return _nearest_errors(X[train], y[train], X[test], y[test], candidates)
    return np.array(
        [
            np.sum(clone(estimator).fit(X[train, :k], y[train]).predict(X[test, :k]) != y[test])
            for k in candidates
        ]
    )


def _nearest_errors(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """Count the errors of the nearest neighbour: one column more, one term more."""
    errors = np.zeros(len(candidates), dtype=int)
    columns = np.ascontiguousarray(X_train.T)
    for rows in gen_batches(len(X_test), max(1, _CELLS // len(X_train))):
        distances = np.zeros((rows.stop - rows.start, len(X_train)))
        term = np.empty_like(distances)
        done = 0
        for place, k in enumerate(candidates):
            for column in range(done, k):
                np.subtract(X_test[rows, column, None], columns[column], out=term)
                distances += np.abs(term, out=term)
            done = k
            nearest = y_train[distances.argmin(axis=1)]
            errors[place] += np.sum(nearest != y_test[rows])
    return errors
