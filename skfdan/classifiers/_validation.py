"""A validation part of the training rows, for early stopping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.table import is_missing


def check_groups(groups: Any) -> np.ndarray:
    """Return groups as an array; refuse one that is missing."""
    groups = np.asarray(groups)
    lacking = np.flatnonzero([is_missing(group) for group in groups])
    if len(lacking):
        raise ValueError(
            f"groups is missing (NaN or None) in row {lacking[0]}; give every row one."
        )
    return groups


def hold_out(
    samples: Samples,
    lead: str,
    y: np.ndarray,
    groups,
    fraction: float,
    rng: np.random.RandomState,
) -> tuple[Samples, tuple[str, ModalitySamples, np.ndarray]]:
    """Split off validation rows of the modality ``lead``, speakers kept apart.

    With groups, all rows of a validation speaker leave the training part,
    whatever their modality; without, the validation rows themselves do.
    """
    candidates = np.unique(samples[lead].rows)
    candidates = candidates[y[candidates] >= 0]
    if len(candidates) < 2:
        raise ValueError(f"early_stopping needs labelled {lead} rows to validate on.")
    seed = rng.randint(2**31 - 1)
    if groups is not None:
        groups = check_groups(groups)
        if len(set(groups[candidates].tolist())) < 2:
            raise ValueError(
                "early_stopping needs labelled rows of at least two groups (speakers), to train on "
                f"and to validate on; all are of group {groups[candidates].tolist()[0]!r}."
            )
        splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
        kept, held = next(splitter.split(candidates, groups=groups[candidates]))
    else:
        n_held = math.ceil(fraction * len(candidates))
        _, counts = np.unique(y[candidates], return_counts=True)
        stratify = counts.min() >= 2 and n_held >= len(counts)
        kind = StratifiedShuffleSplit if stratify else ShuffleSplit
        splitter = kind(1, test_size=fraction, random_state=seed)
        kept, held = next(splitter.split(candidates, y[candidates]))
    out = candidates[held]
    if len(kept) == 0:
        raise ValueError("early_stopping leaves no training row; give more data or groups.")
    dropped = np.isin(np.arange(len(y)), out)
    if groups is not None:
        dropped = np.isin(groups, np.unique(groups[out]))
    train = {
        m: s.select(np.flatnonzero(~dropped[s.rows]))
        for m, s in samples.items()
        if (~dropped[s.rows]).any()
    }
    valid = samples[lead].select(np.flatnonzero(np.isin(samples[lead].rows, out)))
    return train, (lead, valid, y)
