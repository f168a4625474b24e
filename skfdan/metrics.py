"""The field's scores under the field's names.

- **WAR**, weighted average recall: the share of clips that are right (accuracy).
- **UAR**, unweighted average recall: the mean over classes of the recall.
- **wF1**: the mean over classes of F1, weighted by the classes' sizes.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, make_scorer, recall_score
from sklearn.utils.validation import column_or_1d

from skfdan.table import as_labels, as_numbers, is_missing

__all__ = ["SCORING", "uar_score", "war_score", "weighted_f1_score"]


def war_score(y_true, y_pred) -> float:
    """Weighted average recall: recall averaged with the class sizes as weights.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels.

    Returns
    -------
    float
        In [0, 1]; equal to accuracy.

    Examples
    --------
    >>> war_score(["a", "a", "a", "b"], ["a", "a", "a", "a"])
    0.75
    """
    y_true, y_pred = _check_labels("war_score", y_true, y_pred)
    return float(accuracy_score(y_true, y_pred))


def uar_score(y_true, y_pred) -> float:
    """Unweighted average recall: every class of ``y_true`` counts the same.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels. A class that is predicted but never true has
        no recall and does not count, as in scikit-learn's balanced accuracy.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> uar_score(["a", "a", "a", "b"], ["a", "a", "a", "a"])
    0.5
    """
    y_true, y_pred = _check_labels("uar_score", y_true, y_pred)
    labels = np.unique(y_true)
    return float(recall_score(y_true, y_pred, labels=labels, average="macro", zero_division=0))


def weighted_f1_score(y_true, y_pred) -> float:
    """F1 of every class, averaged with the class sizes as weights.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(weighted_f1_score(["a", "a", "a", "b"], ["a", "a", "a", "a"]), 3)
    0.643
    """
    y_true, y_pred = _check_labels("weighted_f1_score", y_true, y_pred)
    return float(f1_score(y_true, y_pred, average="weighted", zero_division=0))


#: The three by their names, as they are told.
SCORES = {"WAR": war_score, "UAR": uar_score, "wF1": weighted_f1_score}
#: Scorers for ``GridSearchCV`` and ``cross_validate``:
#: ``GridSearchCV(..., scoring=SCORING, refit="UAR")``.
SCORING = {name: make_scorer(score) for name, score in SCORES.items()}


def _check_labels(who: str, y_true, y_pred) -> list[np.ndarray]:
    checked = []
    for name, labels in (("y_true", y_true), ("y_pred", y_pred)):
        labels = column_or_1d(as_labels(labels))
        missing = np.flatnonzero([is_missing(label) for label in labels])
        if len(missing):
            raise ValueError(
                f"{who}: {name} is missing (NaN or None) in row {missing[0]}; score the rows that "
                "have a label."
            )
        checked.append(as_numbers(labels))
    return checked
