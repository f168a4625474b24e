"""Scores as text and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from skfdan.metrics import SCORES


def scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return WAR, UAR and wF1."""
    return {name: score(y, predicted) for name, score in SCORES.items()}


def scores_line(y: np.ndarray, predicted: np.ndarray) -> str:
    """Return WAR, UAR and wF1 in one line, with what guessing gives."""
    told = "  ".join(f"{name} {value:.3f}" for name, value in scores(y, predicted).items())
    return f"{told}  (chance UAR {1 / len(set(y.tolist())):.3f})"


def confusion(y: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Count true (rows) against predicted labels, with the recall of each row."""
    labels = list(labels)
    counts = pd.crosstab(
        pd.Categorical(y, labels), pd.Categorical(predicted, labels), dropna=False
    ).to_numpy()
    frame = pd.DataFrame(counts, index=labels, columns=labels)
    total = counts.sum(axis=1)
    frame["recall"] = np.where(total > 0, counts.diagonal() / np.maximum(total, 1), np.nan)
    return frame[total > 0]


def by_group(y: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Score each group by itself; a group's UAR is over the emotions it has."""
    rows = {}
    for group in sorted(set(groups.tolist())):
        of = groups == group
        rows[group] = {"clips": int(of.sum())} | scores(y[of], predicted[of])
    return pd.DataFrame.from_dict(rows, orient="index")
