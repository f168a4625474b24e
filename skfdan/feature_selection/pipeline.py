"""The method that INCA comes from, and the protocol of its published scores."""

from __future__ import annotations

import warnings

from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import check_cv, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ..preprocessing import TwineShufflePattern
from .inca import INCASelector

__all__ = ["inca_leaky_cross_val_predict", "make_inca_pipeline"]


def make_inca_pipeline(*, n_jobs=None, cache_dir=None, random_state=None, verbose=1) -> Pipeline:
    """Build the method of Tuncer et al.: twine shuffle pattern, INCA, cubic SVM.

    Steps ``features`` (:class:`~skfdan.preprocessing.TwineShufflePattern`),
    ``selection`` (:class:`INCASelector`), ``scaling`` (standardization) and
    ``classifier`` (SVM with the kernel ``(1 + gamma x'y)**3``, C = 1, one
    against one). Other parameters by
    ``set_params(selection__k_max=500, ...)``.

    The selection is fitted with the rest, hence on training rows only. The
    published scores come from a selection on all rows, test rows included; see
    :func:`inca_leaky_cross_val_predict`.

    Parameters
    ----------
    n_jobs : int or None, default=None
        Threads that decode, and folds judged, at the same time.
    cache_dir : path-like or None, default=None
        Folder in which features are kept, per file.
    random_state : int, RandomState instance or None, default=None
        Seed of the selection's folds.
    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    Pipeline
        For a column of sound files or waveforms, a modality table whose rows all
        have a voice, or a matrix of waveforms.

    Notes
    -----
    Fidelity: **reconstructed**, see the notes of both classes. MATLAB's kernel
    scale in the paper is not known. ``gamma`` is scikit-learn's ``"scale"``, which
    gave UAR 0.35 where ``gamma=1`` gave 0.29 (RAVDESS, 12 actors in 4 folds).

    References
    ----------
    .. [1] Tuncer, T., Dogan, S. and Acharya, U. R. (2021). Automated accurate
       speech emotion recognition system using twine shuffle pattern and
       iterative neighborhood component analysis techniques. Knowledge-Based
       Systems 211, 106547.

    Examples
    --------
    >>> list(make_inca_pipeline().named_steps)
    ['features', 'selection', 'scaling', 'classifier']
    """
    return Pipeline(
        [
            ("features", TwineShufflePattern(n_jobs=n_jobs, cache_dir=cache_dir, verbose=verbose)),
            ("selection", INCASelector(n_jobs=n_jobs, random_state=random_state)),
            ("scaling", StandardScaler()),
            ("classifier", SVC(kernel="poly", degree=3, coef0=1.0, C=1.0)),
        ]
    )


def inca_leaky_cross_val_predict(pipeline: Pipeline, X, y, *, cv=10, groups=None, n_jobs=None):
    """Cross-validate after selecting features on **all** rows. The scores are too high.

    This is the protocol of the published INCA scores: features are selected once,
    with the labels of rows that are tested afterwards, and only the classifier is
    cross-validated. On labels of pure noise, with few clips, it can score above chance. It is
    here to be compared with ``cross_val_predict(pipeline, X, y)``, which selects
    anew in every training fold and is what an evaluation should report.

    Parameters
    ----------
    pipeline : Pipeline
        A pipeline with an :class:`INCASelector` step, such as
        :func:`make_inca_pipeline` builds. It is not changed.
    X : DataFrame or array-like of n rows
        What the pipeline takes.
    y : array-like of shape (n,)
        Labels.
    cv : int, splitter or iterable, default=10
        Folds in which what follows the selection is fitted and tested; an
        integer is a stratified k-fold.
    groups : array-like of shape (n,) or None, default=None
        Speakers, for a ``cv`` that divides by them.
    n_jobs : int or None, default=None
        Folds fitted at the same time.

    Returns
    -------
    ndarray of shape (n,)
        Predictions.

    Raises
    ------
    ValueError
        If the pipeline has no :class:`INCASelector` step before its last.

    Warns
    -----
    UserWarning
        Always: the selection has seen the test labels.

    Examples
    --------
    Labels of pure noise, and still most are right:

    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from skfdan.feature_selection import INCASelector, inca_leaky_cross_val_predict
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(40, 300)), np.repeat(["anger", "joy"], 20)
    >>> pipeline = make_pipeline(INCASelector(k_min=5, k_max=20, random_state=0), SVC())
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", UserWarning)
    ...     predictions = inca_leaky_cross_val_predict(pipeline, X, y)
    >>> bool(np.mean(predictions == y) > 0.7)
    True
    """
    steps = [step for _, step in pipeline.steps[:-1]]
    found = [i for i, step in enumerate(steps) if isinstance(step, INCASelector)]
    if not found:
        raise ValueError(
            "inca_leaky_cross_val_predict needs a pipeline with an INCASelector step; got steps "
            f"{[type(step).__name__ for _, step in pipeline.steps]}."
        )
    warnings.warn(
        "inca_leaky_cross_val_predict selects features with the labels of the test rows: its "
        "scores are too high. Report cross_val_predict(pipeline, X, y) instead.",
        UserWarning,
        stacklevel=2,
    )
    after = found[-1] + 1
    # A selector may keep speakers apart among the rows that it selects on.
    params, cv_groups = {}, {"groups": groups}
    if groups is not None and get_config()["enable_metadata_routing"]:
        asked = {"groups": groups}
        if any(steps[i].get_metadata_routing().consumes("fit", asked) for i in found):
            params = asked
        cv = check_cv(cv, y, classifier=True)
        cv_groups = {"params": asked if cv.get_metadata_routing().consumes("split", asked) else {}}
    elif groups is not None:
        params = {f"{pipeline.steps[i][0]}__groups": groups for i in found}
    selected = clone(pipeline[:after]).fit_transform(X, y, **params)
    return cross_val_predict(
        clone(pipeline[after:]), selected, y, cv=cv, n_jobs=n_jobs, **cv_groups
    )
