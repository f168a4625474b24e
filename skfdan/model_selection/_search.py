"""A grid search that trains the candidates of a fold together."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import defaultdict
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.model_selection._validation import (
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel
from sklearn.utils.validation import _check_method_params

from ._stacks import Jobs

__all__ = ["FDANSearchCV"]


class FDANSearchCV(GridSearchCV):
    """Grid search over FDANClassifier that trains the candidates of a fold together.

    What it finds is what :class:`~sklearn.model_selection.GridSearchCV` finds, in about 70 %
    of the time on one core. Above frozen backbones the networks of the candidates are small,
    and a third of the time of a step goes into calls rather than arithmetic. Here the
    candidates of a fold that differ only in the parameters below share every step: the
    batches are drawn once, and each matrix product is one of all of them.

    Together go candidates that differ in ``alpha``, ``ramp``, ``lr``, ``lr_schedule``,
    ``weight_decay``, ``momentum``, ``optimizer``, ``optimizer_params``, ``inference`` or
    ``bank_size``; those that differ in more form groups. They need

    - an :class:`~skfdan.FDANClassifier`, or a Pipeline that ends in one, whose earlier
      steps are then fitted once a fold and group;
    - ``backbone_trainable=False``, or cells that are vectors;
    - ``random_state`` an integer, so that all begin with the same weights and batches, as
      they do in GridSearchCV;
    - ``variant="paper"`` and ``adaptation`` one of "lmmd", "mmd" and None;
    - SGD, Adam or AdamW;
    - none of ``early_stopping``, ``callbacks``, ``checkpoint_dir`` and ``shared_bottleneck``,
      nor arguments of ``fit`` other than ``groups`` for ``cv``.

    All others are trained one at a time, as in GridSearchCV; one warning says why.

    Parameters
    ----------
    estimator : estimator
        What is searched over.
    param_grid : dict or list of dict
        Values to try, by name of parameter.
    scoring : str, callable, list, tuple, dict or None, default=None
        How predictions are scored, such as :data:`skfdan.SCORING`. By names and what
        :func:`~sklearn.metrics.make_scorer` makes, a Pipeline's transformers see the test
        rows once a fold; a function ``f(estimator, X, y)`` gets rows of its own each time.
    n_jobs : int or None, default=None
        Processes; the candidates of a fold that are stacked stay in one.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all data (by the ordinary ``fit``), and with
        several scores, which one decides.
    cv : int, splitter, iterable or None, default=None
        How rows are divided, such as :class:`~skfdan.AudioHoldout`.
    verbose : int, default=0
        Messages.
    pre_dispatch : int or str, default="2*n_jobs"
        Jobs that are handed out ahead.
    error_score : "raise" or number, default=nan
        Score of a candidate whose training fails. Others in its stack are not affected.
    return_train_score : bool, default=False
        Whether ``cv_results_`` has scores of the training rows too.
    stack : int, default=10
        Most candidates to train together; larger groups are divided evenly. On a CPU six to
        ten are fastest: fewer save fewer calls, more leave its caches. 1 trains each alone.
    halving : int or None, default=None
        Successive halving over epochs: all candidates are first trained for a part of
        ``max_epochs``, the best ``1 / halving`` of them again for ``halving`` times as
        long, and so on up to ``max_epochs``. As
        :class:`~sklearn.model_selection.HalvingGridSearchCV` with
        ``resource="max_epochs"``, ``factor=halving`` and
        ``max_resources=max_epochs``, but for the last part, which is ``max_epochs`` long
        here and the largest multiple of the first that fits there, and for candidates of one
        score, of which the first go on here and the last there. None trains all of them for
        ``max_epochs``.

    Attributes
    ----------
    cv_results_ : dict of str to array
        As of GridSearchCV. A candidate's ``fit_time`` is its share of the time of its stack.
        With ``halving``, there is a row for each training, with ``iter`` and
        ``n_resources`` (epochs).
    best_estimator_ : estimator
        The best candidate, fitted to all data.
    best_score_ : float
        Its mean test score; with ``halving``, best among those of the last iteration.
    best_params_ : dict
        Its parameters.
    best_index_ : int
        Its row of ``cv_results_``.
    scorer_ : callable or dict
        What scores.
    n_splits_ : int
        Folds.
    refit_time_ : float
        Seconds of the last fit.
    multimetric_ : bool
        Whether there are several scores.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Column names of a frame.

    See Also
    --------
    skfdan.FDANClassifier : What is searched over.

    Notes
    -----
    The networks of a stack are those of single fits up to the rounding of float32. Over
    hundreds of epochs that rounding grows, as it does between two machines, so scores may
    differ by a test row or two from GridSearchCV's.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan import FDANClassifier, FDANSearchCV
    >>> rng = np.random.default_rng(0)
    >>> y = np.array(["anger", "joy"] * 12)
    >>> X = rng.normal(size=(24, 10)) + (y == "joy")[:, None]
    >>> clf = FDANClassifier(visual=slice(0, 6), audio=slice(6, 10), bottleneck=16, max_epochs=9,
    ...                      lr=0.05, momentum=0.9, random_state=0)
    >>> search = FDANSearchCV(clf, {"alpha": [1e-3, 1e-1], "weight_decay": [1e-3, 1e-4]}, cv=3)
    >>> search.fit(X, y).cv_results_["mean_test_score"].shape
    (4,)
    """

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
        stack=10,
        halving=None,
    ):
        super().__init__(
            estimator=estimator,
            param_grid=param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.stack = stack
        self.halving = halving

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags = copy.deepcopy(get_tags(self.estimator).transformer_tags)
        return tags

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Train and score every candidate in every fold, and the best on all data.

        Parameters
        ----------
        X : DataFrame, ndarray or list
            A modality table, or what else the estimator takes.
        y : array-like of shape (n,), default=None
            Labels.
        **params : dict
            ``groups`` for ``cv``, and arguments of the estimator's ``fit``.

        Returns
        -------
        self
            The fitted search.

        Raises
        ------
        ValueError
            If a parameter can't be used, or every fit has failed.
        """
        self._check_own()
        if hasattr(self, "_skl_callbacks"):
            return super().fit(X, y, **params)  # scikit-learn's callbacks follow single fits
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)
        routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        jobs = Jobs(
            clone(self.estimator),
            scorer=scorers,
            fit_params=routed.estimator.fit,
            score_params=routed.scorer.score,
            return_train_score=self.return_train_score,
            error_score=self.error_score,
            verbose=self.verbose,
            stack=self.stack,
        )
        with np.errstate(invalid="ignore"):  # infinite labels: the fit refuses them
            cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(cv.split(X, y, **routed.splitter.split))
        self.n_splits_ = len(splits)
        candidates: list[dict] = []
        out: list[dict] = []
        more: dict[str, list] = defaultdict(list)
        results: dict[str, Any] = {}

        def evaluate(new, more_results=None) -> dict[str, Any]:
            nonlocal results
            new = list(new)
            if self.verbose > 0:
                print(
                    f"Fitting {len(splits)} folds for each of {len(new)} candidates, totalling "
                    f"{len(splits) * len(new)} fits"
                )
            found = jobs.run(parallel, X, y, splits, new)
            if not found:
                raise ValueError("There is nothing to fit: no candidate, or no fold.")
            _warn_or_raise_about_fit_failures(found, self.error_score)
            if callable(self.scoring):
                _insert_error_scores(found, self.error_score)
            candidates.extend(new)
            out.extend(found)
            for key, value in (more_results or {}).items():
                more[key].extend(value)
            results = self._format_results(candidates, len(splits), out, more)
            return results

        with Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch) as parallel:
            self._run_search(evaluate)
        if jobs.obstacle is not None:
            warnings.warn(
                f"{type(self).__name__} has trained candidates one at a time, as GridSearchCV "
                f"does: {jobs.obstacle}. The results are the same.",
                UserWarning,
                stacklevel=3,  # scikit-learn's check of parameters lies between
            )
        self.multimetric_ = isinstance(out[0]["test_scores"], dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(out[0]["test_scores"])
            refit_metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        if self.refit:
            self._refit_best(X, y, routed.estimator.fit)
        multiple = isinstance(scorers, _MultimetricScorer)
        self.scorer_ = scorers._scorers if multiple else scorers
        self.cv_results_ = results
        return self

    @available_if(lambda self: hasattr(self.estimator, "transform"))
    def fit_transform(self, X, y=None, **params) -> np.ndarray:
        """Return ``fit(X, y, **params).transform(X)``.

        Parameters
        ----------
        X, y, **params
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, bottleneck)
            Features, from the best candidate.
        """
        return self.fit(X, y, **params).transform(X)

    def _check_own(self) -> None:
        for name, low in (("stack", 1), ("halving", 2)):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not (whole and value >= low) and not (name == "halving" and value is None):
                extra = ", or None" if name == "halving" else ""
                raise ValueError(
                    f"{name}={value!r}: it must be a whole number, at least {low}{extra}."
                )

    def _refit_best(self, X, y, fit_params: dict[str, Any]) -> None:
        self.best_estimator_ = clone(self.estimator).set_params(
            **clone(self.best_params_, safe=False)
        )
        began = time.time()
        self.best_estimator_.fit(X, *(() if y is None else (y,)), **fit_params)
        self.refit_time_ = time.time() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    def _run_search(self, evaluate_candidates, *, callback_ctx=None) -> None:
        if callback_ctx is not None and self.halving is None:
            super()._run_search(evaluate_candidates, callback_ctx=callback_ctx)
            return
        candidates = list(ParameterGrid(self.param_grid))
        if self.halving is None:
            evaluate_candidates(candidates)
            return
        name, longest = self._epochs_parameter()
        if any(name in candidate for candidate in candidates):
            raise ValueError(f"halving varies {name}; leave it out of param_grid.")
        last = 0
        while self.halving ** (last + 1) <= min(len(candidates), longest):
            last += 1
        for i in range(last + 1):
            epochs = longest // self.halving ** (last - i)
            candidates = [candidate | {name: epochs} for candidate in candidates]
            n = len(candidates)
            results = evaluate_candidates(
                candidates, more_results={"iter": [i] * n, "n_resources": [epochs] * n}
            )
            # With one score, refit may name it as well as be True.
            one = "mean_test_score" in results
            metric = "score" if one or not isinstance(self.refit, str) else self.refit
            if f"mean_test_{metric}" not in results:
                raise ValueError(
                    f"halving ranks candidates by one score, and there is no {metric!r}: name the "
                    "one in refit."
                )
            scores = results[f"mean_test_{metric}"][-n:]
            best = np.argsort(-scores, kind="stable")[: math.ceil(n / self.halving)]  # NaN last
            candidates = [candidates[j] for j in sorted(best)]

    def _epochs_parameter(self) -> tuple[str, int]:
        """Return the name and value of the classifier's ``max_epochs``."""
        name = "max_epochs"
        if isinstance(self.estimator, Pipeline):
            name = f"{self.estimator.steps[-1][0]}__{name}"
        params = self.estimator.get_params()
        if name not in params:
            raise ValueError(
                f"halving={self.halving}: {type(self.estimator).__name__} has no parameter {name}."
            )
        return name, params[name]

    @staticmethod
    def _select_best_index(refit, refit_metric, results) -> int:
        if callable(refit) or "iter" not in results:
            return GridSearchCV._select_best_index(refit, refit_metric, results)
        last = np.flatnonzero(results["iter"] == np.max(results["iter"]))
        scores = results[f"mean_test_{refit_metric}"][last]
        return int(last[0 if np.isnan(scores).all() else np.nanargmax(scores)])
