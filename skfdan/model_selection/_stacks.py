"""Which candidates of a search are trained together, and what one fold makes of them."""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer
from sklearn.model_selection._validation import _fit_and_score, _score
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import _check_method_params, _num_samples

#: A candidate: its place in the list, and its parameters.
Candidate = tuple[int, dict[str, Any]]


class Plan(NamedTuple):
    """Candidates by how they are trained, and why some can't be stacked (or None)."""

    groups: list[list[Candidate]]
    singles: list[Candidate]
    why: str | None


def make_plan(estimator, candidates: Sequence[dict[str, Any]]) -> Plan:
    """Group the candidates that one stack can train.

    They agree in all but a few parameters of the classifier, which is the estimator or
    the last step of a Pipeline.
    """
    from skfdan.classifiers._stacked import VARIABLE, obstacle

    name = estimator.steps[-1][0] if isinstance(estimator, Pipeline) else None
    variable = VARIABLE if name is None else {f"{name}__{v}" for v in VARIABLE}
    groups: dict[frozenset, list[Candidate]] = {}
    singles, obstacles = [], []
    for i, params in enumerate(candidates):
        try:
            found = obstacle(_classifier(_built(estimator, params)))
        except Exception:  # a parameter that is not there: the ordinary fit tells
            found = "it can't be built"
        if found is not None:
            obstacles.append(found)
            singles.append((i, params))
            continue
        rest = frozenset((k, _token(v)) for k, v in params.items() if k not in variable)
        groups.setdefault(rest, []).append((i, params))
    stacked = [group for group in groups.values() if len(group) > 1]
    singles += [group[0] for group in groups.values() if len(group) == 1]
    why = None
    if obstacles and len(candidates) > 1:
        why = f"{obstacles[0]} ({len(obstacles)} of {len(candidates)} candidates)"
    elif not stacked and len(candidates) > 1:
        why = f"no two candidates differ in {', '.join(sorted(variable))} alone"
    return Plan(stacked, sorted(singles, key=lambda c: c[0]), why)


def _built(estimator, params: dict[str, Any]):
    return clone(estimator).set_params(**clone(params, safe=False))


def _classifier(estimator):
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _token(value: Any) -> tuple[type, Any]:
    """Return what is equal for the same values of a parameter."""
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    return type(value), value


@dataclass
class Jobs:
    """Fits and scores candidates in folds; the fields are those of ``_fit_and_score``.

    ``obstacle`` becomes what kept some candidates from being stacked, where anything did.
    """

    estimator: Any
    scorer: Callable
    fit_params: dict[str, Any]
    score_params: dict[str, Any]
    return_train_score: bool
    error_score: Any
    verbose: int
    stack: int
    obstacle: str | None = None

    def run(
        self, parallel, X, y, splits: list[tuple], candidates: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return a result for every candidate and fold; those of a candidate follow each other."""
        plan = self._plan(candidates)
        folds = list(enumerate(splits))
        n = len(candidates), len(splits)
        # X and y are arguments of their own, so that joblib and Dask see which data are shared.
        done = parallel(
            [
                delayed(_run_group)(self, X, y, fold, group, n)
                for fold in folds
                for group in plan.groups
            ]
            + [
                delayed(_run_single)(self, X, y, fold, candidate, n)
                for candidate in plan.singles
                for fold in folds
            ]
        )
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for results, why in done:
            found |= results
            self.obstacle = self.obstacle or why
        return [found[i, k] for i in range(n[0]) for k in range(n[1])]

    def _plan(self, candidates: list[dict[str, Any]]) -> Plan:
        if self.stack == 1:
            return Plan([], list(enumerate(candidates)), None)
        if self.fit_params and len(candidates) > 1:
            self.obstacle = f"fit is given {', '.join(self.fit_params)}"
            return Plan([], list(enumerate(candidates)), None)
        plan = make_plan(self.estimator, candidates)
        self.obstacle = self.obstacle or plan.why
        return plan


#: A fold's number, and its rows.
_Fold = tuple[int, tuple[np.ndarray, np.ndarray]]
#: Results by candidate and fold, and what kept the candidates from being stacked.
_Found = tuple[dict[tuple[int, int], dict[str, Any]], str | None]


def _run_single(jobs: Jobs, X, y, fold: _Fold, candidate: Candidate, n: tuple[int, int]) -> _Found:
    """Fit and score one candidate in a fold, as scikit-learn does."""
    (k, (train, test)), (i, params) = fold, candidate
    result = _fit_and_score(
        *(clone(jobs.estimator), X, y),
        train=train,
        test=test,
        parameters=params,
        candidate_progress=(i, n[0]),
        split_progress=(k, n[1]),
        scorer=jobs.scorer,
        fit_params=jobs.fit_params,
        score_params=jobs.score_params,
        return_train_score=jobs.return_train_score,
        return_n_test_samples=True,
        return_times=True,
        error_score=jobs.error_score,
        verbose=jobs.verbose,
    )
    return {(i, k): result}, None


def _run_group(jobs: Jobs, X, y, fold: _Fold, group: list[Candidate], n: tuple[int, int]) -> _Found:
    """Fit a group of candidates in a fold, so many at a time, and score each."""
    from skfdan.classifiers._stacked import NotStackable, fit_together

    began = time.time()
    k, (train, test) = fold
    X_train, y_train = _safe_split(jobs.estimator, X, y, train)
    built = [_built(jobs.estimator, params) for _, params in group]
    found = {}
    try:
        pipeline, X_train, y_train = _before(built[0], X_train, y_train)
    except Exception:  # it will be raised again, for each of the candidates
        return _run_singly(jobs, X, y, fold, group, n), None
    shared = (time.time() - began) / len(group)
    parts = [_Part("test_scores", test, train)]
    if jobs.return_train_score:
        parts.append(_Part("train_scores", train))
    try:
        for chosen in np.array_split(np.arange(len(group)), -(-len(group) // jobs.stack)):
            began = time.time()
            classifiers = [_classifier(built[j]) for j in chosen]
            errors = fit_together(classifiers, X_train, y_train)
            took = time.time() - began
            if not found:  # not before it is known that they can be stacked
                parts = [_transformed(jobs, pipeline, X, y, part, len(group)) for part in parts]
            if jobs.verbose > 1:
                together = f"{len(chosen)} candidates trained together"
                print(f"[CV {k + 1}/{n[1]}] {together}, total time={took:6.1f}s")
            for j, classifier, error in zip(chosen, classifiers, errors, strict=True):
                result = _result(jobs, pipeline, classifier, X, y, parts, error)
                result["fit_time"] = shared + took / len(chosen)
                found[group[j][0], k] = result
                built[j] = None  # the next ones need the memory
    except NotStackable as why:
        return _run_singly(jobs, X, y, fold, group, n), str(why)
    return found, None


def _run_singly(jobs: Jobs, X, y, fold: _Fold, group: list[Candidate], n: tuple[int, int]):
    found = {}
    for candidate in group:
        found |= _run_single(jobs, X, y, fold, candidate, n)[0]
    return found


class _Part(NamedTuple):
    """What one kind of score is computed on: rows, or what a Pipeline has made of them."""

    name: str
    rows: Any
    train: Any = None
    transformed: Any = None
    seconds: float = 0.0

    def cut(self, jobs: Jobs, X, y) -> tuple[Any, Any, dict[str, Any]]:
        """Return the rows of X and y, and what the scorer gets beside them."""
        params = _check_method_params(X, jobs.score_params, self.rows)
        return *_safe_split(jobs.estimator, X, y, self.rows, self.train), params


def _transformed(jobs: Jobs, pipeline, X, y, part: _Part, n: int) -> _Part:
    """Return a part with what the classifiers of n candidates get of it, if they can share it.

    A scorer of the user's must get the whole Pipeline and rows of its own: it may look at
    either, keep it, and write to it. Those of scikit-learn do no more than predict.
    """
    if type(pipeline) is not Pipeline or jobs.score_params or not _only_predicts(jobs.scorer):
        return part
    began = time.time()
    try:
        transformed = pipeline.predict(part.cut(jobs, X, y)[0])
    except Exception:  # it will be raised again, in the scoring of each candidate
        return part
    return part._replace(transformed=transformed, seconds=(time.time() - began) / n)


def _only_predicts(scorer: Callable) -> bool:
    scorers = scorer._scorers.values() if isinstance(scorer, _MultimetricScorer) else [scorer]
    return all(isinstance(s, (_BaseScorer, _PassthroughScorer)) for s in scorers)


def _result(
    jobs: Jobs, pipeline, classifier, X, y, parts: list[_Part], error: Exception | None
) -> dict[str, Any]:
    """Return what ``_fit_and_score`` does of a fit that is done or has failed."""
    if error is not None and jobs.error_score == "raise":
        raise error
    result = {"fit_error": None, "score_time": 0.0}
    for part in parts:
        # Anew for each candidate, as there: a scorer may write to what it gets.
        X_part, y_part, params = part.cut(jobs, X, y)
        if part.name == "test_scores":
            result["n_test_samples"] = _num_samples(X_part)
        if error is None:
            began = time.time()
            estimator = _behind(pipeline, classifier)
            if part.transformed is not None:
                estimator, X_part = classifier, part.transformed
            score = _score(estimator, X_part, y_part, jobs.scorer, params, jobs.error_score)
            if part.name == "test_scores":
                result["score_time"] = time.time() - began + part.seconds
        elif isinstance(jobs.scorer, _MultimetricScorer):
            score = dict.fromkeys(jobs.scorer._scorers, jobs.error_score)
        else:
            score = jobs.error_score
        result[part.name] = score
    if error is not None:
        result["fit_error"] = "".join(traceback.format_exception(error))
    return result


def _before(estimator, X, y):
    """Fit what comes before the classifier, once for all candidates.

    Returns the fitted Pipeline, where there is one, and the data that the classifier gets.
    """
    if not isinstance(estimator, Pipeline):
        return None, X, y
    kept = _Keep()
    pipeline = copy.copy(estimator)
    pipeline.steps = [*estimator.steps[:-1], (estimator.steps[-1][0], kept)]
    pipeline.fit(X, y)
    return pipeline, kept.X_, kept.y_


def _behind(pipeline, classifier):
    """Return a fitted Pipeline with the classifier as its last step."""
    if pipeline is None:
        return classifier
    whole = copy.copy(pipeline)
    whole.steps = [*pipeline.steps[:-1], (pipeline.steps[-1][0], classifier)]
    return whole


class _Keep(BaseEstimator):
    """The last step of a Pipeline: keeps what it is fitted with, and predicts what it is given."""

    def fit(self, X, y=None):
        self.X_, self.y_ = X, y
        return self

    def predict(self, X):
        return X
