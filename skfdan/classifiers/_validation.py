"""A validation part of the training rows, for early stopping."""

from __future__ import annotations

import math

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.table import check_groups


def hold_out(
    samples: Samples,
    lead: str,
    y: np.ndarray,
    groups,
    fraction: float,
    rng: np.random.RandomState,
) -> tuple[Samples, ModalitySamples]:
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
        n_groups = len(set(groups[candidates].tolist()))
        if n_groups < 2:
            raise ValueError(
                "early_stopping needs labelled rows of at least two groups (speakers), to train on "
                f"and to validate on; all are of group {groups[candidates].tolist()[0]!r}."
            )
        if math.ceil(fraction * n_groups) == n_groups:
            raise ValueError(
                f"validation_fraction={fraction} holds out all {n_groups} groups, so none is left "
                "to train on; lower it."
            )
        splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
        _, held = next(splitter.split(candidates, groups=groups[candidates]))
    else:
        labels = y[candidates]
        n_held, n_classes = math.ceil(fraction * len(labels)), len(np.unique(labels))
        if len(labels) - n_held < n_classes <= n_held:
            raise ValueError(
                f"validation_fraction={fraction} leaves {len(labels) - n_held} of {len(labels)} "
                f"labelled {lead} rows to train on, and there are {n_classes} classes; lower it, "
                "or give more data."
            )
        held = _draw(labels, n_held, seed)
    out = candidates[held]
    dropped = np.isin(np.arange(len(y)), out)
    if groups is not None:
        dropped = np.isin(groups, np.unique(groups[out]))
    train = {
        m: s.select(np.flatnonzero(~dropped[s.rows]))
        for m, s in samples.items()
        if (~dropped[s.rows]).any()
    }
    valid = samples[lead].select(np.flatnonzero(np.isin(samples[lead].rows, out)))
    return train, valid


def _draw(y: np.ndarray, n_held: int, seed: int) -> np.ndarray:
    """Return positions of n_held rows, of every class its share but never all, if possible."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[inverse] > 1)
    if min(n_held, len(several) - n_held) >= (counts > 1).sum() > 0:
        splitter = StratifiedShuffleSplit(1, test_size=n_held, random_state=seed)
        kept, held = next(splitter.split(several, y[several]))
        order = several[np.append(held, kept)]
    else:
        order = np.random.RandomState(seed).permutation(len(y))
    # In this order, the last row of a class is held out only if there is no other to take.
    _, last = np.unique(y[order][::-1], return_index=True)
    spare = np.delete(order, len(order) - 1 - last)
    return (spare if len(spare) else order)[:n_held]
